"""Every kind of identifier is planted in every spelling: none remains, and relations stay."""

from __future__ import annotations

import base64
import binascii
import contextlib
import ipaddress
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import pytest
from tests.command import hoodsnap
from tests.conftest import HEALTHY, ROOT, RecordedHost, healthy

from hoodsnap.bundle import Answer, Bundle, Failure, dump
from hoodsnap.facts.host.device import Devices
from hoodsnap.redaction.pseudonyms import Pseudonyms
from hoodsnap.redaction.redactor import Redactor

PSEUDONYMS = Pseudonyms(b"k" * 32)

VOLUME = "0ab94923-722d-4c2b-912f-aaaaaaaaaaab"
MAPPED = f"cinder--volumes-volume--{VOLUME.replace('-', '--')}"
MAC = "fa:16:3e:5a:7c:9d"
FOUR = "10.20.7.133"
NAME = "acme-payroll-db"


def plain(text: str) -> str:
    """Return a text with escapes undone: those of URLs, systemd, JSON, and the device mapper."""
    text = unquote(text)
    text = re.sub(r"\\+(?:x|u00)([0-7][0-9a-f])", lambda found: chr(int(found[1], 16)), text)
    text = re.sub(r"\\+([01][0-7]{2})", lambda found: chr(int(found[1], 8)), text)
    return text.replace("--", "-")


def decoded(text: str) -> Iterator[str]:
    """Yield the texts that the words of a text may encode."""
    yield text
    for word in re.findall(r"[A-Za-z0-9+/_-]{6,}={0,2}", text):
        bare = word.rstrip("=").replace("-", "+").replace("_", "/")
        with contextlib.suppress(binascii.Error, ValueError):
            yield base64.b64decode(bare + "=" * (-len(bare) % 4)).decode()
        with contextlib.suppress(ValueError):
            yield bytes.fromhex(word.removeprefix("0x")).decode()


def trace(bundle: Bundle, *secrets: str) -> list[str]:
    """Return the secrets that remain in a bundle, in any spelling that can be undone."""
    written = plain(dump(bundle).decode())
    return [
        secret for secret in secrets for text in decoded(written) if secret.lower() in text.lower()
    ]


def asked(host: RecordedHost, layer: str, query: str, value: Any) -> Answer:
    example = host.bundle.answers[0]
    return Answer(
        layer=layer, host="vm", query=query, at=example.at, took=0.1, value=value, subject=None
    )


@pytest.fixture
def host() -> RecordedHost:
    """A small part of the healthy recording, to plant texts in quickly."""
    kept = RecordedHost(healthy())
    kept.drop(
        lambda answer: (
            len(str(answer.value)) < 9000
            and answer.layer in ("libvirt", "nova-db", "host", "block", "nova")
        )
    )
    return kept


def planted(host: RecordedHost, *texts: str) -> None:
    """Insert texts in all places that hold texts: lines, command lines, keys, JSON in JSON, errors,
    queries, subjects."""
    base = asked(host, "kernel", "/proc/cmdline", "\n".join(texts))
    host.add(base)
    host.add(asked(host, "logs", "tail -c 9 /var/log/x", [{"line": text} for text in texts]))
    host.add(asked(host, "host", "env", {text: {"it": json.dumps({"of": text})} for text in texts}))
    for text in texts:
        failed = Failure(kind="failed", message=f"no '{text}' here")
        raw = base.model_dump(exclude={"value", "error", "query", "subject"})
        host.add(Answer(**raw, query=f"cat {text}", subject=text, error=failed))


def redacted(host: RecordedHost) -> tuple[Redactor, Bundle]:
    redactor = Redactor(PSEUDONYMS, [host.bundle])
    return redactor, redactor.bundle(host.bundle)


