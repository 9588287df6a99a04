"""The header of a file with saved memory: its numbers are kept, and nothing of other files."""

from __future__ import annotations

import struct

import pytest

from hoodsnap.keep.save_header import SIZE, save_header

NUMBERS = (2, 70_928, 1, 0, 5355)


def header(magic: bytes = b"LibvirtQemudSave", order: str = "=") -> bytes:
    """Return a header as libvirt writes it: five numbers, and room for fourteen."""
    return magic + struct.pack(f"{order}19I", *NUMBERS, *[0] * 14)


FIELDS = {
    "read": SIZE,
    "version": 2,
    "data_len": 70_928,
    "was_running": 1,
    "compressed": 0,
    "cookie_offset": 5355,
}


@pytest.mark.parametrize("magic", ["LibvirtQemudSave", "LibvirtQemudPart"])
@pytest.mark.parametrize("order", ["<", ">"])
def test_the_numbers_are_read_in_either_byte_order(magic: str, order: str) -> None:
    assert save_header(header(magic.encode(), order)) == {"magic": magic, **FIELDS}


@pytest.mark.parametrize("size", [0, 1, 15])
def test_a_file_that_is_too_short_for_the_magic(size: int) -> None:
    assert save_header(header()[:size]) == {"magic": None, "read": size}


@pytest.mark.parametrize("size", [16, SIZE - 1])
def test_a_header_that_is_cut(size: int) -> None:
    assert save_header(header()[:size]) == {"magic": "LibvirtQemudSave", "read": size}


def test_nothing_is_kept_of_another_file() -> None:
    assert save_header(b"root:$6$rounds=5000$salt$hash:19000:0:99999:7:::" * 2) == {
        "magic": None,
        "read": 96,
    }
