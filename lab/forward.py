#!/usr/bin/python3
"""Forward ports from another network namespace to this one: forward.py NAMESPACE PORT...

It listens on 127.0.0.1:PORT in the namespace (a file such as /proc/PID/ns/net) and connects to
127.0.0.1:PORT here. A socket stays in the namespace in which it was created, so one process can
hold both ends, and no routing is needed. Run by second-host.sh.
"""

import asyncio
import ctypes
import os
import socket
import sys
from functools import partial

CLONE_NEWNET = 0x40000000


def enter(namespace: int) -> None:
    """Switch this thread to that network namespace; sockets it opens from now on belong there."""
    if ctypes.CDLL(None, use_errno=True).setns(namespace, CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "setns")


def listeners(namespace: str, ports: list[int]) -> list[socket.socket]:
    """Return one listening socket per port, in the namespace."""
    here, there = (os.open(path, os.O_RDONLY) for path in ("/proc/self/ns/net", namespace))
    enter(there)
    found = [socket.create_server(("127.0.0.1", port), backlog=128) for port in ports]
    enter(here)
    return found


async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Copy one direction until its end."""
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.write_eof()
    except OSError:  # one side is closed: close the other one
        writer.close()


async def forward(port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Forward one connection in both directions."""
    try:
        there, answer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:  # the service is down: close the connection, as it would be refused
        writer.close()
        return
    await asyncio.gather(pump(reader, answer), pump(there, writer))
    answer.close()
    writer.close()


async def main(namespace: str, ports: list[int]) -> None:
    """Serve until the process is ended."""
    for listener in listeners(namespace, ports):
        port = listener.getsockname()[1]
        await asyncio.start_server(partial(forward, port), sock=listener)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], [int(port) for port in sys.argv[2:]]))
