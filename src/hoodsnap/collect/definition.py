"""What may be kept of a domain's definition: XML in, the same XML out, and of some texts nothing.

libvirt leaves out what it knows to be a secret (the passwords of the graphics) where a connection
may only read. What it only passes on, it shows to everybody.
"""

from __future__ import annotations

import re
from xml.sax.saxutils import escape, unescape

from hoodsnap.collect.arguments import kept_words
from hoodsnap.collect.recorder import WITHHELD

_TEXTS = re.compile(r"(<(cmdline|initarg|initenv|cookie)\b[^>]*>)[^<]+(?=</\2>)")
"""Of a kernel, of a container's first process, of a web server that has a disk."""

_FOR_THE_GUEST = re.compile(
    r"<sysinfo type='fwcfg'>.*?</sysinfo>|<oemStrings>.*?</oemStrings>", re.DOTALL
)
"""What a guest reads at its first boot: credentials of systemd, a cloud-init of its own."""

_ENTRY = re.compile(r"(<entry\b[^>]*>)[^<]+(?=</entry>)")

_ENVIRONMENT = re.compile(r"(<qemu:env\b[^>]*?\bvalue=')[^']+")

_ARGUMENT = re.compile(r"(<qemu:arg value=')([^']*)'")

_QUOTED = {"'": "&apos;", '"': "&quot;"}
_UNQUOTED = {quoted: plain for plain, quoted in _QUOTED.items()}


def kept_definition(xml: str) -> str:
    """A definition as libvirt writes it, with the texts withheld that it hands to guests."""
    xml = _TEXTS.sub(rf"\g<1>{WITHHELD}", xml)
    xml = _FOR_THE_GUEST.sub(lambda found: _ENTRY.sub(rf"\g<1>{WITHHELD}", found[0]), xml)
    if "<qemu:" not in xml:
        return xml
    xml = _ENVIRONMENT.sub(rf"\g<1>{WITHHELD}", xml)
    words = [unescape(found[2], _UNQUOTED) for found in _ARGUMENT.finditer(xml)]
    kept = iter(kept_words(words))
    return _ARGUMENT.sub(lambda found: f"{found[1]}{escape(next(kept), _QUOTED)}'", xml)