def test_a_logical_volume_keeps_its_name_in_every_spelling(host: RecordedHost) -> None:
    lv = {
        "lv_name": f"volume-{VOLUME}",
        "vg_name": "cinder-volumes",
        "lv_size": "1073741824B",
        "lv_path": f"/dev/cinder-volumes/volume-{VOLUME}",
        "lv_dm_path": f"/dev/mapper/{MAPPED}",
    }
    other = lv | {"lv_name": "acmeroot", "vg_name": "acmevg", "lv_path": "/dev/acmevg/acmeroot"}
    disk = {"name": MAPPED, "kname": "dm-4", "maj:min": "254:4", "type": "lvm", "size": 1 << 30}
    root = disk | {"name": "acmevg-acmeroot", "kname": "dm-5"}
    answers = [
        asked(host, "block", "lsblk --json --bytes --output-all", {"blockdevices": [disk, root]}),
        asked(host, "block", "lvs --reportformat json", {"report": [{"lv": [lv, other]}]}),
        asked(host, "block", "dmsetup info", f"{MAPPED}|LVM-x|254|4|1|1|L--w\n"),
        asked(host, "block", "ls -l /dev/disk/by-id", {f"dm-name-{MAPPED}": "../../dm-4"}),
    ]
    bundle = host.bundle.with_answers(answers)

    made = Redactor(PSEUDONYMS, [bundle]).bundle(bundle)

    assert trace(made, VOLUME, VOLUME.replace("-", "--"), "acmevg", "acmeroot") == []
    devices = Devices(made.answers, None)
    found = [devices.find(volume.path or "") for volume in devices.logical_volumes]
    assert [device.kname if device else None for device in found] == ["dm-4", "dm-5"]
    assert PSEUDONYMS.uuid(VOLUME).replace("-", "--") in dump(made).decode()


UUIDS = {
    "device mapper": VOLUME.replace("-", "--"),
    "systemd": VOLUME.replace("-", r"\x2d"),
    "url": VOLUME.replace("-", "%2D"),
    "bare": VOLUME.replace("-", ""),
    "upper": VOLUME.upper(),
    "upper bare": VOLUME.replace("-", "").upper(),
    "underscores": VOLUME.replace("-", "_"),
    "dots": VOLUME.replace("-", "."),
    "braces": f"{{{VOLUME}}}",
    "in a word": f"volume_{VOLUME}_old",
    "next to letters": f"volume{VOLUME}x",
    "base64": base64.b64encode(VOLUME.encode()).decode(),
    "hexadecimal": VOLUME.encode().hex(),
    "beginning": VOLUME[:8],
    "longer beginning": VOLUME[:13],
    "blanks": VOLUME.replace("-", " "),
}
MACS = {
    "colons": MAC,
    "upper": MAC.upper(),
    "hyphens": MAC.replace(":", "-"),
    "upper hyphens": MAC.replace(":", "-").upper(),
    "cisco": "fa16.3e5a.7c9d",
    "three words": "fa16:3e5a:7c9d",
    "underscores": MAC.replace(":", "_"),
    "bare": MAC.replace(":", ""),
    "upper bare": MAC.replace(":", "").upper(),
    "flow": "0x" + MAC.replace(":", ""),
    "eui-64": "f8:16:3e:ff:fe:5a:7c:9d",
    "eui-64 bare": "f8163efffe5a7c9d",
    "link-local": "fe80::f816:3eff:fe5a:7c9d",
    "interface": "f816:3eff:fe5a:7c9d",
}
_number = int(ipaddress.IPv4Address(FOUR))
FOURS = {
    "plain": FOUR,
    "network": f"{FOUR}/24",
    "three digits each": "010.020.007.133",
    "flow": f"0x{_number:08x}",
    "short flow": f"0x{_number:x}",
    "proc": f"{int.from_bytes(_number.to_bytes(4, 'big'), 'little'):08X}:1F90",
    "mapped": f"::ffff:{FOUR}",
    "mapped in hexadecimal": f"::ffff:{_number >> 16:x}:{_number & 0xFFFF:x}",
    "reversed": ".".join(FOUR.split(".")[::-1]) + ".in-addr.arpa",
    "decimal": str(_number),
    "name": f"host-{FOUR.replace('.', '-')}.openstacklocal",
    "other name": f"ip-{FOUR.replace('.', '-')}",
    "underscores": f"x_{FOUR.replace('.', '_')}",
    "base64": base64.b64encode(f"ip={FOUR}".encode()).decode(),
}
NAMES = {
    "plain": NAME,
    "file": f"backup_{NAME}.qcow2",
    "next to letters": f"my{NAME}copy",
    "upper": NAME.upper(),
    "capital": NAME.capitalize(),
    "mixed": "Acme-Payroll-DB",
    "systemd": r"machine-qemu\x2d1\x2dacme\x2dpayroll\x2ddb.scope",
    "mountinfo": NAME.replace("-", r"\055"),
    "device mapper": f"acmevg-{NAME.replace('-', '--')}",
    "url": quote(NAME).replace("-", "%2D"),
    "base64": base64.b64encode(NAME.encode()).decode(),
    "base64 without padding": base64.b64encode(f"{NAME}!".encode()).decode().rstrip("="),
    "base64 of more": base64.b64encode(f"hostname: {NAME}\n".encode()).decode(),
    "base64 for urls": base64.urlsafe_b64encode(f"{NAME}?>".encode()).decode(),
    "hexadecimal": NAME.encode().hex(),
    "in json": json.dumps(json.dumps({"name": NAME})),
}


