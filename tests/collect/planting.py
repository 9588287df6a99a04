"""Plant secrets in the running lab for a while. Every change is undone afterwards."""

from __future__ import annotations

import base64
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from uuid import uuid4

MARK = "Hs3cretMarkZq9"
BASE64 = base64.b64encode(MARK[:12].encode()).decode()
PERCENT = "".join(f"%{ord(letter):02X}" for letter in MARK)
STATE = Path(os.environ.get("LAB_STATE", "/var/lib/hoodlab"))
INSTANCES = Path("/var/lib/nova/instances")


def in_base64(text: str) -> str:
    """Encode a text in base64. A text that begins with MARK then begins with BASE64."""
    return base64.b64encode(text.encode()).decode()


def sql(statement: str) -> str:
    command = ["mysql", "-N", "-B", "-e", statement]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def virsh(*words: str | Path) -> bool:
    return subprocess.run(["virsh", "-q", *words], capture_output=True).returncode == 0


def quoted(text: str) -> str:
    return text.replace("\\", "\\\\").replace("'", "''")


@contextmanager
def cell(table: str, column: str, where: str, value: str) -> Iterator[None]:
    """Give a database cell another value for a while."""
    before = sql(f"SELECT HEX({column}) FROM {table} WHERE {where}")
    sql(f"UPDATE {table} SET {column} = '{quoted(value)}' WHERE {where}")
    try:
        yield
    finally:
        old = "NULL" if before == "NULL" else f"UNHEX('{before}')"
        sql(f"UPDATE {table} SET {column} = {old} WHERE {where}")


@contextmanager
def row(table: str, **cells: str) -> Iterator[None]:
    """Insert a row for a while. The values are SQL."""
    names = [f"`{name}`" for name in cells]
    sql(f"INSERT INTO {table} ({', '.join(names)}) VALUES ({', '.join(cells.values())})")
    where = " AND ".join(
        f"{name} = {value}"
        for name, value in zip(names, cells.values(), strict=True)
        if "'" in value
    )
    try:
        yield
    finally:
        sql(f"DELETE FROM {table} WHERE {where}")


@contextmanager
def more(path: Path, text: str) -> Iterator[None]:
    """Append to a file for a while."""
    before = path.read_bytes()
    path.write_bytes(before + text.encode())
    try:
        yield
    finally:
        path.write_bytes(before)


@contextmanager
def file(path: Path, text: str, mode: int = 0o644) -> Iterator[None]:
    """Create a file, and the missing folders above it, for a while."""
    missing = [folder for folder in path.parents if not folder.exists()]
    path.parent.mkdir(parents=True, exist_ok=True)
    assert not path.exists(), f"{path} exists already"
    path.write_text(text)
    path.chmod(mode)
    try:
        yield
    finally:
        path.unlink()
        for folder in missing:
            folder.rmdir()


@contextmanager
def process(*command: str | Path) -> Iterator[None]:
    """Run a process with a secret in its environment."""
    environment = {**os.environ, "OS_PASSWORD": f"{MARK}environment"}
    running = subprocess.Popen(command, env=environment, stdin=subprocess.PIPE)
    try:
        yield
        assert running.poll() is None, f"{command} has ended"
    finally:
        running.kill()
        running.communicate()


def emulator(*arguments: str) -> ExitStack:
    """Start a QEMU by hand."""
    command = ["/usr/bin/qemu-system-x86_64", "-machine", "pc,accel=tcg", "-m", "16", "-S"]
    stack = ExitStack()
    stack.enter_context(process(*command, "-nodefaults", "-display", "none", *arguments))
    return stack


def older_emulator(folder: Path, *arguments: str) -> ExitStack:
    """Start a program named like QEMU with arguments that this host's QEMU does not know."""
    program = folder / "qemu-system-old"
    if not program.exists():
        shutil.copy("/bin/bash", program)
    stack = ExitStack()
    stack.enter_context(process(program, "-c", "read _", *arguments))
    return stack


def other_program(folder: Path, *arguments: str) -> ExitStack:
    """Start a program whose name contains that of QEMU."""
    program = folder / "backup-qemu"
    shutil.copy("/bin/bash", program)
    stack = ExitStack()
    stack.enter_context(process(program, "-c", "read _", *arguments))
    return stack


@contextmanager
def disk_on_the_web() -> Iterator[str]:
    """Serve a disk for QEMU over HTTP; yield its URL, which contains a password."""

    class Disk(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.send_response(200)
            self.send_header("Accept-Ranges", "bytes")
            self.send_header("Content-Length", "65536")
            self.end_headers()

        def do_GET(self) -> None:
            self.send_response(206)
            first, last = map(int, self.headers["Range"].removeprefix("bytes=").split("-"))
            last = min(last, 65535)
            self.send_header("Content-Length", str(last - first + 1))
            self.send_header("Content-Range", f"bytes {first}-{last}/65536")
            self.end_headers()
            self.wfile.write(bytes(last - first + 1))

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Disk) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://user:{MARK}web@127.0.0.1:{server.server_port}/disk"
        finally:
            server.shutdown()


@contextmanager
def disk(backing: str) -> Iterator[None]:
    """Make a disk in a guest's folder whose header names this backing file."""
    folder = INSTANCES / str(uuid4())
    folder.mkdir()
    try:
        create = ["qemu-img", "create", "-q", "-u", "-f", "qcow2", "-F", "raw"]
        subprocess.run([*create, "-b", backing, folder / "disk", "1M"], check=True)
        yield
    finally:
        shutil.rmtree(folder)


DOMAIN = """\
<domain type='qemu' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>
  <name>{name}</name><memory unit='MiB'>32</memory><vcpu>1</vcpu>
  <os><type arch='x86_64' machine='pc'>hvm</type>{os}</os>
  {rest}
</domain>
"""


@contextmanager
def domain(folder: Path, name: str, *way: str, os: str = "", rest: str) -> Iterator[None]:
    """Define or start a domain for a while, then remove it and its log."""
    xml = folder / f"{name}.xml"
    xml.write_text(DOMAIN.format(name=name, os=os, rest=rest))
    try:
        done = subprocess.run(["virsh", *way, xml], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        yield
    finally:
        virsh("destroy", name)
        virsh("undefine", name)
        Path(f"/var/log/libvirt/qemu/{name}.log").unlink(missing_ok=True)


@contextmanager
def libvirt_secret(folder: Path) -> Iterator[None]:
    uuid, xml = str(uuid4()), folder / "secret.xml"
    xml.write_text(
        f"<secret ephemeral='no' private='no'><uuid>{uuid}</uuid>"
        "<usage type='iscsi'><target>planted</target></usage></secret>"
    )
    assert virsh("secret-define", xml)
    try:
        assert virsh("secret-set-value", uuid, "--base64", in_base64(f"{MARK}libvirt"))
        yield
    finally:
        virsh("secret-undefine", uuid)
