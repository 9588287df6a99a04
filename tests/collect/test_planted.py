"""Secrets planted in the running lab, wherever one can stand: not a byte of them is in the bundle."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from hoodsnap.bundle import dump, load
from hoodsnap.collect.recorder import WITHHELD

pytestmark = pytest.mark.lab

MARK = "Hs3cretMarkZq9"
STATE = Path(os.environ.get("LAB_STATE", "/var/lib/hoodlab"))


def sql(statement: str) -> str:
    command = ["mysql", "-N", "-B", "-e", statement]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


@contextmanager
def cell(table: str, column: str, where: str, value: str) -> Iterator[None]:
    """A cell of a database with another value for a while."""
    before = sql(f"SELECT HEX({column}) FROM {table} WHERE {where}")
    sql(f"UPDATE {table} SET {column} = '{value}' WHERE {where}")
    try:
        yield
    finally:
        old = "NULL" if before in ("", "NULL") else f"UNHEX('{before}')"
        sql(f"UPDATE {table} SET {column} = {old} WHERE {where}")


@contextmanager
def row(table: str, columns: str, values: str, where: str) -> Iterator[None]:
    """A row that is there for a while."""
    sql(f"INSERT INTO {table} ({columns}) VALUES ({values})")
    try:
        yield
    finally:
        sql(f"DELETE FROM {table} WHERE {where}")


@contextmanager
def text(path: Path, more: str) -> Iterator[None]:
    """A file with more at its end for a while."""
    before = path.read_bytes()
    path.write_bytes(before + more.encode())
    try:
        yield
    finally:
        path.write_bytes(before)


@contextmanager
def process(*arguments: str) -> Iterator[None]:
    """A QEMU that is started by hand, with these arguments, and an environment that tells."""
    command = ["/usr/bin/qemu-system-x86_64", "-machine", "none", "-nodefaults", "-display", "none"]
    running = subprocess.Popen(
        [*command, "-S", *arguments],
        env={**os.environ, "OS_PASSWORD": f"{MARK}environment"},
        stdin=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield
    finally:
        running.kill()
        running.wait()


@contextmanager
def planted() -> Iterator[None]:
    uuid = sql("SELECT uuid FROM nova.instances WHERE deleted = 0 AND display_name = 'vm-data'")
    of_it, volume = f"uuid = '{uuid}'", f"instance_uuid = '{uuid}' AND boot_index IS NULL"
    told = sql(f"SELECT connection_info FROM nova.block_device_mapping WHERE {volume}")
    info = json.loads(told)
    info["data"] |= {"auth_username": "x", "auth_password": f"{MARK}chap", "secret": f"{MARK}key"}
    connection = json.dumps(info).replace("\\", "\\\\").replace("'", "''")
    faults = f"instance_uuid = '{uuid}' AND code = 599"
    with ExitStack() as stack:
        plant = stack.enter_context
        plant(cell("nova.instances", "user_data", of_it, f"{MARK}userdata"))
        plant(cell("nova.instances", "key_data", of_it, f"ssh-rsa {MARK}keypair"))
        plant(cell("nova.block_device_mapping", "connection_info", volume, connection))
        plant(
            row(
                "nova.instance_metadata",
                "`key`, value, instance_uuid, deleted",
                f"'plan', '{MARK}metadata', '{uuid}', 0",
                f"instance_uuid = '{uuid}' AND `key` = 'plan'",
            )
        )
        plant(
            row(
                "nova.instance_system_metadata",
                "`key`, value, instance_uuid, deleted",
                f"'password_0', '{MARK}adminpass', '{uuid}', 0",
                f"instance_uuid = '{uuid}' AND `key` = 'password_0'",
            )
        )
        plant(
            row(
                "nova.instance_faults",
                "instance_uuid, code, message, details, created_at, deleted",
                f"'{uuid}', 599, 'failed', 'Traceback: {MARK}details', UTC_TIMESTAMP(), 0",
                faults,
            )
        )
        plant(
            row(
                "nova.console_auth_tokens",
                "token_hash, console_type, host, port, internal_access_path, instance_uuid,"
                " expires, access_url_base",
                f"'{MARK}token', 'novnc', '127.0.0.1', 5999, '{MARK}path', '{uuid}', 0,"
                f" 'http://u:{MARK}@h/'",
                f"token_hash = '{MARK}token'",
            )
        )
        conf = (
            f"\n[glance]\npassword = {MARK}conf\n[DEFAULT]\ntransport_url = rabbit://u:{MARK}@h/\n"
        )
        plant(text(Path("/etc/nova/nova.conf"), conf))
        lines = (
            f"2026-01-01 00:00:00.000 1 ERROR nova.compute.manager [-] [instance: {uuid}] Failed:"
            f" mysql+pymysql://nova:{MARK}url@127.0.0.1/nova password={MARK}log\n"
        )
        plant(text(Path("/var/log/nova/nova-compute.log"), lines))
        plant(process("-object", f"secret,id=sec0,data={MARK}object"))
        plant(process("-L", f"rbd:pool/x:id=admin:key={MARK}ceph:auth=x"))
        yield


def test_no_planted_secret_is_in_the_bundle(tmp_path: Path) -> None:
    if os.geteuid() != 0 or not (STATE / "clouds.yaml").exists():
        pytest.skip("this needs root and the lab (make lab)")
    path = tmp_path / "bundle.json.zst"
    with planted():
        done = subprocess.run(
            [sys.executable, "-m", "hoodsnap", "collect", "--all-hosts", "--os-cloud", "hoodlab",
             "-o", path],
            env={**os.environ, "OS_CLIENT_CONFIG_FILE": str(STATE / "clouds.yaml")},
            capture_output=True, text=True,
        )  # fmt: skip

    assert path.exists(), done.stderr
    bundle = load(path)
    telling = {answer.query for answer in bundle.answers if MARK in json.dumps(answer.as_json())}
    assert telling == set()
    assert MARK.encode() not in dump(bundle)
    # They were where the collector looks.
    assert any("599" in json.dumps(answer.value) for answer in bundle.answers)
    cmdlines = [str(answer.value) for answer in bundle.answers if "/cmdline" in answer.query]
    assert sum(WITHHELD in cmdline for cmdline in cmdlines) >= 2
