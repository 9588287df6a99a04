#!/usr/bin/python3
"""Lets a network namespace reach services of this one: forward.py NAMESPACE PORT...

Listens on 127.0.0.1:PORT in the namespace (a file such as /proc/PID/ns/net) and connects to
127.0.0.1:PORT here. A socket stays in the namespace in which it was made, so one process can hold
both ends, and nothing has to be routed. Run by second-host.sh.
"""

import asyncio
import ctypes
import os
import socket
import sys
from functools import partial

CLONE_NEWNET = 0x40000000


def enter(namespace: int) -> None:
    """Makes what this thread opens from now on belong to that network namespace."""
    if ctypes.CDLL(None, use_errno=True).setns(namespace, CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "setns")


def listeners(namespace: str, ports: list[int]) -> list[socket.socket]:
    """One listening socket for each port, in the namespace."""
    here, there = (os.open(path, os.O_RDONLY) for path in ("/proc/self/ns/net", namespace))
    enter(there)
    found = [socket.create_server(("127.0.0.1", port), backlog=128) for port in ports]
    enter(here)
    return found


async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Copies one direction until its end."""
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.write_eof()
    except OSError:  # one side has gone: the other hears it
        writer.close()


async def forward(port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """One connection, both directions."""
    try:
        there, answer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:  # the service is down: say what it would say
        writer.close()
        return
    await asyncio.gather(pump(reader, answer), pump(there, writer))
    answer.close()
    writer.close()


async def main(namespace: str, ports: list[int]) -> None:
    """Serves until it is ended."""
    for listener in listeners(namespace, ports):
        port = listener.getsockname()[1]
        await asyncio.start_server(partial(forward, port), sock=listener)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], [int(port) for port in sys.argv[2:]]))
