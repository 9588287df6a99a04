"""libvirt's XML, read in a way that no document can take advantage of."""

from __future__ import annotations

from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

from hoodsnap.facts.fact import UnheardError


def parsed(text: str) -> Element:
    """The root of a document; names keep their prefixes. `UnheardError` if it has a document
    type."""
    # Without namespaces: a long one, repeated by the parser for each element, fills any memory.
    parser, builder = expat.ParserCreate(), TreeBuilder()
    parser.buffer_text = True
    parser.StartElementHandler = builder.start
    parser.EndElementHandler = builder.end
    parser.CharacterDataHandler = builder.data
    parser.StartDoctypeDeclHandler = _refuse
    try:
        parser.Parse(text, True)
    except (expat.ExpatError, UnicodeError) as error:
        raise UnheardError(f"the XML can't be read: {error}") from None
    return builder.close()


def _refuse(*declaration: object) -> None:
    raise UnheardError("the XML has a document type, which libvirt's never has")
