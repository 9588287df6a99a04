"""What may be kept of a command line, word by word: of QEMU's own, and of what runs beside it.

The door sees a text, in which a blank or a comma may be the end of a password or a part of it. Here
the words are known exactly. Kept back are values; every option stays, and so does what is equal.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from hoodsnap.collect.recorder import WITHHELD

_WHOLE = frozenset(["append", "password", "passwd", "passphrase", "token"])
"""The options whose value is withheld as it is. A kernel is told anything by its `-append`: the
password of a boot loader, a disk's passphrase, the hash that an installer gives to root."""

_VALUE = r"((?:^|,)(?:[\w.-]*[.-])?(?:{})=)(?!(?:on|off)(?:,|$))(?:[^,]|,,)+"
"""`key=value` of a word with commas; within a value a comma is doubled."""

_ANYWHERE = re.compile(_VALUE.format("pass(?:w(?:or)?d|phrase)|cookie"), re.DOTALL)

_OF_OPTIONS = {
    "object": (
        re.compile(_VALUE.format("data"), re.DOTALL),
        re.compile(r'("data"\s*:\s*")(?:[^"\\]|\\.)+', re.DOTALL),
    ),
    # What a guest reads at its first boot: credentials of systemd, a cloud-init of its own.
    "fw_cfg": (re.compile(_VALUE.format("string"), re.DOTALL),),
    "smbios": (re.compile(_VALUE.format("value"), re.DOTALL),),
}
"""Option → what of its value is withheld: secrets, and texts that are passed on to the guest."""


def kept_words(words: Sequence[str]) -> list[str]:
    """The words of a command line, the program first, without what may be a secret in them."""
    found, option = [], ""
    for word in words:
        found.append(_kept_word(option, word))
        # The value of an option may begin like another one.
        is_option = word.startswith("-") and option not in (*_WHOLE, *_OF_OPTIONS)
        option = word.lstrip("-") if is_option else ""
    return found


def kept_cmdline(text: str) -> str:
    """The same for words with a NUL after each, as they are in `/proc/PID/cmdline`."""
    return "\0".join(kept_words(text.split("\0")))


def kept_ps(text: str, words_of: Mapping[int, Sequence[str]]) -> str:
    """The lines of `ps ww`, in which blanks part the words: those of each process, by PID.

    A line stays as ps wrote it unless there is something to withhold in it.
    """
    return "".join(_kept_line(line, words_of) for line in text.splitlines(keepends=True))


def _kept_line(line: str, words_of: Mapping[int, Sequence[str]]) -> str:
    found = re.match(r" *(?P<pid>\d+) +\S+ +\S+ +\S+ ", line)
    words = words_of.get(int(found["pid"]), ()) if found else ()
    kept = kept_words(words)
    if found is None or kept == list(words):
        return line
    return f"{found[0]}{' '.join(kept).rstrip()}\n"


def _kept_word(option: str, word: str) -> str:
    if option in _WHOLE and word:
        return WITHHELD
    for secret in (_ANYWHERE, *_OF_OPTIONS.get(option, ())):
        word = secret.sub(rf"\g<1>{WITHHELD}", word)
    return word
