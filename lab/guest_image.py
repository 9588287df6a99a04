#!/usr/bin/python3
"""Write the lab's guest: a tiny raw disk that really boots.

The boot sector counts its boots in sector 2 of the disk (so that every instance's overlay gets its
own write), prints the count on the serial port and halts, which uses nearly no CPU even with
software emulation.

    guest_image.py PATH
"""

import hashlib
import struct
import sys
from pathlib import Path

MESSAGE = b"hoodlab guest: booted, counter 0x"
MIB = 1 << 20
SIZE = 64 * MIB

START = bytes.fromhex(
    "fa"  # cli
    "31c0"  # xor ax, ax
    "8ed8 8ec0 8ed0"  # mov ds, ax; mov es, ax; mov ss, ax
    "bc007c"  # mov sp, 0x7c00
    "fb"  # sti
    "31d2"  # xor dx, dx            (COM1)
    "b8e300 cd14"  # mov ax, 0x00e3; int 0x14   (9600 8N1)
    "b80102 b90200 ba8000 bb0080 cd13"  # read sector 2 to 0x8000
    "ff060080"  # inc word [0x8000]
    "b80103 b90200 ba8000 bb0080 cd13"  # write it back
)
PRINT = bytes.fromhex(
    "ac"  # next: lodsb
    "84c0"  # test al, al
    "7408"  # jz number
    "b401 31d2 cd14"  # mov ah, 1; xor dx, dx; int 0x14
    "ebf3"  # jmp next
    "8b1e0080"  # number: mov bx, [0x8000]
    "b90400"  # mov cx, 4
    "c1c304"  # digit: rol bx, 4
    "88d8 240f 0430"  # mov al, bl; and al, 15; add al, '0'
    "3c3a 7202 0407"  # cmp al, ':'; jb +2; add al, 7
    "b401 31d2 cd14"  # mov ah, 1; xor dx, dx; int 0x14
    "e2e9"  # loop digit
    "b80d01 31d2 cd14"  # carriage return
    "b80a01 31d2 cd14"  # line feed
    "f4 ebfd"  # halt: hlt; jmp halt
)


def boot_sector() -> bytes:
    """Return 512 bytes: the code, its message, and a table with one partition."""
    message_at = 0x7C00 + len(START) + 3 + len(PRINT)
    load = b"\xbe" + struct.pack("<H", message_at)  # mov si, message
    code = START + load + PRINT + MESSAGE + b"\0"
    assert len(code) <= 446, "the code would run into the partition table"  # noqa: S101  # at build time
    sectors = SIZE // 512
    partition = struct.pack(
        "<B3sB3sII", 0x80, b"\0\1\1", 0x83, b"\xff\xff\xff", 2048, sectors - 2048
    )
    return code.ljust(446, b"\0") + partition + bytes(48) + b"\x55\xaa"


def main(path: Path) -> None:
    """Write the disk; its partition holds 6 MiB of fixed, incompressible data in two pieces."""
    noise = hashlib.shake_128(b"hoodlab").digest(6 * MIB)
    with path.open("wb") as disk:
        disk.truncate(SIZE)
        disk.write(boot_sector())
        disk.seek(1 * MIB)
        disk.write(noise[: 4 * MIB])
        disk.seek(40 * MIB)
        disk.write(noise[4 * MIB :])


if __name__ == "__main__":
    main(Path(sys.argv[1]))
