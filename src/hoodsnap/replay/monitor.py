"""Stand-in for a QEMU monitor: QMP, through libvirt or over a socket of its own.

Each command that `collect --qmp` sent can be sent again, with the same arguments. Any other command
gets a QMP error.
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
"""Largest number of characters in a command."""


def reply(recording: Recording, uuid: str, question: str) -> str:
    """Return the monitor's reply (JSON) to one command (JSON)."""
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
    """Return the command and the arguments of a recorded query; None if it can't be parsed."""
    if answer.query.startswith(_COMMAND):
        # Not a regular expression: with two wildcards it would take quadratic time.
        question = answer.query.partition(" '")[2].removesuffix("'")
        try:
            command = json.loads(question)
        except (ValueError, RecursionError):
            return None
        if not isinstance(command, dict):
            return None
        return command.get("execute", ""), command.get("arguments", {})
    if found := _SHELL.fullmatch(answer.query):
        words = (word.partition("=") for word in found[2].split())
        try:
            return found[1], {name: json.loads(value) for name, _, value in words}
        except (ValueError, RecursionError):
            return None
    return None


def _questions(received: str) -> tuple[list[str], str]:
    """Split off the commands that are complete; return them and the rest."""
    found: list[str] = []
    while received := received.lstrip():
        try:
            _, end = json.JSONDecoder().raw_decode(received)
        except RecursionError:
            return [*found, received], ""
        except ValueError as error:
            # An error before the end of the text can't be cured by more text.
            last = len(received.rstrip()) - 1
            wrong = isinstance(error, json.JSONDecodeError) and error.pos < last
            line, ends, rest = received.partition("\n")
            if not (wrong and ends):
                return found, received
            found.append(line)
            received = rest
            continue
        found.append(received[:end])
        received = received[end:]
    return found, ""


class MonitorSocket:
    """Socket of one guest's monitor."""

    def __init__(self, recording: Recording, uuid: str) -> None:
        self._recording = recording
        self._uuid = uuid

    async def serve(self, path: str) -> asyncio.Server:
        """Listen on a UNIX socket."""
        return await asyncio.start_unix_server(self._client, path)

    async def serve_on(self, listener: socket.socket) -> asyncio.Server:
        """Answer on a socket that is already listening."""
        return await asyncio.start_unix_server(self._client, sock=listener)

    def greeting(self) -> dict[str, Any]:
        """Return QEMU's first line: its version, and no capabilities to negotiate."""
        found = _replied(self._recording, self._uuid, '{"execute": "query-version"}')
        if "return" not in found:
            raise NotRecordedError("the monitor's version was not recorded")
        return {"QMP": {"version": found["return"], "capabilities": []}}

    async def _client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        def send(line: object) -> None:
            writer.write(json.dumps(line).encode() + b"\r\n")

        try:
            send(self.greeting())
            left, letters = "", codecs.getincrementaldecoder("utf-8")("replace")
            while received := await reader.read(1 << 16):
                # A command ends where its JSON ends: not every client sends a line break.
                questions, left = _questions(left + letters.decode(received))
                for question in questions:
                    send(_replied(self._recording, self._uuid, question))
                if len(left) > LONGEST_QUESTION:
                    break
                await writer.drain()
        except (NotRecordedError, ConnectionError, *UNREADABLE):
            pass  # close the connection, as QEMU does when it ends
        finally:
            writer.close()
