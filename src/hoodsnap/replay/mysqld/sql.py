"""Translation from MySQL's SQL to SQLite's, as far as queries about a recording need it.

This is not a parser: it replaces single tokens. SQLite rejects what it does not understand then,
and a construct that it would interpret differently is refused.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

_TOKEN = re.compile(
    r"""
    (?P<space>\s+|/\*.*?(?:\*/|\Z)|(?:--(?=\s|$)|\#)[^\n]*)
    |(?P<string>'(?>(?:[^'\\]++|''|\\.)*)'|"(?>(?:[^"\\]++|""|\\.)*)")
    |(?P<name>`(?>(?:[^`]++|``)*)`)
    |(?P<variable>@@?[\w.]+)
    |(?P<number>\d+(?:\.\d*)?(?:[eE][-+]?\d+)?|\.\d+)
    |(?P<word>[^\W\d]\w*)
    |(?P<sign><=>|<>|!=|>=|<=|\|\||&&|:=|->>|->|['"`].*+|.)  # an unclosed quote takes all the rest
    """,
    re.VERBOSE | re.DOTALL,
)

_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "0": "\0", "b": "\b", "Z": "\x1a"}

_BEFORE_TABLE = frozenset(["from", "join", "straight_join"])
_END_OF_TABLES = frozenset(
    ["where", "group", "order", "having", "limit", "union", "on", "using", "for", "procedure"]
)
_UNITS = ("microsecond", "second", "minute", "hour", "day", "week", "month", "quarter", "year")


class UnsupportedSqlError(ValueError):
    """A construct can't be translated to SQLite's SQL. The text names it."""


class Token(NamedTuple):
    """One token of a statement."""

    kind: str
    text: str
    start: int = 0
    """Position in the statement."""

    @property
    def word(self) -> str:
        """The text in lower case if it is a bare word; else empty."""
        return self.text.lower() if self.kind == "word" else ""


def tokens(statement: str) -> list[Token]:
    """Split a statement into tokens, without blanks and comments."""
    found = (
        Token(match.lastgroup or "sign", match[0], match.start())
        for match in _TOKEN.finditer(statement)
    )
    return [token for token in found if token.kind != "space"]


def text_of(token: Token) -> str:
    """Return the text that a string literal or a name stands for."""
    body = token.text
    if token.kind == "string":
        quote = body[0]
        body = body[1:-1].replace(quote * 2, quote)
        return re.sub(
            r"\\(.)",
            lambda found: _ESCAPES.get(found[1], found[0] if found[1] in "%_" else found[1]),
            body,
            flags=re.DOTALL,
        )
    if token.kind == "name":
        return body[1:-1].replace("``", "`")
    return body


def translated(statement: list[Token], place: Callable[[str], str | None]) -> str:
    """Translate a SELECT to SQLite's SQL.

    `place` returns the database for a table's bare name, or None if the statement itself defines
    the table.
    """
    return " ".join(_written(_qualified(_rewritten(statement), place)))


_OTHERWISE = {
    "<=>": Token("word", "IS"),
    "&&": Token("word", "AND"),
    "||": Token("word", "OR"),
    "rlike": Token("word", "REGEXP"),
    "div": Token("sign", "/"),
    "straight_join": Token("word", "JOIN"),
    "separator": Token("sign", ","),
}
_CALLED = frozenset(["if", "left", "right", "mod"])
"""Functions whose names are keywords in SQLite."""

_NO_MATTER = frozenset(["sql_no_cache", "sql_calc_found_rows", "sql_small_result"])


def labeled(words: list[Token], statement: str) -> list[Token]:
    """Name each expression of the outermost SELECT as MySQL does: by its own text."""
    start = next((at for at, word in enumerate(words) if word.word == "select"), None)
    if start is None or words[0].word != "select":
        return words
    done = words[: start + 1]
    item: list[Token] = []
    depth = 0
    for at in range(start + 1, len(words) + 1):
        word = words[at] if at < len(words) else Token("sign", "", len(statement))
        depth += {"(": 1, ")": -1}.get(word.text, 0)
        ends = at == len(words) or (depth == 0 and word.word in _AFTER_LIST)
        if ends or (depth == 0 and word.text == ","):
            done += item
            if item and not _has_name(item):
                last = item[-1]
                text = statement[item[0].start : last.start + len(last.text)]
                done += [Token("word", "AS"), Token("name", "`" + text.replace("`", "``") + "`")]
            item = []
            if ends:
                return done + words[at:]
            done.append(word)
        elif word.word in ("distinct", "all") and not item:
            done.append(word)
        else:
            item.append(word)
    return done


_AFTER_LIST = frozenset(["from", "where", "limit", "order", "union", "group", "having", "into"])


def _has_name(item: list[Token]) -> bool:
    """True if an item of the column list is a column, or has an alias."""
    if all(token.kind in ("word", "name") or token.text in (".", "*") for token in item):
        return len(item) > 1 or item[0].word not in ("null", "true", "false")
    return len(item) > 1 and (
        item[-2].word == "as"
        or (item[-1].kind in ("word", "name") and item[-2].text == ")" and item[-1].word != "end")
    )


def _rewritten(statement: list[Token]) -> list[Token]:
    done: list[Token] = []
    index = 0
    while index < len(statement):
        token = statement[index]
        after = statement[index + 1] if index + 1 < len(statement) else Token("sign", "")
        if token.word == "interval" and after.text not in (",", ")", "=", "."):
            index, span = _interval(statement, index)
            _add(done, span)
            continue
        if token.word == "timestampdiff" and after.text == "(" and index + 2 < len(statement):
            # Its first argument is a bare word.
            done += [token, after, Token("string", f"'{statement[index + 2].text.lower()}'")]
            index += 3
            continue
        if token.kind in ("word", "sign") and token.text.lower() in _OTHERWISE:
            done.append(_OTHERWISE[token.text.lower()])
        elif token.word in _CALLED and after.text == "(":
            done.append(Token("name", f"`{token.word}`"))
        elif token.word not in _NO_MATTER:
            done.append(token)
        index += 1
    return done


def _add(done: list[Token], span: list[Token]) -> None:
    """Turn `operand + interval` (or `-`) into a call of date_add (or date_sub)."""
    if not done or done[-1].text not in ("+", "-"):
        done += span
        return
    call = "date_add" if done.pop().text == "+" else "date_sub"
    start = len(done) - 1
    if done and done[-1].text == ")":
        depth = 0
        while start >= 0:
            depth += {")": 1, "(": -1}.get(done[start].text, 0)
            if depth == 0:
                break
            start -= 1
        start -= start > 0 and done[start - 1].kind in ("word", "name")
    while start > 1 and done[start - 1].text == ".":
        start -= 2
    if start < 0:
        raise UnsupportedSqlError("this INTERVAL")
    operand = done[start:]
    del done[start:]
    done += [Token("word", call), Token("sign", "("), *operand, Token("sign", ","), *span]
    done.append(Token("sign", ")"))


def _interval(statement: list[Token], index: int) -> tuple[int, list[Token]]:
    """Translate `INTERVAL 5 MINUTE` to a call; return the index of the next token, and the call."""
    depth, end = 0, index + 1
    while end < len(statement):
        token = statement[end]
        depth += {"(": 1, ")": -1}.get(token.text, 0)
        if depth == 0 and token.word in _UNITS:
            amount = statement[index + 1 : end]
            call = [Token("word", "interval_of"), Token("sign", "(")]
            call += [*amount, Token("sign", ","), Token("string", f"'{token.word}'")]
            return end + 1, [*call, Token("sign", ")")]
        end += 1
    raise UnsupportedSqlError("this INTERVAL")


def _qualified(statement: Iterable[Token], place: Callable[[str], str | None]) -> Iterator[Token]:
    """Put the database before every table name, because SQLite would search all databases."""
    words = list(statement)
    depths: list[bool] = [False]
    expects = False
    for index, token in enumerate(words):
        before = words[index - 1] if index else Token("sign", "")
        after = words[index + 1] if index + 1 < len(words) else Token("sign", "")
        if token.text == "(":
            depths.append(False)
            expects = False
        elif token.text == ")":
            if len(depths) > 1:
                depths.pop()
        elif token.word in _BEFORE_TABLE and before.word != "distinct":
            expects = True
            depths[-1] = True
        elif token.word in _END_OF_TABLES:
            depths[-1] = expects = False
        elif token.text == "," and depths[-1]:
            expects = True
        elif expects and (token.kind == "name" or token.kind == "word"):
            expects = False
            if after.text != "." and token.word not in ("lateral", "dual", "select"):
                instead = place(text_of(token))
                if instead is not None:
                    yield Token("name", f"`{instead}`")
                    yield Token("sign", ".")
        yield token


def _written(statement: Iterable[Token]) -> Iterator[str]:
    for token in statement:
        if token.kind == "string":
            yield "'" + text_of(token).replace("'", "''") + "'"
        elif token.kind == "name":
            yield '"' + text_of(token).replace('"', '""') + '"'
        else:
            yield token.text
