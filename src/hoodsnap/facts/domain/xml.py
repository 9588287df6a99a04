"""XML reader that is safe for hostile documents."""

from __future__ import annotations

from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

from hoodsnap.facts.fact import UnheardError


def parsed(text: str) -> Element:
    """Return the root of a document; names keep their prefixes.

    Raises `UnheardError` if the XML can't be read or has a document type.
    """
    # Namespaces are off: the parser would copy a long namespace to each element and fill memory.
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
    raise UnheardError("the XML has a document type, which libvirt never writes")
