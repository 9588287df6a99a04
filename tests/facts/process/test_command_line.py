from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from hoodsnap.facts.process.command_line import CommandLine, read_command_line
from hoodsnap.facts.process.drive import Node

INSTANCE = "/opt/stack/data/nova/instances/fa1ddbab-417f-4890-abc1-4cdf2bbfa787"

HAVANA = f"""
/usr/bin/qemu-system-x86_64 -S -M pc-1.0 -no-kvm -m 512 -smp 1,sockets=1,cores=1,threads=1
-name instance-00000001 -uuid fa1ddbab-417f-4890-abc1-4cdf2bbfa787 -smbios
'type=1,manufacturer=OpenStack Foundation,product=OpenStack Nova,version=2013.2.1,\
serial=ed198556-2d49-edcc-edd8-567f9a37549e,uuid=fa1ddbab-417f-4890-abc1-4cdf2bbfa787'
-nodefconfig -nodefaults
-chardev socket,id=charmonitor,path=/var/lib/libvirt/qemu/instance-00000001.monitor,server,nowait
-mon chardev=charmonitor,id=monitor,mode=control -rtc base=utc -no-shutdown
-kernel {INSTANCE}/kernel -initrd {INSTANCE}/ramdisk
-append 'root=/dev/vda console=tty0 console=ttyS0'
-drive file={INSTANCE}/disk,if=none,id=drive-virtio-disk0,format=qcow2,cache=none
-device virtio-blk-pci,bus=pci.0,addr=0x4,drive=drive-virtio-disk0,id=virtio-disk0
-netdev tap,fd=17,id=hostnet0
-device virtio-net-pci,netdev=hostnet0,id=net0,mac=fa:16:3e:23:87:cf,bus=pci.0,addr=0x3
-chardev file,id=charserial0,path={INSTANCE}/console.log
-device isa-serial,chardev=charserial0,id=serial0 -chardev pty,id=charserial1
-device isa-serial,chardev=charserial1,id=serial1 -usb -vnc 127.0.0.1:0 -k en-us -vga cirrus
-device virtio-balloon-pci,id=balloon0,bus=pci.0,addr=0x5""".replace("\\\n", "")

TODAY = """
/usr/bin/qemu-system-x86_64 -name guest=instance-0000000a,debug-threads=on -S
-object '{"qom-type":"secret","id":"masterKey0","format":"raw","file":"/var/lib/k.aes"}'
-machine pc-i440fx-7.2,usb=off,dump-guest-core=off,memory-backend=pc.ram -accel kvm
-cpu EPYC,vme=off -m size=2097152k,slots=16,maxmem=8388608k
-object '{"qom-type":"memory-backend-ram","id":"pc.ram","size":2147483648}'
-smp 2,maxcpus=4,sockets=4,dies=1,cores=1,threads=1 -uuid 6D40E248-2a96-47cc-b535-4fae46854b60
-no-user-config -nodefaults -chardev socket,id=charmonitor,fd=31,server=on,wait=off
-mon chardev=charmonitor,id=monitor,mode=control
-blockdev '{"driver":"file","filename":"/i/_base/ffbc","node-name":"libvirt-2-storage"}'
-blockdev '{"node-name":"libvirt-2-format","read-only":true,"driver":"raw",
"file":"libvirt-2-storage"}'
-blockdev '{"driver":"file","filename":"/i/6d40/disk","node-name":"libvirt-1-storage"}'
-blockdev '{"node-name":"libvirt-1-format","read-only":false,"driver":"qcow2",
"file":"libvirt-1-storage","backing":"libvirt-2-format"}'
-device '{"driver":"virtio-blk-pci","drive":"libvirt-1-format","id":"virtio-disk0","serial":"af5e"}'
-netdev '{"type":"tap","fd":"38","id":"hostnet0"}'
-device '{"driver":"virtio-net-pci","netdev":"hostnet0","id":"net0","mac":"FA:16:3E:30:2D:1F"}'
-incoming defer -vnc 127.0.0.1:2,audiodev=audio1 -msg timestamp=on"""


