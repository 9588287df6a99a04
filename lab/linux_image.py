#!/usr/bin/python3
"""Write the initial RAM disk of the lab's one real Linux guest: linux_image.py MODULES OUT

It contains a static busybox, the few modules of the distribution's cloud kernel (under MODULES)
that a nova guest needs, and an init that gets an address by DHCP, prints it on the console,
answers pings, and powers off when the power button is pressed.
"""

import gzip
import io
import sys
from pathlib import Path

BUSYBOX = Path("/bin/busybox")
KERNEL_MODULES = (  # in order of dependency
    *("virtio_ring", "virtio", "virtio_pci_legacy_dev", "virtio_pci_modern_dev", "virtio_pci"),
    *("virtio_blk", "failover", "net_failover", "virtio_net", "evdev", "button"),
)
INIT = """#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
for module in {}; do insmod /modules/$module.ko; done
ip link set lo up
ip link set eth0 up
acpid -l /dev/null
udhcpc -q -i eth0 -s /bin/lease && echo "hoodlab linux: up, $(cat /address)"
exec sh -c 'while :; do sleep 3600; done'
""".format(" ".join(KERNEL_MODULES))
LEASE = """#!/bin/busybox sh
[ "$1" = bound ] || exit 0
ip address add $ip/$mask dev eth0
ip route add default via $router
echo $ip > /address
"""
POWER_BUTTON = """#!/bin/busybox sh
echo "hoodlab linux: the power button" > /dev/console
poweroff -f
"""


def archive(files: dict[str, bytes | None]) -> bytes:
    """Return a cpio archive ("newc") of executable files; a content of None makes a folder."""
    out = io.BytesIO()
    for number, (name, content) in enumerate([*files.items(), ("TRAILER!!!", b"")], 1):
        data = content or b""
        mode = 0o040755 if content is None else 0o100755
        fields = (number, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name) + 1, 0)
        out.write(b"070701" + b"".join(b"%08X" % field for field in fields))
        out.write(name.encode() + b"\0")
        out.write(bytes(-out.tell() % 4))
        out.write(data)
        out.write(bytes(-out.tell() % 4))
    return out.getvalue()


def main(modules: Path, out: Path) -> None:
    """Write the archive; the same input always gives the same bytes."""
    files: dict[str, bytes | None] = dict.fromkeys(
        ("bin", "dev", "proc", "sys", "etc", "modules", "etc/acpi", "etc/acpi/PWRF")
    )
    files["bin/busybox"] = BUSYBOX.read_bytes()
    files["bin/lease"] = LEASE.encode()
    files["etc/acpi/PWRF/00000080"] = POWER_BUTTON.encode()
    files["init"] = INIT.encode()
    for name in KERNEL_MODULES:
        (found,) = modules.rglob(f"{name}.ko")
        files[f"modules/{name}.ko"] = found.read_bytes()
    out.write_bytes(gzip.compress(archive(files), mtime=0))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
