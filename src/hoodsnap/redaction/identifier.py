"""Identifiers recognized by their form: UUIDs, MACs, addresses, checksums, WWIDs, mail, keys.

All parts of the patterns have bounded length, so that a text is read in linear time.
"""

from __future__ import annotations

import re

UUID = r"[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}"
FOUR = r"(?<![0-9A-Za-z.])[0-9]{1,3}(?:\.[0-9]{1,3}){3}(?![0-9A-Za-z]|\.(?:[0-9]|in-addr))"
MAC = r"(?<![0-9A-Fa-f:.-])[0-9A-Fa-f]{2}(?:[:.-]?[0-9A-Fa-f]{2}){5}(?![0-9A-Fa-f:.-])"
"""MAC in any spelling; one without separators counts only if it is known as a MAC."""

WHOLE = re.compile(
    r"(?P<sshkey>\b(?:ssh-(?:rsa|dss|ed25519)|ecdsa-sha2-nistp[0-9]{3}|sk-[a-z0-9-]{3,40}"
    r"@openssh\.com) AAAA[A-Za-z0-9+/]{16,16384}={0,2}(?: [^\s\"'\\@]{1,64}@[^\s\"'\\]{1,255})?)"
    r"|(?P<print>\bSHA256:[A-Za-z0-9+/]{43}(?![A-Za-z0-9+/]))"
    r"|(?<![A-Za-z0-9._%+-])(?P<mail>[A-Za-z0-9._%+-]{1,64}@[A-Za-z0-9-]{1,63}"
    r"(?:\.[A-Za-z0-9-]{1,63}){1,8})(?![A-Za-z0-9-])"
)
"""Identifiers that are replaced before the text is searched for names."""
WHOLE_MARK = re.compile(r"@|SHA256:|AAAA")

LOOKS = re.compile(
    r"(?P<lvm>LVM-[A-Za-z0-9]{64}(?![A-Za-z0-9]))"
    r"|(?<![A-Za-z0-9-])(?P<pv>[A-Za-z0-9]{6}(?:-[A-Za-z0-9]{4}){5}-[A-Za-z0-9]{6})(?![A-Za-z0-9-])"
    rf"|(?P<uuid>{UUID})"
    r"|(?P<apart>[0-9A-Fa-f]{8}(?P<gap>[_.: ])[0-9A-Fa-f]{4}(?P=gap)[0-9A-Fa-f]{4}(?P=gap)"
    r"[0-9A-Fa-f]{4}(?P=gap)[0-9A-Fa-f]{12})"
    r"|(?<![0-9A-Za-z])(?:"
    + "|".join(
        (
            # A port's id, or its beginning, in the name of a device, a chain or an address set.
            r"(?P<device>[a-z]{2,4}-?|macvtap|N?IPv[46]|neutron-[a-z]{1,40}-[a-z]{1,2}|virtio-)"
            rf"(?P<start>{UUID}(?![0-9A-Fa-f])"
            r"|[0-9a-f]{8}-[0-9a-f]{1,4}(?:-[0-9a-f]{1,4}){0,3}(?![0-9A-Za-z]|-[0-9A-Fa-f]))",
            # A virtual disk's serial has room for 20 characters.
            r"(?<!-)(?P<part>[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}(?:-[0-9a-f]{1,4})?)"
            r"(?![0-9A-Za-z]|-[0-9A-Fa-f])",
            # A DHCP client id is 01 followed by the MAC.
            r"(?<!:)(?P<client>01:)?(?P<mac>(?:[0-9A-Fa-f]{2}:){5}[0-9A-Fa-f]{2})"
            r"(?![0-9A-Fa-f]|:[0-9A-Fa-f])",
            r"(?<!-)(?P<macdash>(?:[0-9A-Fa-f]{2}-){5}[0-9A-Fa-f]{2})(?![0-9A-Za-z]|-[0-9A-Fa-f])",
            r"(?<!:)(?P<octets>(?:[0-9A-Fa-f]{2}:){7}[0-9A-Fa-f]{2}"
            r"(?:(?::[0-9A-Fa-f]{2}){8}(?:(?::[0-9A-Fa-f]{2}){4})?)?)(?![0-9A-Fa-f]|:[0-9A-Fa-f])",
            r"(?<!:)(?P<cisco>[0-9A-Fa-f]{4}(?P<dot>[.:-])[0-9A-Fa-f]{4}(?P=dot)[0-9A-Fa-f]{4}"
            r"|[0-9A-Fa-f]{2}(?P<low>[_ ])[0-9A-Fa-f]{2}(?:(?P=low)[0-9A-Fa-f]{2}){4})"
            r"(?![0-9A-Za-z:]|[.-][0-9A-Fa-f])",
            r"(?P<begin>[0-9A-Fa-f]{8}[-_][0-9A-Fa-f]{4})(?![0-9A-Za-z]|[-_][0-9A-Fa-f])",
            r"0x(?P<load>f[ae]163e[0-9a-f]{6})(?![0-9a-f])",
            r"(?P<initiator>iqn\.[0-9]{4}-[0-9]{2}\.[a-z.]{1,255}:(?:01:)?)(?P<tail>[0-9a-f]{8,12})"
            r"(?![0-9A-Za-z-])",
            r"(?P<wwid>(?:0x|3|naa\.|eui\.|t10\.)[0-9A-Fa-f]{16}(?:[0-9A-Fa-f]{16})?)(?![0-9A-Za-z])",
            r"(?P<hex>[0-9A-Fa-f]{32}|[0-9A-Fa-f]{40}|[0-9A-Fa-f]{56}"
            r"|[0-9A-Fa-f]{64}|[0-9A-Fa-f]{96}|[0-9A-Fa-f]{128})(?![0-9A-Za-z])",
            r"(?P<sixteen>[0-9A-Fa-f]{16})(?![0-9A-Za-z])",
            r"(?P<twelve>(?:0x)?[0-9A-Fa-f]{12})(?![0-9A-Za-z])",
            r"(?P<eight>0x[0-9A-Fa-f]{7,8}|[0-9A-Fa-f]{8})(?![0-9A-Za-z])",
            r"(?P<decimal>[0-9]{8,10})(?![0-9A-Za-z])",
            r"(?P<prefix>host-|ip-)(?P<dashed>[0-9]{1,3}(?:-[0-9]{1,3}){3})(?![0-9A-Za-z])",
            r"(?P<known>[0-9]{1,3}(?P<bar>[-_])[0-9]{1,3}(?P=bar)[0-9]{1,3}(?P=bar)[0-9]{1,3})"
            r"(?![0-9A-Za-z]|[-_][0-9])",
            r"(?P<arpa>(?:[0-9]{1,3}\.){1,4}(?=in-addr\.arpa)|(?:[0-9A-Fa-f]\.){1,32}(?=ip6\.arpa))",
            r"(?<!\.)(?P<four>[0-9]{1,3}(?:\.[0-9]{1,3}){3}(?:/[0-9]{1,2})?)"
            r"(?![0-9A-Za-z]|\.[0-9])",
            r"(?<!:)(?P<interface>[0-9A-Fa-f]{1,4}:[0-9A-Fa-f]{1,2}ff:fe[0-9A-Fa-f]{2}:"
            r"[0-9A-Fa-f]{1,4})(?![0-9A-Za-z:])",
            r"(?<!:)(?P<six>[23fF][0-9A-Fa-f]{1,3}:[0-9A-Fa-f:]{0,60}:[0-9A-Fa-f]{0,4}"
            r"(?:/[0-9]{1,3})?)(?![0-9A-Za-z:])",
        )
    )
    + ")"
    r"|(?<![0-9A-Za-z:])(?P<mapped>(?:::|(?:0{1,4}:){5})[fF]{4}:[0-9A-Fa-f]{1,4}:[0-9A-Fa-f]{1,4})"
    r"(?![0-9A-Za-z:])"
)
"""Pattern of all other identifiers that are recognized by their form."""