def argv(line: str) -> CommandLine:
    return read_command_line(shlex.split(line))


def test_the_command_line_of_2013_is_read() -> None:
    havana = argv(HAVANA)

    assert havana.binary == "/usr/bin/qemu-system-x86_64"
    assert havana.name == "instance-00000001"
    assert havana.uuid == "fa1ddbab-417f-4890-abc1-4cdf2bbfa787"
    assert havana.memory_kib == 512 * 1024
    assert (havana.vcpus, havana.max_vcpus) == (1, 1)
    assert havana.machine == "pc-1.0"
    assert havana.macs == ("fa:16:3e:23:87:cf",)
    assert havana.smbios["product"] == "OpenStack Nova"
    assert havana.smbios["version"] == "2013.2.1"
    assert havana.monitors == ("/var/lib/libvirt/qemu/instance-00000001.monitor",)
    assert havana.incoming is None
    assert not havana.is_probe
    (disk,) = havana.disks
    assert (disk.source, disk.format, disk.protocol) == (f"{INSTANCE}/disk", "qcow2", "file")
    assert (disk.name, disk.device) == ("drive-virtio-disk0", "virtio-disk0")
    assert disk.backing is None, "only the image's header names the backing file"


def test_the_command_line_of_today_is_read() -> None:
    today = argv(TODAY)

    assert today.name == "instance-0000000a"
    assert today.uuid == "6d40e248-2a96-47cc-b535-4fae46854b60"
    assert today.memory_kib == 2097152
    assert (today.vcpus, today.max_vcpus, today.topology["sockets"]) == (2, 4, 4)
    assert today.machine == "pc-i440fx-7.2"
    assert today.macs == ("fa:16:3e:30:2d:1f",)
    assert today.monitors == (), "libvirt passed a file descriptor"
    assert today.incoming == "defer"
    (disk,) = today.disks
    assert (disk.source, disk.format, disk.serial) == ("/i/6d40/disk", "qcow2", "af5e")
    assert not disk.read_only
    assert disk.backing == (Node("libvirt-2-format", "/i/_base/ffbc", "file", "raw", True),)


@pytest.mark.parametrize(
    ("option", "kib"),
    [
        ("-m 214", 214 * 1024),
        ("-m 2048M", 2048 * 1024),
        ("-m 2G", 2 << 20),
        ("-m 1.5G", 3 << 19),
        ("-m size=219136k,slots=16,maxmem=1099511627776k", 219136),
        ("-m size=1073741824b", 1 << 20),
        ("-m 128 -m 256", 256 * 1024),
        ("-m lots", None),
        ("-m " + "9" * 400, None),
        ("-m 9999999999999999E", None),
        ("-S", None),
    ],
)
def test_memory_is_in_mib_unless_it_names_a_unit(option: str, kib: int | None) -> None:
    assert argv(f"qemu {option}").memory_kib == kib


@pytest.mark.parametrize(
    ("option", "name"),
    [
        ("-name web", "web"),
        ("-name guest=web,debug-threads=on", "web"),
        ("-name web,process=qemu:web", "web"),
        ("-name guest,debug-threads=on", "guest"),
        ("-name guest=foo=1,,bar=2,debug-threads=on", "foo=1,bar=2"),
        ("-name foo=1,,bar=2", "foo=1,bar=2"),
        ("-name /usr/libexec/qemu-kvm -name guest=web", "web"),
        ("--name web", "web"),
        ("-name -uuid -uuid 1", "-uuid"),
        ("-name", None),
        ("-S", None),
    ],
)
def test_the_name_is_read_in_every_form(option: str, name: str | None) -> None:
    assert argv(f"qemu {option}").name == name


@pytest.mark.parametrize(
    ("option", "vcpus", "most"),
    [
        ("-smp 2", 2, 2),
        ("-smp 1,maxcpus=6,sockets=3,cores=2,threads=1", 1, 6),
        ("-smp cpus=2,maxcpus=4", 2, 4),
        ("-smp sockets=2,cores=2,threads=2", 8, 8),
        ("-smp many", None, None),
        ("-S", None, None),
    ],
)
def test_vcpus_at_boot_and_maximum_vcpus(option: str, vcpus: int | None, most: int | None) -> None:
    read = argv(f"qemu {option}")

    assert (read.vcpus, read.max_vcpus) == (vcpus, most)


