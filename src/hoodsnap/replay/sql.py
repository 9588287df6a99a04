"""MySQL's SQL in SQLite's words: as much of it as questions about a recording need.

Not a parser: words are exchanged one by one. What SQLite then does not understand is an error that
says so; nothing is understood differently without being refused.
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
    |(?P<sign><=>|<>|!=|>=|<=|\|\||&&|:=|->>|->|['"`].*+|.)  # what is not closed goes on to the end
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
    """This can't be said in SQLite's words."""


class Token(NamedTuple):
    """One word of a statement."""

    kind: str
    text: str
    start: int = 0
    """Where it stands in the statement."""

    @property
    def word(self) -> str:
        """In lower case, if it is a bare word; else empty."""
        return self.text.lower() if self.kind == "word" else ""


def tokens(statement: str) -> list[Token]:
    """Every word, without blanks and comments."""
    found = (
        Token(match.lastgroup or "sign", match[0], match.start())
        for match in _TOKEN.finditer(statement)
    )
    return [token for token in found if token.kind != "space"]


def text_of(token: Token) -> str:
    """What a string literal or a name means."""
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
    """A SELECT in SQLite's words.

    `place` says for a table's bare name what to write instead, None to leave it as it is (it is
    defined by the statement itself).
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
"""Functions that are keywords of SQLite."""

_NO_MATTER = frozenset(["sql_no_cache", "sql_calc_found_rows", "sql_small_result"])


def labelled(words: list[Token], statement: str) -> list[Token]:
    """With the name that MySQL gives to each expression of the outermost SELECT: its own text."""
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
    """Whether an item of a list of columns is a column, or is given a name."""
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
    """Put a span of time behind what it is added to or taken from."""
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
    """`INTERVAL 5 MINUTE` as a call, and where the statement goes on."""
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
    """Every table with its database before it, as SQLite would look for it in all of them."""
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
