import shutil
import struct
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hoodsnap.collect.file import head
from hoodsnap.collect.image_header import HEAD_SIZE, NOT_REGULAR, Header, read_header, route

RAW = Header("raw")


def qcow2(
    backing: str | None = None, form: str | None = None, *, data_file: bool = False
) -> Header:
    return Header("qcow2", backing, form, data_file)


@pytest.fixture
def image(tmp_path: Path) -> Path:
    if shutil.which("qemu-img") is None:
        pytest.skip("qemu-img is not installed")
    return tmp_path / "disk"


def create(image: Path, *options: str) -> Header:
    command = ["qemu-img", "create", "-q", "-f", "qcow2", *options, str(image), "1M"]
    subprocess.run(command, check=True)
    return read_header(head(image, HEAD_SIZE))


@pytest.mark.parametrize("compat", ["0.10", "1.1"])
def test_the_header_of_a_real_overlay_is_read(image: Path, compat: str) -> None:
    subprocess.run(["qemu-img", "create", "-q", f"{image}.base", "1M"], check=True)

    header = create(image, "-o", f"compat={compat},backing_file={image}.base,backing_fmt=raw")

    assert header == qcow2(f"{image}.base", "raw")


def test_an_overlay_without_a_format_for_its_base_has_none(image: Path) -> None:
    create(image)
    subprocess.run(["qemu-img", "rebase", "-u", "-b", "/base", str(image)], check=False)
    # qemu-img has required the format since 6.1; older releases wrote such headers.
    start = bytearray(head(image, HEAD_SIZE))
    start[8:20] = struct.pack(">QI", 0x200, 5)
    start[0x200:0x205] = b"/base"

    assert read_header(bytes(start)) == qcow2("/base")


def test_the_data_file_of_a_real_image_is_detected(image: Path) -> None:
    assert create(image, "-o", f"data_file={image}.data").data_file


@pytest.mark.parametrize(
    ("head", "form"),
    [
        (b"", "raw"),
        (b"\xebc\x90" + b"\0" * 509, "raw"),
        (b"QFI\xfb\0\0\0\x01" + b"\0" * 100, None),
        (b"QFI\xfb\0\0\0\x03", None),
        (b"QED\0", None),
        (b"KDMV\1\0\0\0", None),
        (b"# Disk DescriptorFile\nversion=1\n", None),
        (b"\n\n# anything\nversion=1\n", None),
    ],
)
def test_only_raw_and_valid_qcow2_have_a_format(head: bytes, form: str | None) -> None:
    assert read_header(head).format == form


@given(st.binary(max_size=600), st.binary(max_size=200))
def test_any_bytes_can_be_parsed(start: bytes, rest: bytes) -> None:
    read_header(start)
    read_header(b"QFI\xfb\0\0\0\x03" + start)
    read_header(struct.pack(">4sIQI", b"QFI\xfb", 2, len(start), len(rest)) + start + rest)


def test_a_declared_chain_is_followed() -> None:
    headers = {"/i/disk": qcow2("/i/_base/a", "raw"), "/i/_base/a": RAW}

    way = route("/i/disk", "qcow2", headers.get)

    assert (way.format, way.obstacle, way.trusted) == ("qcow2", None, True)
    assert way.below == {"/i/_base/a": "raw"}


def test_a_relative_base_is_resolved_from_its_overlay() -> None:
    headers = {"/i/disk": qcow2("base", "qcow2"), "/i/base": qcow2()}

    assert route("/i/disk", "qcow2", headers.get).below == {"/i/base": "qcow2"}


def test_a_header_on_a_declared_raw_disk_is_ignored() -> None:
    headers = {"/i/disk": qcow2("/dev/watchdog", "raw"), "/dev/watchdog": NOT_REGULAR}

    way = route("/i/disk", "raw", headers.get)

    assert (way.format, way.obstacle, way.below) == ("raw", None, {})


@pytest.mark.parametrize(
    ("declared", "headers"),
    [
        (None, {"/d": qcow2("/dev/watchdog", "raw"), "/dev/watchdog": NOT_REGULAR}),
        ("qcow2", {"/d": qcow2("/dev/watchdog", "raw"), "/dev/watchdog": NOT_REGULAR}),
        (None, {"/d": qcow2("nbd://192.0.2.1/x", "raw")}),
        (None, {"/d": qcow2('json:{"driver": "nbd"}', "raw")}),
        (None, {"/d": qcow2("/b", "vmdk"), "/b": RAW}),
        (None, {"/d": qcow2("/b", "qcow2"), "/b": qcow2(data_file=True)}),
        # Old nova did not write the format of a base image, whose content the tenant chose.
        ("qcow2", {"/d": qcow2("/b"), "/b": qcow2("nbd:192.0.2.1:1")}),
        ("qcow2", {"/d": qcow2("/b"), "/b": qcow2(data_file=True)}),
        ("qcow2", {"/d": qcow2("/b"), "/b": read_header(b"# version=1")}),
        ("qcow2", {"/d": qcow2("/b", "qcow2"), "/b": read_header(b"QFI\xfb\0\0\0\x03")}),
    ],
)
def test_a_file_that_a_guest_may_have_chosen_is_not_opened(
    declared: str | None, headers: dict[str, Header]
) -> None:
    way = route("/d", declared, headers.get)

    assert way.format == "qcow2"
    assert way.obstacle is not None


@pytest.mark.parametrize("header", [qcow2(data_file=True), read_header(b"KDMV"), NOT_REGULAR])
def test_a_probed_image_that_names_other_files_is_not_opened(header: Header) -> None:
    way = route("/d", None, {"/d": header}.get)

    assert way.format is None
    assert way.obstacle is not None


def test_an_image_declared_as_vmdk_is_opened() -> None:
    way = route("/d", "vmdk", {"/d": read_header(b"KDMV")}.get)

    assert (way.format, way.obstacle) == ("vmdk", None)


def test_a_raw_base_of_undeclared_format_is_followed_but_not_trusted() -> None:
    way = route("/d", "qcow2", {"/d": qcow2("/b"), "/b": RAW}.get)

    assert (way.obstacle, way.trusted, way.below) == (None, False, {"/b": None})


def test_missing_bases_and_loops_are_left_to_qemu_img() -> None:
    gone = route("/d", "qcow2", {"/d": qcow2("/b", "raw")}.get)
    loop = route("/d", "qcow2", {"/d": qcow2("/b", "qcow2"), "/b": qcow2("/d", "qcow2")}.get)

    assert (gone.obstacle, loop.obstacle) == (None, None)