def test_text_of_a_tenant_is_not_an_option() -> None:
    """The kernel's command line is a property of the image, which a tenant can set."""
    read = argv("qemu -append '-uuid' -uuid 1111 -append \"-uuid 2222\"")

    assert read.uuid == "1111"


def test_an_unknown_option_does_not_take_another_option_as_its_value() -> None:
    read = argv("qemu -from-the-future -uuid 1111 -also-from-there on -m 64")

    assert read.uuid == "1111"
    assert read.memory_kib == 64 * 1024


def test_network_cards_are_found_in_every_form() -> None:
    read = argv(
        "qemu -net nic,vlan=0,macaddr=00:11:22:33:44:0A -net tap,fd=3"
        " -nic user,mac=00:11:22:33:44:0b"
        " -device e1000,mac=00:11:22:33:44:0c -device vfio-pci,host=06:12.1"
    )

    assert read.macs == ("00:11:22:33:44:0c", "00:11:22:33:44:0a", "00:11:22:33:44:0b")


@pytest.mark.parametrize(
    ("option", "protocol", "source"),
    [
        ("-hda /d.img", "file", "/d.img"),
        ("/d.img", "file", "/d.img"),
        ("-drive file=/a,,b,if=virtio", "file", "/a,b"),
        ("-drive file=/dev/vg/lv,if=none", "file", "/dev/vg/lv"),
        (
            r"-drive 'file=rbd:vms/1_disk:id=nova:key=x:mon_host=a\:6789\;b\:6789,format=raw'",
            "rbd",
            "vms/1_disk",
        ),
        ("-drive file=rbd:vms/1_disk@s,file.password-secret=x,if=none", "rbd", "vms/1_disk@s"),
        ("-drive file.driver=rbd,file.pool=vms,file.image=1_disk", "rbd", "vms/1_disk"),
        ("""-drive 'file=json:{"driver":"file",,"filename":"/d.img"}'""", "file", "/d.img"),
        ("-drive 'file=json:{'", "json", "json:{"),
        ("-drive file=nbd:unix:/s:exportname=x", "nbd", "nbd:unix:/s:exportname=x"),
        ("-drive if=none,id=drive-ide0-1-0,readonly=on", "file", None),
        ("-blockdev driver=file,node-name=a,filename=/d.img", "file", "/d.img"),
        ("-blockdev driver=qcow2,node-name=a,file.driver=file,file.filename=/d", "file", "/d"),
        ("-blockdev driver=host_device,node-name=a,filename=/dev/dm-1", "host_device", "/dev/dm-1"),
        (
            """-blockdev '{"driver":"rbd","pool":"p","image":"i","snapshot":"s",
            "node-name":"a"}'""",
            "rbd",
            "p/i@s",
        ),
        (
            """-blockdev '{"driver":"nbd","server":{"type":"inet","host":"::1","port":"10"},
            "export":"x","node-name":"a"}'""",
            "nbd",
            "nbd://[::1]:10/x",
        ),
        (
            """-blockdev '{"driver":"iscsi","portal":"h:3260","target":"iqn.1:t","lun":1,
            "transport":"tcp","node-name":"a"}'""",
            "iscsi",
            "iscsi://h:3260/iqn.1:t/1",
        ),
    ],
)
def test_the_source_of_a_disk_is_read_in_every_form(
    option: str, protocol: str, source: str | None
) -> None:
    (disk,) = argv(f"qemu {option}").disks

    assert (disk.protocol, disk.source) == (protocol, source)


