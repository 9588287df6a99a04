"""A QEMU monitor that knows what was recorded: QMP, over libvirt or over a socket of its own.

Each question of `collect --qmp` can be asked again, in the same words. Whatever else, and whatever
would change something, is an error of QMP.
"""

from __future__ import annotations

import asyncio
import codecs
import json
import re
import socket
from typing import Any

from hoodsnap.bundle import Answer
from hoodsnap.replay.recording import UNREADABLE, NotRecordedError, Recording

_COMMAND = "virsh qemu-monitor-command "
_SHELL = re.compile(r"qmp-shell .*?: (\S+)(.*)", re.DOTALL)

LONGEST_QUESTION = 1 << 20
"""Characters."""


def reply(recording: Recording, uuid: str, question: str) -> str:
    """The monitor's reply (JSON) to one command (JSON)."""
    return json.dumps(_replied(recording, uuid, question), separators=(",", ":"))


def _replied(recording: Recording, uuid: str, question: str) -> dict[str, Any]:
    try:
        asked = json.loads(question)
        command = asked["execute"]
        arguments = asked.get("arguments") or {}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return _error("GenericError", "Invalid JSON syntax")
    same = {"id": asked["id"]} if "id" in asked else {}
    if command == "qmp_capabilities":
        return {"return": {}, **same}
    for answer in recording.asked("qemu", ""):
        if answer.subject == uuid and _asked(answer) == (command, arguments):
            return {"return": answer.value, **same}
    text = f"{command} was not recorded"
    recording.miss("monitor", text)
    return {**_error("CommandNotFound", f"hoodsnap: {text}"), **same}


def _error(kind: str, text: str) -> dict[str, Any]:
    return {"error": {"class": kind, "desc": text}}


def _asked(answer: Answer) -> tuple[str, dict[str, Any]] | None:
    """The command and the arguments of a recorded question."""
    if answer.query.startswith(_COMMAND):
        # Searched for once: a pattern with two gaps takes the square of the time.
        question = answer.query.partition(" '")[2].removesuffix("'")
        try:
            said = json.loads(question)
        except (ValueError, RecursionError):
            return None
        if not isinstance(said, dict):
            return None
        return said.get("execute", ""), said.get("arguments", {})
    if found := _SHELL.fullmatch(answer.query):
        words = (word.partition("=") for word in found[2].split())
        try:
            return found[1], {name: json.loads(value) for name, _, value in words}
        except (ValueError, RecursionError):
            return None
    return None


def _questions(heard: str) -> tuple[list[str], str]:
    """The questions that are whole, and the beginning of the next."""
    found: list[str] = []
    while heard := heard.lstrip():
        try:
            _, end = json.JSONDecoder().raw_decode(heard)
        except RecursionError:
            return [*found, heard], ""
        except ValueError as error:
            # Wrong before its end, it will not be right after it.
            wrong = isinstance(error, json.JSONDecodeError) and error.pos < len(heard.rstrip()) - 1
            line, ends, rest = heard.partition("\n")
            if not (wrong and ends):
                return found, heard
            found.append(line)
            heard = rest
            continue
        found.append(heard[:end])
        heard = heard[end:]
    return found, ""


class MonitorSocket:
    """One guest's monitor."""

    def __init__(self, recording: Recording, uuid: str) -> None:
        self._recording = recording
        self._uuid = uuid

    async def serve(self, path: str) -> asyncio.Server:
        """Listen on a UNIX socket."""
        return await asyncio.start_unix_server(self._client, path)

    async def serve_on(self, listener: socket.socket) -> asyncio.Server:
        """Answer on a socket that listens already."""
        return await asyncio.start_unix_server(self._client, sock=listener)

    def greeting(self) -> dict[str, Any]:
        """QEMU's first line: its version, and no capability that would have to be negotiated."""
        found = _replied(self._recording, self._uuid, '{"execute": "query-version"}')
        if "return" not in found:
            raise NotRecordedError("the monitor's version was not recorded")
        return {"QMP": {"version": found["return"], "capabilities": []}}

    async def _client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        def say(line: object) -> None:
            writer.write(json.dumps(line).encode() + b"\r\n")

        try:
            say(self.greeting())
            left, letters = "", codecs.getincrementaldecoder("utf-8")("replace")
            while heard := await reader.read(1 << 16):
                # A question ends where its JSON does: not every client ends its line.
                questions, left = _questions(left + letters.decode(heard))
                for question in questions:
                    say(_replied(self._recording, self._uuid, question))
                if len(left) > LONGEST_QUESTION:
                    break
                await writer.drain()
        except (NotRecordedError, ConnectionError, *UNREADABLE):
            pass  # it hangs up, as a QEMU that ends
        finally:
            writer.close()
