"""Allow-list for command lines, word by word: QEMU's, and those of programs beside it.

`secret.py` sees only a text, in which a space or a comma may end a password or be a part of it.
Here the words are known exactly. Only values are withheld; every option stays. Each word is scanned
a fixed number of times, no matter how long it is.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

from hoodsnap.keep.secret import WITHHELD, without_secrets
from hoodsnap.printable import clean

LONGEST = 16 << 10
"""Characters kept of a word. The longest word that libvirt writes is a CPU with all its features,
some 3,000; in the recordings it is 291. The kernel allows 131,071."""

_WHOLE = re.compile(
    r"append|prom-env|[\w-]{0,64}(?:pass|secret|token|auth|api[_-]?key|credential)[\w-]{0,64}"
)
"""Options whose whole value is withheld. A kernel's `-append` may hold anything: the password of a
boot loader, a disk's passphrase, the hash of root's password for an installer."""

_VALUE = r"((?:^|,)(?:[\w.-]*[.-])?(?:{})=)(?!(?:on|off)(?:,|$))(?>(?:[^,]++|,,)+)"
"""Pattern for `key=value` in a word with commas; a comma within a value is doubled."""

_IN_JSON = r'("(?:{})"\s*+:\s*+")(?>(?:[^"\\]++|\\.)+)'

_ANYWHERE = re.compile(
    _VALUE.format(r"pass(?:w(?:or)?d|phrase)|pwd|[rt]?x?cookie|token"), re.DOTALL
)

_OF_OBJECTS = "data|iv|username|id-auth|id-block|host-data"

_OF_OPTIONS = {
    "object": (
        re.compile(_VALUE.format(_OF_OBJECTS), re.DOTALL),
        re.compile(_IN_JSON.format(_OF_OBJECTS), re.DOTALL),
    ),
    # Data that a guest reads at its first boot: systemd credentials, cloud-init.
    "fw_cfg": (re.compile(_VALUE.format("string"), re.DOTALL),),
    "semihosting-config": (re.compile(_VALUE.format("arg"), re.DOTALL),),
    "set": (re.compile(r"^([^=]*+=).++", re.DOTALL),),
}
"""Option → patterns for the withheld parts of its value: secrets, and texts for the guest."""

_FIELD = re.compile(r"(?P<start>(?:^|,)(?P<key>\w++)=)(?P<value>(?>(?:[^,]++|,,)+))", re.DOTALL)

_PLAIN_FIELD = re.compile(r"[\w .()+~/-]{0,128}")

_WAY = re.compile(r"defer|(?:tcp|unix|fd|rdma|vsock):[^ ]*+")
"""Sources of an incoming migration that are kept; programs (`exec:`) and files are not."""


def kept_words(words: Sequence[str]) -> list[str]:
    """Return the words of a command line, the program first, with possible secrets withheld."""
    found, option = [], ""
    for word in words:
        found.append(_kept_word(option, word))
        # The value of an option may begin with a dash, too.
        is_option = word.startswith("-") and not _takes_any(option)
        option = word.lstrip("-") if is_option else ""
    return found


def kept_cmdline(text: str) -> str:
    """Return the text of `/proc/PID/cmdline`, words with a NUL after each, as `kept_words` does."""
    return "\0".join(kept_words(text.split("\0")))


def kept_ps(
    text: str, words_of: Mapping[int, Sequence[str]], programs: Mapping[int, str] | None = None
) -> str:
    """Return the lines of `ps ww` (of `ps c` for `programs`) with secrets withheld.

    `words_of`: PID → the words of its command line. ps separates words by spaces, but words may
    hold spaces, too. A line stays as ps wrote it unless part of it must be withheld. `programs`:
    PID → program name; only the name is kept. For a PID in neither (the process has ended
    meanwhile), the whole command is withheld.
    """
    others = programs or {}
    lines = text.splitlines(keepends=True)
    return "".join(lines[:1] + [_kept_line(line, words_of, others) for line in lines[1:]])


_LINE = re.compile(r" *+(?P<pid>\d++) ++\S++ ++\S++ ++\S++ (?P<command>.*)", re.DOTALL)

_NO_ARGUMENTS = re.compile(r"\[[^]]{0,63}\](?: <defunct>)?")
"""Form in which ps shows a kernel thread or an ended process: its name in brackets."""


def _kept_line(line: str, words_of: Mapping[int, Sequence[str]], others: Mapping[int, str]) -> str:
    found = _LINE.match(line)
    if found is None:
        return f"{WITHHELD}\n"
    start, command, pid = line[: found.start("command")], found["command"].rstrip(), _pid(found)
    if _NO_ARGUMENTS.fullmatch(command):
        return line
    if pid in others:
        return f"{start}{_as_in_ps(others[pid])} {WITHHELD}\n"
    words = words_of.get(pid)
    if not words:
        return f"{start}{WITHHELD}\n"
    kept = kept_words(words)
    # The command line may have changed since its words were read.
    is_same = command == _as_in_ps(" ".join(words).rstrip())
    if is_same and kept == list(words):
        return line
    return f"{start}{_as_in_ps(' '.join(kept).rstrip())}\n"


def _as_in_ps(text: str) -> str:
    """Return the text as `ps` prints it: a newline in an argument would start a new row."""
    return clean(text, "?")


def _pid(found: re.Match[str]) -> int:
    return int(found["pid"]) if len(found["pid"]) < 10 else 0


def _takes_any(option: str) -> bool:
    return option in _OF_OPTIONS or option in _OF_FUNCTIONS or bool(_WHOLE.fullmatch(option))


def _kept_word(option: str, word: str) -> str:
    if word and _WHOLE.fullmatch(option):
        return WITHHELD
    for secret in (_ANYWHERE, *_OF_OPTIONS.get(option, ())):
        word = secret.sub(rf"\g<1>{WITHHELD}", word)
    if option in _OF_FUNCTIONS:
        word = _OF_FUNCTIONS[option](word)
    word = str(without_secrets(word))
    # Cut last, because the text after a secret helps to find it.
    return word if len(word) <= LONGEST else _cut(word)


def _cut(word: str) -> str:
    return f"{word[:LONGEST]}[withheld: {len(word) - LONGEST} more characters]"


def _smbios(word: str) -> str:
    """Keep the names and numbers of a machine's `-smbios`, but no other texts."""

    def field(found: re.Match[str]) -> str:
        is_text = found["key"] == "value" or not _PLAIN_FIELD.fullmatch(found["value"])
        return f"{found['start']}{WITHHELD}" if is_text else found[0]

    return _FIELD.sub(field, word)


def _incoming(word: str) -> str:
    if _WAY.fullmatch(word):
        return word
    scheme, colon, _ = word.partition(":")
    return f"{scheme}:{WITHHELD}" if colon and scheme.isalpha() else WITHHELD


_COMMAND = re.compile(r"(\bcmd:)(?>(?:[^,]++|,,)+)", re.DOTALL)
_COMMAND_IN_JSON = re.compile(r'(\bcmd:)(?>(?:[^"\\]++|\\.)+)', re.DOTALL)


def _network(word: str) -> str:
    """Withhold the program that a guest's network may start for each connection."""
    command = _COMMAND_IN_JSON if word.startswith("{") else _COMMAND
    return command.sub(rf"\g<1>{WITHHELD}", word)


_OF_FUNCTIONS: Mapping[str, Callable[[str], str]] = {
    "smbios": _smbios,
    "incoming": _incoming,
    **dict.fromkeys(("netdev", "nic", "net"), _network),
}