def test_filters_between_a_disk_and_its_image_are_skipped() -> None:
    nodes = [
        {"driver": "file", "filename": "/d", "node-name": "s"},
        {"driver": "throttle", "throttle-group": "g", "file": "s", "node-name": "t"},
        {"driver": "qcow2", "file": "t", "backing": None, "node-name": "f"},
        {"driver": "copy-on-read", "file": "f", "node-name": "c"},
    ]
    (disk,) = argv("qemu " + " ".join(f"-blockdev '{json.dumps(node)}'" for node in nodes)).disks

    assert (disk.name, disk.format, disk.source, disk.backing) == ("c", "qcow2", "/d", ())


def test_a_format_node_may_be_missing_and_an_image_unattached() -> None:
    read = argv(
        "qemu -blockdev driver=file,node-name=a,filename=/a"
        " -blockdev driver=file,node-name=b,filename=/b"
        " -device virtio-blk-pci,drive=b,id=disk1"
    )

    assert [(disk.source, disk.format, disk.device) for disk in read.disks] == [
        ("/b", "raw", "disk1"),
        ("/a", "raw", None),
    ]


def test_firmware_and_passed_through_devices_are_not_disks() -> None:
    read = argv(
        "qemu -drive file=/OVMF.fd,if=pflash,unit=0"
        " -blockdev driver=file,node-name=f,filename=/CODE.fd -machine q35,pflash0=f"
        " -drive file=/dev/sg0,if=none,id=h -device scsi-generic,drive=h,id=hostdev0"
    )

    assert read.disks == ()


def test_nodes_that_refer_to_themselves_end_the_chain() -> None:
    read = argv(
        "qemu -blockdev driver=qcow2,node-name=a,file=a"
        " -blockdev driver=qcow2,node-name=b,file=/b,backing=c"
        " -blockdev driver=qcow2,node-name=c,file=/c,backing=b -device ide-hd,drive=b,id=x"
        " -device ide-hd,drive=a,id=y"
    )

    disks = {disk.name: disk for disk in read.disks}
    assert disks["a"].source is None
    assert disks["b"].backing is None
    assert disks["b"].source == "/b"


@pytest.mark.parametrize(
    ("line", "probes"),
    [
        (
            "qemu -S -no-user-config -nodefaults -nographic -machine none,accel=kvm -qmp unix:/m",
            True,
        ),
        ("qemu -M none -S", True),
        ("qemu -M ?", True),
        ("qemu -device ? -device pci-assign,?", False),
        ("qemu -help", True),
        ("qemu -machine none -uuid 1", False),
        (HAVANA, False),
    ],
)
def test_a_process_that_only_reports_capabilities_is_a_probe(line: str, probes: bool) -> None:
    assert argv(line).is_probe is probes


def test_monitors_are_found_by_their_sockets() -> None:
    read = argv(
        "qemu -qmp unix:/a.sock,server -monitor unix:/b.sock -monitor stdio -mon chardev=none"
    )

    assert read.monitors == ("/a.sock", "/b.sock")


@pytest.mark.parametrize(
    ("line", "home"),
    [
        (HAVANA, "/var/lib/libvirt/qemu"),
        (
            "qemu -chardev socket,id=m,path=/var/lib/libvirt/qemu/domain-instance-0000002a/monitor.sock"
            " -mon chardev=m",
            "/var/lib/libvirt/qemu",
        ),
        (
            "qemu -object secret,id=masterKey0,format=raw,"
            "file=/home/u/.config/libvirt/qemu/lib/domain-3-box/master-key.aes",
            "/home/u/.config/libvirt/qemu/lib",
        ),
        ("qemu -monitor stdio -m 64", None),
    ],
)
def test_the_folder_of_the_libvirt_that_started_it_is_found(line: str, home: str | None) -> None:
    assert argv(line).home == home


FIELDS = [
    name for name in vars(CommandLine) if not name.startswith("_") and name not in ("last", "words")
]

words = st.one_of(
    st.sampled_from(shlex.split(HAVANA) + shlex.split(TODAY)),
    st.sampled_from(
        ["-name", "-uuid", "-m", "-smp", "-drive", "-device", "-blockdev", "-machine", "--"]
    ),
    st.text(max_size=20),
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=8),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(
                    ["driver", "file", "backing", "node-name", "drive", "id", "mac", "server"]
                )
                | st.text(max_size=4),
                inner,
                max_size=4,
            )
        ),
        max_leaves=8,
    ).map(json.dumps),
)


