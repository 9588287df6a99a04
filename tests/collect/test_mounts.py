from hoodsnap.collect.mounts import Mounts
from hoodsnap.collect.recorder import Recorder

TABLE = r"""
23 1 8:1 / / rw,relatime - ext4 /dev/sda1 rw
40 23 0:35 / /var/lib/nova/mnt/5c0ffee rw - nfs4 10.0.0.1:/volumes rw
41 23 0:36 / /mnt/with\040space rw - tmpfs tmpfs rw
""".strip()


def test_a_path_belongs_to_the_deepest_mount_above_it() -> None:
    mounts = Mounts.parse(TABLE)

    assert mounts.of("/var/lib/nova/mnt/5c0ffee/volume-1") == "/var/lib/nova/mnt/5c0ffee"
    assert mounts.of("/var/lib/nova/mnt/5c0ffee") == "/var/lib/nova/mnt/5c0ffee"
    assert mounts.of("/var/lib/nova/mnt/5c0ffee0/x") == "/"
    assert mounts.of("/mnt/with space/disk") == "/mnt/with space"
    assert mounts.of("/var/lib/nova/mnt/5c0ffee/../x") == "/"
    assert mounts.of("relative") == "/"


def test_our_own_mounts_are_read() -> None:
    assert "/proc" in Mounts.read(Recorder("here")).points
