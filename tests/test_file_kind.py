"""Files that people hand in instead of a bundle, made by the tools that really make them."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import sqlite3
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.command import hoodsnap

from hoodsnap.bundle import UnreadableBundleError, parse
from hoodsnap.file_kind import kind_of


def _tar() -> bytes:
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as archive:
        content = b"Linux vm 6.1.0\n"
        entry = tarfile.TarInfo("sosreport-vm/sos_commands/kernel/uname_-a")
        entry.size = len(content)
        archive.addfile(entry, io.BytesIO(content))
    return raw.getvalue()


def _zip() -> bytes:
    raw = io.BytesIO()
    with zipfile.ZipFile(raw, "w") as archive:
        archive.writestr("bundle.json", "{}")
    return raw.getvalue()


def _sqlite(folder: Path) -> bytes:
    with sqlite3.connect(folder / "nova.sqlite") as database:
        database.execute("CREATE TABLE instances (uuid TEXT)")
    database.close()
    return (folder / "nova.sqlite").read_bytes()


TEXTS = {
    "a YAML document": b"---\nserver: vm-plain\nprocess:\n  pid: 12\n",
    "an XML document": b"\xef\xbb\xbf<?xml version='1.0'?>\n<network/>\n",
    "libvirt's XML of a domain": b"<domain type='kvm' id='3'>\n  <name>instance-00000001</name>\n",
    "an HTML page (perhaps a login page instead of the attachment)": b"\n<!DOCTYPE html>\n<html>",
    "a dump of a MySQL database": b"-- MariaDB dump 10.19  Distrib 10.11.6-MariaDB\n--\n",
    "a configuration file": b"# nova.conf\n\n[DEFAULT]\ndebug = true\n",
    "a key, certificate or signature in PEM format": b"-----BEGIN SSH SIGNATURE-----\nU1NI\n",
    "a script": b"#!/bin/sh\nvirsh list\n",
    "a text file": b"2026-11-30 09:14:02.123 4711 INFO nova.compute.manager\n",
    "UTF-16 text (as Windows PowerShell writes it)": '{"format": 1}'.encode("utf-16"),
    "a PDF document": b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n",
    "a qcow2 disk image": b"QFI\xfb\x00\x00\x00\x03" + bytes(504),
}


@pytest.mark.parametrize("kind", TEXTS)
def test_a_file_is_named_by_its_beginning(kind: str) -> None:
    assert kind_of(TEXTS[kind]) == kind
    with pytest.raises(UnreadableBundleError, match=r"^it is .*, not a hoodsnap bundle$"):
        parse(TEXTS[kind])


def test_archives_are_named_compressed_or_not(tmp_path: Path) -> None:
    sosreport = "it is a tar archive (perhaps a sosreport), not a hoodsnap bundle"
    data = {
        "sos.tar": (_tar(), sosreport),
        "sos.tar.gz": (gzip.compress(_tar()), sosreport),
        "sos.tar.xz": (lzma.compress(_tar()), "it is compressed by xz, not a hoodsnap bundle"),
        "sos.tar.bz2": (bz2.compress(_tar()), "it is compressed by bzip2, not a hoodsnap bundle"),
        "bundle.zip": (_zip(), "it is a zip archive, not a hoodsnap bundle"),
        "nova.db": (_sqlite(tmp_path), "it is an SQLite database, not a hoodsnap bundle"),
        "python": (
            Path(sys.executable).read_bytes(),
            "it is an ELF program or library, not a hoodsnap bundle",
        ),
        "empty.json": (b"", "it is empty"),
    }
    for name, (content, reason) in data.items():
        (tmp_path / name).write_bytes(content)

        done = hoodsnap("explain", tmp_path / name)

        assert done.returncode == 3
        assert done.stderr == f"hoodsnap: {tmp_path / name} can't be read: {reason}\n".encode()


@given(st.binary() | st.text().map(str.encode))
def test_any_bytes_are_named_or_not(data: bytes) -> None:
    kind = kind_of(data)

    assert kind is None or kind[:2] in ("a ", "an", "li", "co", "UT")


def test_a_long_line_takes_no_time() -> None:
    assert kind_of(b"#" * (64 << 20)) == "a text file"
