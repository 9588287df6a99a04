"""Secrets in a text by their form, and the text without them. Every pattern takes linear time.

Every account of the host and every tenant of the cloud can write the texts read here, so no
pattern may look at a character more than a fixed number of times. The rules that keep it so: a
pattern starts with a literal or at the only place of a run where it can start, a run is taken whole
(`*+`), and what lies inside of a word is looked for in that word alone.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from hoodsnap import bounds

WITHHELD = "[withheld]"
"""Mark in a bundle that stands in the place of a secret."""

DEEPEST = bounds.DEEPEST - 8
"""Nesting of lists and objects. The deepest answer of a layer has about fifteen, and no bundle that
is nested deeper can be read."""

LARGEST = 64 << 20
"""Characters of all texts of one answer together, with `OF_A_VALUE` for each value."""

OF_A_VALUE = 32
"""Characters that a value counts for beside its own: an object takes so many bytes at least."""


class TooLargeError(Exception):
    """An answer is deeper or longer than a bundle keeps."""


_WORD = r"pass(?:w(?:or)?d|phrase)"

# The name of a key right after its quote. A text in JSON that is itself a text in JSON has
# backslashes before its quotes.
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
    """A URL with what stands between its user's name and the last `@`."""
    url, last = word[0], word[0].rfind("@")
    for found in _USER_INFO.finditer(url) if last > 0 else ():
        if found.end() < last:
            return f"{url[: found.end()]}{WITHHELD}{url[last:]}"
    return url


_SECRETS: tuple[tuple[re.Pattern[str], str | Callable[[re.Match[str]], str]], ...] = (
    # QEMU's rbd driver up to 2.x took the cephx key on its command line, and showed it in JSON.
    (re.compile(r"(:key=)[^:,\s\0'\"]++"), rf"\g<1>{WITHHELD}"),
    (re.compile(r"keyvalue-pairs(?>(?:[^\]]++|(?<=\[withheld)\])*)"), _in_words(_PAIR_OF_A_KEY)),
    (re.compile(r"(?<![A-Za-z0-9+/])AQ[A-Za-z0-9+/]{36}=="), WITHHELD),
    # In ps the words are separated by blanks, in /proc/PID/cmdline by NULs. A comma is doubled.
    (re.compile(r"(?:-object[ \0]|\bsecret,)[^ \0]*+"), _in_words(_DATA_OF_A_WORD)),
    # virsh never shows the first on a read-only connection; a hand-written file may.
    (
        re.compile(rf"({_WORD}=(['\"]))(?!\2).+?(?=\2|$)", re.IGNORECASE | re.MULTILINE),
        rf"\g<1>{WITHHELD}",
    ),
    (
        re.compile(rf"({_WORD}=)(?!on\b|off\b|['\"])(?>(?:[^,\s\0]++|,,)+)", re.IGNORECASE),
        rf"\g<1>{WITHHELD}",
    ),
    # In a URL the `@` and `/` of a password should be escaped, but often are not.
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
"""Words of which a text that holds one of `_SECRETS` has at least one. Most texts have none."""


def without_secrets(value: Any) -> Any:
    """The value with each secret in its texts replaced by `WITHHELD`.

    The second fence. The first are the collectors' allow-lists of columns, keys and files. Raises
    `TooLargeError`. What JSON can't say (a number that is none, infinity) becomes a text.
    """
    return searched(value)[0]


def searched(value: Any) -> tuple[Any, int]:
    """The same, and how many characters the value has (see `LARGEST`)."""
    door = _Door()
    return door.value(value, 0), LARGEST - door.left


class _Door:
    """One walk through an answer, which counts what it has seen."""

    def __init__(self) -> None:
        self.left = LARGEST

    def value(self, value: Any, depth: int) -> Any:
        """The same for a part of the answer that lies `depth` lists and objects deep."""
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
        # The data may stand before or after the type, of any object: nothing else that QEMU takes
        # has `data` with a text.
        text = _DATA_IN_JSON.sub(rf"\g<1>{WITHHELD}", text)
    return text