@pytest.mark.parametrize("spelling", UUIDS.values(), ids=UUIDS)
def test_a_uuid_is_found_in_every_spelling(host: RecordedHost, spelling: str) -> None:
    planted(host, VOLUME, spelling)

    redactor, made = redacted(host)

    digits = VOLUME.replace("-", "")
    assert (
        trace(made, VOLUME, digits, VOLUME.replace("-", "_"), VOLUME.replace("-", "."), VOLUME[:8])
        == []
    )
    new, written = PSEUDONYMS.uuid(VOLUME), redactor.text(spelling)
    if spelling in (UUIDS["base64"], UUIDS["hexadecimal"]):
        assert new in [*decoded(written)]
    else:
        bare = re.sub("[^0-9a-f]", "", plain(written).lower())
        assert new.replace("-", "")[:8] in bare


@pytest.mark.parametrize("spelling", MACS.values(), ids=MACS)
def test_a_mac_is_found_in_every_spelling(host: RecordedHost, spelling: str) -> None:
    planted(host, MAC, spelling)

    redactor, made = redacted(host)

    rest = MAC.replace(":", "")[6:]
    left = re.sub(r"[:._-]", "", dump(made).decode().lower())
    assert rest not in left.replace("fffe", "")
    new = PSEUDONYMS.mac(MAC).replace(":", "")[6:]
    assert re.sub("[^0-9a-f]", "", redactor.text(spelling).lower()).endswith(new)


@pytest.mark.parametrize("spelling", FOURS.values(), ids=FOURS)
def test_an_address_is_found_in_every_spelling(host: RecordedHost, spelling: str) -> None:
    planted(host, FOUR, spelling)
    host.add(asked(host, "host", "number", {"ip": _number}))

    redactor, made = redacted(host)

    swapped = int.from_bytes(_number.to_bytes(4, "big"), "little")
    forms = [
        FOUR,
        f"{_number:08x}",
        f"{swapped:08x}",
        str(_number),
        ".".join(FOUR.split(".")[::-1]),
    ]
    forms += [
        FOUR.replace(".", "-"),
        FOUR.replace(".", "_"),
        f"{_number >> 16:x}:{_number & 0xFFFF:x}",
    ]
    assert trace(made, *forms) == []
    new = PSEUDONYMS.address(FOUR)
    value = int(ipaddress.IPv4Address(new))
    assert made.answers[-1].value == {"ip": value}
    turned = int.from_bytes(value.to_bytes(4, "big"), "little")
    ways = {
        "plain": new,
        "network": f"{new}/24",
        "flow": f"0x{value:08x}",
        "proc": f"{turned:08X}:1F90",
        "mapped": f"::ffff:{new}",
        "mapped in hexadecimal": f"::ffff:{value >> 16:x}:{value & 0xFFFF:x}",
        "reversed": ".".join(new.split(".")[::-1]) + ".in-addr.arpa",
        "decimal": str(value),
        "other name": f"ip-{new.replace('.', '-')}",
        "underscores": f"x_{new.replace('.', '_')}",
    }
    for way, wanted in ways.items():
        if spelling == FOURS[way]:
            assert redactor.text(spelling) == wanted