@settings(deadline=None)
@given(st.lists(words, max_size=20))
@example(["qemu", "-blockdev", "[" * 100_000])
@example(["qemu", "-blockdev", '{"a":' * 100_000])
@example(["qemu", "-smp", ",".join(f"a{number}=999999999999999999" for number in range(999))])
@example(["qemu", "-drive", ".".join("a" * 5000) + "=x"])
@example(["qemu", "-chardev", '{"id":[]}', "-mon", '{"chardev":{}}', "-machine", '{"pflash0":[]}'])
def test_any_command_line_can_be_read(line: list[str]) -> None:
    read = read_command_line(line)

    for field in FIELDS:
        getattr(read, field)


def test_the_fields_above_include_the_important_ones() -> None:
    assert {"disks", "macs", "memory_kib", "is_probe", "smbios"} <= set(FIELDS)


def test_every_command_line_of_proxmox_matches_its_configuration(corpus: Path) -> None:
    commands = sorted((corpus / "qemu-cmdline/proxmox-qemu-server").glob("*.cmd"))
    for path in commands:
        read = argv(path.read_text().replace("\\\n", ""))
        lines = path.with_suffix("").read_text().splitlines()
        configured = dict(line.split(": ", 1) for line in lines if ": " in line)
        nets = [value for key, value in configured.items() if key.startswith("net")]
        if "template" in configured:
            continue  # Proxmox starts a template with fewer devices

        assert read.name == configured.get("name", read.name), path.name
        assert read.memory_kib == int(configured.get("memory", 512)) * 1024, path.name
        cores, sockets = (int(configured.get(key, 1)) for key in ("cores", "sockets"))
        assert read.max_vcpus == cores * sockets, path.name
        assert len(read.macs) == len(nets)
        assert all(mac in net.lower() for mac, net in zip(read.macs, nets, strict=True))
        assert all(drive.device for drive in read.disks), path.name

    assert len(commands) > 20


def test_every_process_in_other_projects_listings_is_read(corpus: Path) -> None:
    files = [path for path in (corpus / "qemu-cmdline").rglob("*.txt") if path.is_file()]
    files += (corpus / "sosroots").rglob("ps_auxwww")
    names = []
    for path in files:
        text = path.read_text(errors="surrogateescape").replace("\\\n", "")
        for line in re.findall(r"(?:^|[ /])((?:qemu-system-\w+|qemu-kvm|qemu|kvm) -.+)", text):
            # ps prints a space in a value like a space between two words.
            options = [option.split(" ", 1) for option in re.split(r" (?=-)", line)]
            read = read_command_line([word for option in options for word in option])
            for field in FIELDS:
                getattr(read, field)
            names.append(read.name)

    assert {"instance-00000002", "instance-00037cd9", "xppro", "DEV", "pve100-wts1c"} <= set(names)


@pytest.mark.parametrize(
    ("option", "servers", "has_key"),
    [
        (
            r"-drive 'file=rbd:vms/1_disk:id=nova:key=x:mon_host=b\:6789\;a\:6789,format=raw'",
            ("a:6789", "b:6789"),
            True,
        ),
        ("-drive file=rbd:vms/1_disk:id=nova,format=raw", (), False),
        (
            """-blockdev '{"driver":"rbd","pool":"vms","image":"1_disk","node-name":"a",
            "server":[{"host":"h","port":"6789"}],"key-secret":"libvirt-1"}'""",
            ("h:6789",),
            True,
        ),
        ("-blockdev driver=file,node-name=a,filename=/d.img", (), False),
    ],
)
def test_the_servers_and_the_key_of_a_network_disk(
    option: str, servers: tuple[str, ...], has_key: bool
) -> None:
    (disk,) = argv(f"qemu {option}").disks

    assert (disk.servers, disk.has_key) == (servers, has_key)
