"""Lines that a program wrote for people, without words that may be secrets.

A log line can hold any data that the program had: a command with its options, a dump of a
dictionary, a header, a sentence about a password. If in doubt, the next word is withheld: only a
word is lost, not the line. Every pattern takes linear time (see `secret.py`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

from hoodsnap.keep.secret import WITHHELD

_STRONG = (
    r"(?:pass(?:w(?:or)?d|phrase|code|key)|pwd|secret|credential|user_?data|keyring"
    r"|(?:api|auth|private|access|encryption)[_-]?key|(?:auth|access|session|bearer)[_-]?token)"
)
"""Names of secrets."""

_WEAK = r"(?:pass|token|auth|key|cookie|community|hash|salt|nonce|signature)"
"""Words in names of secrets that count only if a value is assigned to the name."""

_VALUE = r"(?:[bu]?'(?>(?:[^'\\]++|\\.)*)'|[bu]?\"(?>(?:[^\"\\]++|\\.)*)\"|[^\s,;)\]]++)"

_LINK = (
    r"(?:(?:for|of)\s++\S{1,64}+\s++)?(?:(?:is|was|are|has\s++been)\s++(?:now\s++)?"
    r"(?:(?:set|changed|reset)\s++)?(?:to\b)?|to\b)"
)
"""Words of a sentence between the name of a secret and the secret."""

_FOLLOWING = (
    r"(?!(?:not|no|is|was|are|were|be|has|have|had|with|without|for|from|of|in|on|to|by|at|as|and|or"
    r"|but|if|that|this|the|an?|can|could|can't|must|may|will|does|did|wrong|invalid|incorrect"
    r"|missing|required|empty|expired|set|unset|found|failed|uuid|id|ids|file|object|type|name)\b)"
)
"""Words after the name of a secret that are not the secret."""

_IN_LINES = (
    (re.compile(r"://\S++"), f"://{WITHHELD}"),
    (
        re.compile(
            r"(\b(?:(?:proxy-)?authorization|(?:set-)?cookie)['\"]?\s*+[:=,]\s*+['\"]?)[^'\"]++",
            re.IGNORECASE,
        ),
        rf"\1{WITHHELD}",
    ),
    (re.compile(r"\b(Bearer|Basic|Digest)\s++\S++", re.IGNORECASE), rf"\1 {WITHHELD}"),
    # Options of curl, mysql and iscsiadm, and any long option; also assigned variables.
    (re.compile(r"(?<!\S)(-u|--user|--proxy-user)(?:[ =]\s*+\S++)"), rf"\1 {WITHHELD}"),
    (re.compile(r"(?<!\S)(-u)(?=[^\s:]{1,64}:)\S++"), rf"\1{WITHHELD}"),
    (re.compile(r"(?<!\S)(--value|-v)[ =]\s*+" + _VALUE), rf"\1 {WITHHELD}"),
    (re.compile(r"(?<!\S)(-p)(?=[\w!@#$%^&*]{0,64}[A-Za-z])[^\s:]++"), rf"\1{WITHHELD}"),
    (
        re.compile(
            rf"(?<!\S)(--(?=[\w-]*?{_WEAK})[\w-]++|-pass(?:in|out)?)[ =]\s*+{_VALUE}", re.IGNORECASE
        ),
        rf"\1 {WITHHELD}",
    ),
    (
        re.compile(
            rf"((?<![\w.-])(?=[\w.-]*?(?:{_WEAK}|{_STRONG}))[\w.-]++['\"]?\s*+(?:=>|>|[=:])\s*+){_VALUE}",
            re.IGNORECASE,
        ),
        rf"\1{WITHHELD}",
    ),
    # `('auth_password', 'S')`, `password is S`, `password: S`, `auth_password S`.
    (
        re.compile(
            rf"((?<![\w.-])(?=[\w.-]*?{_STRONG})[\w.-]++['\"]?\s*+(?:,|{_LINK})\s*+)"
            rf"{_FOLLOWING}{_VALUE}",
            re.IGNORECASE,
        ),
        rf"\1{WITHHELD}",
    ),
    (
        re.compile(
            rf"((?<![\w.-])(?=[\w.-]*?{_STRONG})[\w.-]++['\"]?\s++){_FOLLOWING}"
            rf"(?!{re.escape(WITHHELD)}){_VALUE}",
            re.IGNORECASE,
        ),
        rf"\1{WITHHELD}",
    ),
    (re.compile(r"\b(sshpass\s++-p)\s*+\S++"), rf"\1 {WITHHELD}"),
    (re.compile(r"\b(?:gAAAA|eyJ)[\w.-]{4,}+"), WITHHELD),
    # A word that is longer than a checksum and has no separators is a token.
    (re.compile(r"[A-Za-z0-9+=_-]{65,}+"), WITHHELD),
)


_WITHHELD_DATA = f"{{{WITHHELD}}}"

_JSON = json.JSONDecoder()


def line_without_secrets(line: str) -> str:
    """Return the line with each secret withheld."""
    line = "".join(_without_data(line))
    for secret, instead in _IN_LINES:
        line = secret.sub(instead, line)
    return line


def _without_data(text: str) -> Iterator[str]:
    """Withhold dumps of a program's data: connection_info, metadata, arguments.

    After a JSON object the line goes on: QEMU repeats the option that it complains about. Where any
    other dump ends is unknown, so the rest of its line is withheld.
    """
    at = 0
    while (start := text.find("{", at)) >= 0:
        yield text[at:start]
        yield _WITHHELD_DATA
        try:
            at = _JSON.raw_decode(text, start)[1]
        except (ValueError, RecursionError):
            end = text.find("\n", start)
            at = len(text) if end < 0 else end
    yield text[at:]


_LONGEST_LINE = 300
"""Characters kept of a log line."""


def log_line(line: str) -> str:
    """Return a log line, cut short, with possible secrets withheld."""
    line = line_without_secrets(line[: 10 * _LONGEST_LINE])  # some are megabytes long
    return line if len(line) <= _LONGEST_LINE else f"{line[:_LONGEST_LINE]}…"