@pytest.mark.parametrize("spelling", NAMES.values(), ids=NAMES)
def test_a_name_is_found_in_every_spelling(host: RecordedHost, spelling: str) -> None:
    host.row("instances", host.uuid("vm-plain"), display_name=NAME)
    planted(host, NAME, spelling)

    redactor, made = redacted(host)

    assert trace(made, NAME) == []
    new = PSEUDONYMS.name(NAME)
    assert any(new in text.lower() for text in decoded(plain(redactor.text(spelling))))


KINDS = {
    "account of a file": ("alice7", "images", "find / -ls", [{"path": "/x", "user": "alice7"}]),
    "group of a file": ("payrollgrp", "images", "find / -ls", [{"path": "/x", "group": "payrollgrp"}]),
    "id": ("alice7", "host", "id", "uid=1000(alice7) gid=1000(alice7) groups=1000(alice7)"),
    "home": ("alice7", "kernel", "/proc/1/cmdline", "python /home/alice7/run.py"),
    "mount option": ("alice7", "kernel", "/proc/self/mountinfo", "1 2 0:3 / /x rw - cifs //nas7/pay rw,username=alice7"),
    "ps": ("alice7", "kernel", "ps aux", "USER PID COMMAND\nalice7 7 perl\n"),
    "wwid": ("36001405abcdef0123456789abcdef012", "block", "multipath -ll", "36001405abcdef0123456789abcdef012 dm-3 LIO,x"),
    "wwn": ("6001405abcdef012", "block", "lsblk --json", {"blockdevices": [{"wwn": "0x6001405abcdef012"}]}),
    "naa": ("6001405abcdef012", "logs", "dmesg", "naa.6001405abcdef012 is gone"),
    "eui": ("0025385b71b00fd1", "logs", "dmesg", "nvme eui.0025385b71b00fd1 is gone"),
    "serial": ("S3EVNX0K123456", "block", "lsblk --json", {"blockdevices": [{"serial": "S3EVNX0K123456"}]}),
    "serial of digits": ("48271123", "block", "lsblk --json", {"blockdevices": [{"serial": "48271123"}]}),
    "asset tag": ("ACME-00417", "libvirt", "virsh dumpxml x", "<domain><sysinfo><entry name='asset'>ACME-00417</entry></sysinfo></domain>"),
    "physical network": ("dmz-acme", "neutron", "GET /v2.0/networks", {"networks": [{"provider:physical_network": "dmz-acme"}]}),
    "bridge": ("br-acme", "neutron", "GET /v2.0/agents", {"agents": [{"configurations": {"bridge_mappings": {"dmz-acme": "br-acme"}}}]}),
    "bridge of the host": ("br-acme", "network", "ip -d -j link", [{"ifname": "br-acme"}]),
    "bridge of ovs": ("br-acme", "network", "ovs-vsctl list Bridge", {"headings": ["name"], "data": [["br-acme"]]}),
    "bridge in xml": ("br-acme", "libvirt", "virsh dumpxml x", "<domain><interface><source bridge='br-acme'/></interface></domain>"),
    "volume group": ("acmevg", "block", "vgs --reportformat json", {"report": [{"vg": [{"vg_name": "acmevg"}]}]}),
    "backend": ("acmelvm", "cinder", "GET /v3/os-services", {"services": [{"host": "vm@acmelvm#goldpool"}]}),
    "pool": ("goldpool", "cinder", "GET /v3/os-services", {"services": [{"host": "vm@acmelvm#goldpool"}]}),
    "rbd pool": ("goldpool", "libvirt", "virsh dumpxml x", "<domain><disk><source protocol='rbd' name='goldpool/x'/></disk></domain>"),
    "iqn": ("acme-bank", "block", "iscsiadm", "Target: iqn.2010-10.com.acme-bank:disk-7 (non-flash)"),
    "name in an iqn": ("vault7", "block", "iscsiadm", "Target: iqn.2003-01.org.linux-iscsi.vault7.x8664:sn.0a1b2c3d4e5f"),
    "nqn": ("acme-bank", "block", "nvme list", "nqn.2019-08.com.acme-bank:nvme:array7"),
    "domain": ("acme-bank", "host", "hostname -f", "compute7.dc2.acme-bank.com"),
    "domain of a network": (
        "acme-bank",
        "neutron",
        "GET /v2.0/networks",
        {"networks": [{"dns_domain": "lab.acme-bank.com."}]},
    ),
    "full name of a port": (
        "acme-bank",
        "neutron",
        "GET /v2.0/ports",
        {"ports": [{"dns_assignment": [{"fqdn": "web.acme-bank.com."}]}]},
    ),
    "zones": (
        "zone-acme",
        "neutron",
        "GET /v2.0/networks",
        {"networks": [{"availability_zones": ["zone-acme"]}]},
    ),
    "export": ("acme-vol1", "kernel", "/proc/self/mountinfo", "1 2 0:3 / /x rw - nfs4 filer7.acme.example:/export/acme-vol1 rw"),
    "server of an export": ("filer7", "kernel", "/proc/self/mountinfo", "1 2 0:3 / /x rw - nfs4 filer7.acme.example:/export/acme-vol1 rw"),
    "challenge": ("winter-7 alice.smith@acme-bank.com", "hoodsnap", "hoodsnap challenge", {"challenge": "winter-7 alice.smith@acme-bank.com"}),
    "common challenge": ("backup", "hoodsnap", "hoodsnap challenge", {"challenge": "backup"}),
    "mail": ("alice.smith", "logs", "dmesg", "from alice.smith@acme-bank.com"),
    "certificate": ("Acme Bank", "logs", "dmesg", "subject: C = DE, O = Acme Bank, CN = compute7.acme.example"),
    "key": ("AAAAC3NzaC1lZDI1NTE5AAAAIKz0Z9", "logs", "dmesg", "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKz0Z9 alice7@desk7"),
    "fingerprint": ("uNiVztksCsDhcc0u9e8BrrJXVGDLxkTqeHCJvxs1oZ4", "logs", "dmesg", "SHA256:uNiVztksCsDhcc0u9e8BrrJXVGDLxkTqeHCJvxs1oZ4"),
    "label": ("acme-root", "kernel", "/proc/cmdline", "root=LABEL=acme-root quiet"),
    "root": ("acmevg", "kernel", "/proc/cmdline", "root=/dev/mapper/acmevg-acmeroot rd.lvm.lv=acmevg/acmeroot"),
    "lvm id": ("wtGFvc-9ZpV-b2Xq-kLm3-Qr5T-uVw7-XyZ012", "block", "pvs --reportformat json", {"report": [{"pv": [{"pv_uuid": "wtGFvc-9ZpV-b2Xq-kLm3-Qr5T-uVw7-XyZ012"}]}]}),
    "long description": ("Acme " * 60, "neutron", "GET /v2.0/networks", {"networks": [{"description": "Acme " * 60}]}),
    "key of metadata": ("acme-cost-center", "nova", "GET /v2.1/servers/detail", {"servers": [{"metadata": {"acme-cost-center": "[withheld]"}}]}),
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_every_kind_is_replaced_in_every_place(
    host: RecordedHost, kind: tuple[str, str, str, object]
) -> None:
    secret, layer, query, value = kind
    if (
        query != "hoodsnap challenge"
        and len(secret) < 255
        and secret not in str(KINDS["key"])
        and (secret not in str(KINDS["fingerprint"]))
    ):
        planted(host, f"then {secret} said", f"/srv/{secret}/x")
    host.add(asked(host, layer, query, value))

    _, made = redacted(host)

    if (
        query == "hoodsnap challenge" and " " not in secret
    ):  # it stays elsewhere: it is a common word
        assert made.answers[-1].value == {"challenge": PSEUDONYMS.name("backup")}
    else:
        assert trace(made, secret) == []


STAYS = {
    "system account": "root nova libvirt-qemu qemu kvm daemon systemd-network",
    "standard bridge": "br-int br-ex br-tun virbr0",
    "standard network": "physnet1",
    "iqn of openstack": "iqn.2010-10.org.openstack:",
    "words": "admin default nova cinder_volume power_state",
    "versions": "qemu-system-x86_64 7.2.22",
    "loopback": "127.0.0.1 ::1 169.254.169.254 255.255.255.0",
    "unit": "getty@tty1.service",
    "request": "2026-11-25 14:51:39.123456 INFO",
    "instance": "instance-0000002a",
    "path": "/var/lib/nova/instances/_base",
    "flow": "cookie=0x3c5a29c9711e9e9f, table=71",
}


@pytest.mark.parametrize("text", STAYS.values(), ids=STAYS)
def test_text_that_identifies_nobody_is_kept(host: RecordedHost, text: str) -> None:
    planted(host, text)
    accounts = [{"user": word, "group": word} for word in STAYS["system account"].split()]
    bridges = [{"ifname": word} for word in STAYS["standard bridge"].split()]
    host.add(asked(host, "images", "find / -ls", accounts))
    host.add(asked(host, "network", "ip link", bridges))
    host.add(asked(host, "neutron", "agents", {"bridge_mappings": {"physnet1": "br-ex"}}))

    redactor, _ = redacted(host)

    assert redactor.text(text) == text


@pytest.mark.parametrize("name", [f"volume-{VOLUME[:8]}", f"acme-{VOLUME[:13]}", "pvc-" + VOLUME])
def test_a_name_does_not_split_a_uuid(host: RecordedHost, name: str) -> None:
    host.row("instances", host.uuid("vm-plain"), display_name=name)
    planted(host, f"/dev/mapper/{MAPPED[:40]}")

    redactor, _ = redacted(host)

    made = PSEUDONYMS.uuid(VOLUME)
    assert redactor.text(f"volume-{VOLUME} {name}").startswith(f"volume-{made} ")
    assert redactor.text(MAPPED).endswith(f"volume--{made.replace('-', '--')}")
    assert redactor.text(f"acme-{VOLUME}").endswith(made)


OTHER_LETTERS = {
    "octal": r"Lohn-B\303\274cher",
    "hexadecimal": r"Lohn-B\xc3\xbccher",
    "Python's": r"Lohn-B\xfccher",
    "decomposed": "Lohn-Bu\u0308cher",
    "read as Latin-1": "Lohn-B\u00c3\u00bccher",
    "URL's": "Lohn-B%C3%BCcher",
}


@pytest.mark.parametrize("spelling", OTHER_LETTERS.values(), ids=OTHER_LETTERS)
def test_a_name_with_non_ascii_letters_is_found_in_every_spelling(
    host: RecordedHost, spelling: str
) -> None:
    host.row("instances", host.uuid("vm-plain"), display_name="Lohn-Bücher")
    planted(host, f"said {spelling} twice")

    _, made = redacted(host)

    assert trace(made, "Lohn") == []


def test_a_short_name_does_not_damage_longer_words(host: RecordedHost) -> None:
    host.row("instances", host.uuid("vm-plain"), display_name="web")
    host.row("instances", host.uuid("vm-stopped"), display_name="payroll")

    redactor, _ = redacted(host)

    assert (
        redactor.text("web cobweb website web_1")
        == f"{PSEUDONYMS.name('web')} cobweb website web_1"
    )
    assert redactor.text("old_payroll2") == f"old_{PSEUDONYMS.name('payroll')}2"
    assert redactor.text("payrolling") == "payrolling"
    assert redactor.text('{"payroll_id": 1}') == '{"payroll_id": 1}'


def test_a_lun_has_one_pseudonym_in_all_spellings(host: RecordedHost) -> None:
    wwid = "6001405abcdef0123456789abcdef012"
    planted(host, f"3{wwid}", f"wwn-0x{wwid}", f"scsi-3{wwid}", f"dm-uuid-mpath-3{wwid}")
    host.add(asked(host, "block", "lsblk", {"blockdevices": [{"wwn": f"0x{wwid[:16]}"}]}))

    redactor, made = redacted(host)

    new = redactor.text(f"3{wwid}")[1:]
    assert new != wwid
    assert redactor.text(f"scsi-3{wwid}") == f"scsi-3{new}"
    assert redactor.text(f"wwn-0x{wwid}") == f"wwn-0x{new}"
    assert made.answers[-1].value == {"blockdevices": [{"wwn": f"0x{new[:16]}"}]}
    assert trace(made, wwid[:16]) == []


def test_two_spellings_of_a_name_stay_different(host: RecordedHost) -> None:
    made = {PSEUDONYMS.name(name) for name in ("payroll", "Payroll", "PAYROLL", "payRoll")}

    assert len(made) == 4
    assert len({one.lower() for one in made}) == 1


def test_explain_shows_places_without_originals(host: RecordedHost) -> None:
    planted(host, VOLUME)
    redactor, _ = redacted(host)

    text = "\n".join(redactor.explained())

    assert re.search(r"^UUID: [0-9]+, in [0-9]+ places$", text, re.MULTILINE)
    assert re.search(r"^ +[0-9]+  libvirt  virsh dumpxml instance-…$", text, re.MULTILINE)
    assert not any(secret in text for secret in ("vm-plain", VOLUME, "lab-net"))
    assert ("vm-plain", PSEUDONYMS.name("vm-plain")) in [*redactor.originals()]


@pytest.mark.parametrize("size", [200])
def test_the_time_is_linear_in_the_size_of_the_text(size: int) -> None:
    """The texts are made to cause backtracking in the patterns."""
    names = {f"acme-web-{number:05}" for number in range(500)}
    redactor = healthy_redactor(names)
    parts = ["a-", "acme-web-", "0ab94923-722d-", "fe80:", "1.2.3.", "--", "%2D", "AAAA", "a@b."]
    parts += ["fa:16:", "iqn.2010-10.a.", "deadbeef", "\\x2d", "CN=", "x=/home/", "<source "]

    def took(text: str) -> float:
        best = 1e9
        for _ in range(3):
            began = time.process_time()
            redactor.identities.add(asked(RecordedHost(healthy()), "logs", "x", text))
            redactor.text(text)
            best = min(best, time.process_time() - began)
        return best

    for part in parts:
        small, large = took(part * size * 4), took(part * size * 16)
        assert large < 8 * small + 0.02, part


def healthy_redactor(names: set[str]) -> Redactor:
    host = RecordedHost(healthy())
    servers = [{"name": name} for name in names]
    host.add(asked(host, "nova", "GET /v2.1/servers/detail", {"servers": servers}))
    return Redactor(PSEUDONYMS, [host.bundle])


def test_explain_writes_no_names_to_a_pipe(tmp_path: Path) -> None:
    done = hoodsnap("redact", HEALTHY, "-o", tmp_path / "shared.json", "--explain")

    assert done.returncode == 0
    output = done.stderr.decode()
    assert re.search(r"^hoodsnap: name: [0-9]+, in [0-9]+ places$", output, re.MULTILINE)
    assert re.search(r"^hoodsnap: +[0-9]+  libvirt  virsh dumpxml", output, re.MULTILINE)
    assert "vm-plain" not in output
    assert "lab-net" not in output


def test_explain_shows_names_to_a_terminal(tmp_path: Path) -> None:
    ours, theirs = os.openpty()
    command = [sys.executable, "-m", "hoodsnap", "redact", str(HEALTHY), "--explain"]
    with subprocess.Popen([*command, "-o", str(tmp_path / "x.json")], stderr=theirs) as running:
        os.close(theirs)
        output = b""
        while b"wrote" not in output:
            output += os.read(ours, 65536)
    os.close(ours)

    assert running.returncode == 0
    assert re.search(rb"name-[0-9a-f]{10} was 'vm-plain'", output)
    assert b"vm-plain" not in (tmp_path / "x.json").read_bytes()


ENCODED = ("base64", "hexadecimal")
ESCAPED = ("device mapper", "systemd", "url")
ROWS = {
    "UUID": {*UUIDS},
    "MAC": {*MACS},
    "IPv4 address": {*FOURS},
    "name": {*NAMES, "zones"},
    "escapes": {one for one in NAMES if one.startswith(ESCAPED)},
    "encoded words": {one for one in NAMES if one.startswith(ENCODED)},
    "host, domain": {"domain", "domain of a network", "full name of a port"},
    "account, home folder": {
        "account of a file",
        "group of a file",
        "id",
        "home",
        "mount option",
        "ps",
    },
    "mail address": {"mail"},
    "physical network, bridge, device": {
        "physical network",
        "bridge",
        "bridge of the host",
        "bridge of ovs",
        "bridge in xml",
    },
    "volume group, pool, backend": {"volume group", "backend", "pool", "rbd pool", "root"},
    "WWID, serial number": {
        "wwid",
        "wwn",
        "naa",
        "eui",
        "serial",
        "serial of digits",
        "asset tag",
        "label",
        "lvm id",
    },
    "IQN, NQN": {"iqn", "name in an iqn", "nqn"},
    "mount source": {"export", "server of an export"},
    "certificate, SSH key": {"certificate", "key", "fingerprint"},
    "challenge, long description": {"challenge", "common challenge", "long description"},
    "key of a server's metadata": {"key of metadata"},
}
"""Rows of the how-to's table, with the kinds that are planted for each."""
STAYING = {
    "common words": {"words"},
    "system accounts": {"system account"},
    "standard bridges and networks": {"standard bridge", "standard network"},
    "well-known addresses": {"loopback"},
    "manufacturers": {"iqn of openstack"},
    "versions and paths": {"versions", "path", "unit"},
    "numbers": {"instance", "flow"},
    "times": {"request"},
}


@pytest.mark.parametrize(("table", "rows"), [("replaced", ROWS), ("stays", STAYING)])
def test_every_row_of_the_how_to_is_planted(table: str, rows: dict[str, set[str]]) -> None:
    page = (ROOT / "docs/howto/share-a-bundle.md").read_text()
    part = page.partition(f"<!-- {table} -->")[2].partition("<!-- end -->")[0]
    named = [line.split("|")[1].strip() for line in part.strip().splitlines()[2:]]

    assert named == [*rows]
    planted_ones = {*UUIDS, *MACS, *FOURS, *NAMES, *KINDS} if table == "replaced" else {*STAYS}
    assert set().union(*rows.values()) == planted_ones
