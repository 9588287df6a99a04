"""Find secrets in texts by their form, and withhold them. Every pattern takes linear time.

Any account on the host and any tenant of the cloud can write these texts, so no pattern may scan a
character more than a fixed number of times. Three rules ensure that: a pattern starts with a
literal, or at the only position of a run at which it can start; a run is matched possessively
(`*+`); and parts of a word are searched for in that word only.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from hoodsnap import bounds

WITHHELD = "[withheld]"
"""Mark that replaces a secret in a bundle."""

DEEPEST = bounds.DEEPEST - 8
"""Levels of nested lists and objects. The deepest answer of a layer has about fifteen, and a bundle
that is nested deeper can't be read."""

LARGEST = 64 << 20
"""Characters of all texts of one answer together, plus `OF_A_VALUE` for each value."""

OF_A_VALUE = 32
"""Characters that are added for each value: an object takes at least so many bytes."""


class TooLargeError(Exception):
    """An answer is too large or too deeply nested for a bundle."""


_WORD = r"pass(?:w(?:or)?d|phrase)"

# The name of a key right after its quote. If JSON is nested inside a JSON string, its quotes have
# backslashes.
_KEYS = (
    rf"(?:{_WORD}|(?<=[\"'])(?:admin_?pass|secret|cookie|keyring)"
    r"|(?:auth|access|session)[_-]?token|(?:private|secret|api|access)[_-]?key)"
)
_QUOTED = r"\\*+[\"']\s*+:\s*+(\\*+[\"'])"
_TEXT = r"(?!(?<!\\){0})[^\0]+?(?=(?<!\\){0}|\0|\Z)"

_PAIR_OF_A_KEY = re.compile(r"(\"key\\*+\"[\\\s]*+,[,\\\s]*+\")[^\"\\]++")
_DATA_OF_A_WORD = re.compile(r"(\bdata=)(?>(?:[^,\s\0]++|,,)+)")
_DATA_IN_JSON = re.compile(r"(?<=[\"'])(data" + _QUOTED + ")" + _TEXT.format(r"\2"))
_SECRET_IN_JSON = re.compile(r"qom-type\\*+[\"']\s*+:\s*+\\*+[\"']secret\\*+[\"']")
_USER_INFO = re.compile(
    # Digits are a port, unless an `@` follows.
    r"//[^/:@]*+:(?!\d++(?:[/,;?#)]|$))|(?:iscsi|iser)://[^/%@]*+%"
)


def _in_words(pattern: re.Pattern[str]) -> Callable[[re.Match[str]], str]:
    return lambda word: pattern.sub(rf"\g<1>{WITHHELD}", word[0])


def _without_user_info(word: re.Match[str]) -> str:
    """Return a URL with the text between the user's name and the last `@` withheld."""
    url, last = word[0], word[0].rfind("@")
    for found in _USER_INFO.finditer(url) if last > 0 else ():
        if found.end() < last:
            return f"{url[: found.end()]}{WITHHELD}{url[last:]}"
    return url


_SECRETS: tuple[tuple[re.Pattern[str], str | Callable[[re.Match[str]], str]], ...] = (
    # Up to 2.x, QEMU's rbd driver took the cephx key on the command line, and showed it in JSON.
    (re.compile(r"(:key=)[^:,\s\0'\"]++"), rf"\g<1>{WITHHELD}"),
    (re.compile(r"keyvalue-pairs(?>(?:[^\]]++|(?<=\[withheld)\])*)"), _in_words(_PAIR_OF_A_KEY)),
    (re.compile(r"(?<![A-Za-z0-9+/])AQ[A-Za-z0-9+/]{36}=="), WITHHELD),
    # ps separates words by spaces, /proc/PID/cmdline by NULs. A comma in a value is doubled.
    (re.compile(r"(?:-object[ \0]|\bsecret,)[^ \0]*+"), _in_words(_DATA_OF_A_WORD)),
    # virsh never shows this attribute on a read-only connection; a hand-written file may.
    (
        re.compile(rf"({_WORD}=(['\"]))(?!\2).+?(?=\2|$)", re.IGNORECASE | re.MULTILINE),
        rf"\g<1>{WITHHELD}",
    ),
    (
        re.compile(rf"({_WORD}=)(?!on\b|off\b|['\"])(?>(?:[^,\s\0]++|,,)+)", re.IGNORECASE),
        rf"\g<1>{WITHHELD}",
    ),
    # The `@` and `/` of a password in a URL should be escaped, but often are not.
    (re.compile(r"(?:iscsi|iser)?://[^\s\0'\"<>]*+"), _without_user_info),
    (
        re.compile(
            r"([?&](?:amp;)?(?:key|keyring|(?:api|access|secret|shared|account)[_-]?key"
            r"|(?:\w{1,32}[_-])?(?:token|secret|signature|credential)|sig)=)[^&\s\0'\"<>]++",
            re.IGNORECASE,
        ),
        rf"\g<1>{WITHHELD}",
    ),
    (
        re.compile(f"({_KEYS}{_QUOTED})" + _TEXT.format(r"\2"), re.IGNORECASE),
        rf"\g<1>{WITHHELD}",
    ),
)

_MARKS = re.compile(r"key[=vr_\\'\"-]|data|pass|secret|cookie|token|sign?|://|==", re.IGNORECASE)
"""Words of which a text must have one to contain one of `_SECRETS`. Most texts have none."""


def without_secrets(value: Any) -> Any:
    """Return the value with each secret in its texts replaced by `WITHHELD`.

    This is the second fence; the first are the allow-lists of columns, keys and files. Numbers that
    JSON does not have (NaN, infinity) become texts. Raises `TooLargeError`.
    """
    return searched(value)[0]


def searched(value: Any) -> tuple[Any, int]:
    """Return the value without secrets, and its size in characters (see `LARGEST`)."""
    door = _Door()
    return door.value(value, 0), LARGEST - door.left


class _Door:
    """Walk through one answer, which counts the answer's characters."""

    def __init__(self) -> None:
        self.left = LARGEST

    def value(self, value: Any, depth: int) -> Any:
        """Return a part of the answer without secrets; it is nested `depth` levels deep."""
        self.left -= OF_A_VALUE
        if isinstance(value, str):
            self.left -= len(value)
            if self.left < 0:
                raise TooLargeError(f"the answer has more than {LARGEST >> 20} MiB of text")
            return _without_secrets(value)
        if self.left < 0:
            raise TooLargeError(f"the answer has more than {LARGEST // OF_A_VALUE} values")
        if depth > DEEPEST:
            raise TooLargeError(f"the answer is nested deeper than {DEEPEST} lists and objects")
        if isinstance(value, dict):
            return {key: self.value(item, depth + 1) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self.value(item, depth + 1) for item in value]
        if isinstance(value, float) and value - value != 0:
            return str(value)
        return value


def _without_secrets(text: str) -> str:
    if _MARKS.search(text) is None:
        return text
    for secret, instead in _SECRETS:
        text = secret.sub(instead, text)
    if _SECRET_IN_JSON.search(text):
        # `data` may come before or after the type, so withhold it in all objects: no other QEMU
        # object has a text as `data`.
        text = _DATA_IN_JSON.sub(rf"\g<1>{WITHHELD}", text)
    return text