MARKS = re.compile(
    r"[0-9a-fA-F]{7}|[0-9]\.[0-9]|:[0-9A-Fa-f]{0,4}:|[0-9][-_][0-9]|[0-9A-Fa-f]{2}-[0-9A-Fa-f]{2}-"
    r"|\.arpa"
    r"|[0-9A-Fa-f]{4}[.:][0-9A-Fa-f]{4}[.:]|(?:[0-9A-Fa-f]{2}[_ ]){5}"
    r"|[A-Za-z0-9]{4}-[A-Za-z0-9]{4}-"
)
"""Pattern that every text with one of `LOOKS` matches: a quick test to skip most short texts."""

KINDS = {
    "sshkey": "key",
    "print": "key",
    "mail": "mail address",
    "lvm": "LVM id",
    "pv": "LVM id",
    "uuid": "UUID",
    "apart": "UUID",
    "start": "UUID",
    "part": "UUID",
    "mac": "MAC",
    "macdash": "MAC",
    "octets": "MAC",
    "cisco": "MAC",
    "begin": "UUID",
    "load": "MAC",
    "twelve": "MAC",
    "tail": "initiator",
    "wwid": "WWID",
    "sixteen": "WWID",
    "hex": "id or checksum",
    "eight": "address",
    "decimal": "address",
    "dashed": "address",
    "known": "address",
    "arpa": "address",
    "four": "address",
    "six": "address",
    "interface": "address",
    "mapped": "address",
}

_PERHAPS = frozenset(
    {"eight", "decimal", "twelve", "sixteen", "known", "cisco", "begin", "wwid", "pv"}
)
"""Kinds that are replaced only if they are known from elsewhere, or that have two forms."""


def is_told(text: str) -> bool:
    """True if the whole text is replaced for its form alone: it need not be a known name."""
    found = LOOKS.fullmatch(text) or WHOLE.fullmatch(text)
    return found is not None and found.lastgroup not in _PERHAPS
