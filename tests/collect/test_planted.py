"""Secrets planted in the running lab, in every place that can hold one: none is in the bundle."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from uuid import uuid4

import pytest
from tests.collect.conftest import until
from tests.collect.planting import (
    BASE64,
    MARK,
    PERCENT,
    STATE,
    cell,
    disk,
    disk_on_the_web,
    domain,
    emulator,
    file,
    in_base64,
    libvirt_secret,
    more,
    older_emulator,
    other_program,
    row,
    sql,
    virsh,
)

from hoodsnap.bundle import Bundle, dump, load
from hoodsnap.keep.secret import WITHHELD

pytestmark = pytest.mark.lab

VNC = MARK[:8]
"""Planted VNC password: VNC uses only eight characters."""

SPELLINGS = (VNC, BASE64, PERCENT)
"""Spellings of the mark, none of which may be in the bundle."""


# Planted secrets


def in_nova(plant: ExitStack, uuid: str) -> None:
    of_it, volume = (
        f"uuid = '{uuid}'",
        f"instance_uuid = '{uuid}' AND boot_index IS NULL AND deleted = 0",
    )
    stored = sql(f"SELECT connection_info FROM nova.block_device_mapping WHERE {volume}")
    info = json.loads(stored.replace("\\\\", "\\"))
    info["data"] |= {"auth_username": "x", "auth_password": f"{MARK}chap", "secret": f"{MARK}key"}
    stored = sql(f"SELECT spec FROM nova_api.request_specs WHERE instance_uuid = '{uuid}'")
    spec = json.loads(stored.replace("\\\\", "\\"))
    image = spec["nova_object.data"]["image"]["nova_object.data"]["properties"]
    image["nova_object.data"]["os_command_line"] = f"password={MARK}spec"
    now, owner = "UTC_TIMESTAMP()", f"'{uuid}'"
    for context in (
        cell("nova.instances", "user_data", of_it, in_base64(f"{MARK}userdata")),
        cell("nova.instances", "key_data", of_it, f"ssh-rsa {MARK}keypair"),
        cell("nova.instances", "display_description", of_it, f"log in with {MARK}description"),
        # A name that looks like a secret does not prevent a bundle.
        cell("nova.instances", "display_name", of_it, f"password: {MARK}name"),
        row("nova.tags", resource_id=owner, tag=f"'{MARK}tag'"),
        cell("nova_api.flavors", "description", "name = 'lab.tiny'", f"{MARK}flavor"),
        cell("nova.block_device_mapping", "connection_info", volume, json.dumps(info)),
        cell("nova_api.request_specs", "spec", f"instance_uuid = {owner}", json.dumps(spec)),
        row("nova.instance_metadata", key="'plan'", value=f"'{MARK}metadata'",
            instance_uuid=owner, deleted="0"),
        row("nova.instance_system_metadata", key="'password_0'", value=f"'{MARK}adminpass'",
            instance_uuid=owner, deleted="0"),
        row("nova.instance_system_metadata", key="'image_os_command_line'",
            value=f"'password={MARK}cmdline'", instance_uuid=owner, deleted="0"),
        row("nova.instance_faults", instance_uuid=owner, code="599",
            message=f"'failed: iscsi://u%{MARK}@h/iqn.x:y/0, password={MARK}message'",
            details=f"'Traceback: {MARK}details'", created_at=now, deleted="0"),
        row("nova.console_auth_tokens", token_hash=f"'{MARK}token'", console_type="'novnc'",
            host="'127.0.0.1'", port="5999", internal_access_path=f"'{MARK}path'",
            instance_uuid=owner, expires="0", access_url_base=f"'http://u:{MARK}@h/'"),
    ):  # fmt: skip
        plant.enter_context(context)


def in_other_databases(plant: ExitStack, uuid: str) -> None:
    volume = sql(
        "SELECT volume_id FROM nova.block_device_mapping"
        f" WHERE instance_uuid = '{uuid}' AND boot_index IS NULL AND deleted = 0"
    )
    image = sql(f"SELECT image_ref FROM nova.instances WHERE uuid = '{uuid}'")
    port = sql(f"SELECT id FROM neutron.ports WHERE device_id = '{uuid}' LIMIT 1")
    standard = sql(f"SELECT standard_attr_id FROM neutron.ports WHERE id = '{port}'")
    of_it = f"volume_id = '{volume}' AND deleted = 0"
    info = json.loads(sql(f"SELECT connection_info FROM cinder.volume_attachment WHERE {of_it}"))
    info |= {"auth_method": "CHAP", "auth_username": "u", "auth_password": f"{MARK}cinder"}
    auth, profile = f"CHAP u {MARK}provider", {"password": f"{MARK}profile", "x": f"{MARK}other"}
    for context in (
        cell("cinder.volumes", "provider_auth", f"id = '{volume}'", auth),
        cell("cinder.volume_attachment", "connection_info", of_it, json.dumps(info)),
        cell("cinder.volume_attachment", "connector", of_it, json.dumps({"pass": MARK})),
        row("cinder.volume_metadata", volume_id=f"'{volume}'", key="'plan'",
            value=f"'{MARK}metadata'", deleted="0"),
        row("glance.image_properties", image_id=f"'{image}'", name="'os_command_line'",
            value=f"'password={MARK}image'", created_at="UTC_TIMESTAMP()", deleted="0"),
        row("glance.image_properties", image_id=f"'{image}'", name="'os_admin_password'",
            value=f"'{MARK}image'", created_at="UTC_TIMESTAMP()", deleted="0"),
        cell("neutron.ports", "name", f"id = '{port}'", f"keyring: {MARK}port"),
        cell("neutron.standardattributes", "description", f"id = {standard}", f"{MARK}description"),
        row("neutron.tags", standard_attr_id=standard, tag=f"'{MARK}tag'"),
        cell("neutron.ml2_port_bindings", "profile", f"port_id = '{port}'", json.dumps(profile)),
    ):  # fmt: skip
        plant.enter_context(context)


def in_files(plant: ExitStack, uuid: str) -> None:
    conf = f"\n[glance]\npassword = {MARK}conf\n[DEFAULT]\ntransport_url = rabbit://u:{MARK}@h/\n"
    lines = (
        f"2026-01-01 00:00:00.000 1 ERROR nova.compute.manager [-] [instance: {uuid}] Failed:"
        f" mysql+pymysql://nova:{MARK}url@127.0.0.1/nova password={MARK}log"
        f" http://nova:{PERCENT}@h/ Authorization: Basic {in_base64(f'user1:{MARK}')}\n"
    )
    lines += "".join(
        f"2026-01-01 00:00:00.000 1 ERROR nova.compute.manager [-] [instance: {uuid}] {message}\n"
        for message in (
            f"the password is {MARK}said",
            f"auth_password {MARK}said",
            f"('auth_password', '{MARK}said')",
            f"curl -u admin:{MARK}option",
            f"iscsiadm --op update --value {MARK}option -n node.session.auth.password",
            f"mysqldump -u root -p{MARK}option",
        )
    )
    graphics = f'vnc_password = "{MARK}vnc"\nspice_password = "{MARK}spice"\n'
    node = f"node.session.auth.username = u\nnode.session.auth.password = {MARK}node\n"
    session = (
        "Target: iqn.2026-01.test:planted (non-flash)\n\tCurrent Portal: 127.0.0.1:3260,1\n"
        "\t\t*****\n\t\tCHAP:\n\t\t*****\n"
        f"\t\tusername: {MARK}user\n\t\tpassword: {MARK}chap\n"
        f"\t\tusername_in: {MARK}user\n\t\tpassword_in: {MARK}chap\n"
    )
    script = f"#!/bin/sh\ncat <<'END'\n{session}END\n"
    for context in (
        more(Path("/etc/nova/nova.conf"), conf),
        more(Path("/var/log/nova/nova-compute.log"), lines),
        more(Path("/etc/libvirt/qemu.conf"), graphics),
        more(Path("/etc/iscsi/iscsid.conf"), node),
        file(
            Path("/etc/iscsi/nodes/iqn.2026-01.test:planted/127.0.0.1,3260,1/default"), node, 0o600
        ),
        # The lab's kernel has no session; open-iscsi 2.1 shows sessions like this.
        file(Path("/usr/local/sbin/iscsiadm"), script, 0o755),
    ):
        plant.enter_context(context)


BACKING = (
    f"http://user:{MARK}backing@127.0.0.1:1/base",
    f"rbd:pool/base:id=admin:key={MARK}ceph=:auth_supported=cephx",
    f"iscsi://user%{PERCENT}@127.0.0.1:1/iqn.2026-01.test:planted/0",
    f'json:{{"driver":"rbd","pool":"p","image":"i","=keyvalue-pairs":"[\\"key\\", \\"{MARK}\\"]"}}',
)
"""Backing files that headers of disks may name."""


def in_processes(plant: ExitStack, folder: Path, web: str) -> None:
    secret = {"qom-type": "secret", "id": "s0", "format": "base64", "data": in_base64(f"{MARK}0")}
    last = {"data": f"a {MARK}json, it's", "id": "s1", "qom-type": "secret"}
    monitor = folder / "monitor"
    iscsi = {"driver": "iscsi", "portal": "h", "user": "u", "password": f"{MARK}blockdev"}
    nested = json.dumps({"driver": "raw", "file": "json:" + json.dumps(iscsi)})
    for context in (
        emulator("-object", f"secret,id=sec0,data={MARK}object"),
        emulator("-object", f"secret,id=sec0,data=a,,b {MARK}object"),
        emulator("-object", f"qom-type=secret,id=sec0,data={MARK}object"),
        emulator("-object", json.dumps(secret), "-object", json.dumps(last)),
        emulator("-L", f"rbd:pool/x:id=admin:key={MARK}ceph:auth=x"),
        emulator("-kernel", str(STATE / "lab-linux-kernel"),
                 "-append", f"root=/dev/vda -- rd.luks.key={MARK} a={MARK}append", "-S"),
        emulator("-fw_cfg", f"name=opt/test/seed,string=a {MARK}seed", "-smbios",
                 f"type=11,value=io.systemd.credential:passwd.plaintext-password.root={MARK}"),
        emulator("-object", f"secret,id=vnc0,data={MARK}vnc", "-vnc",
                 f"unix:{folder}/vnc,password-secret=vnc0", "-uuid", str(uuid4()),
                 "-drive", f"file={web},format=raw,if=none,readonly=on,id=web",
                 "-qmp", f"unix:{monitor},server=on,wait=off"),
        older_emulator(folder, "-spice", f"port=5999,password=a {MARK}spice"),
        older_emulator(folder, "-iscsi", f"user=u,password=a,,{MARK}chap"),
        older_emulator(folder, "-drive", f"file=iscsi://user%{MARK}@h/iqn.2026-01.test:p/0,if=none"),
        older_emulator(folder, "-drive", f"file=iscsi://user%{PERCENT}@h/iqn.2026-01.test:p/0"),
        older_emulator(folder, "-drive", f"file=rbd:p/x:id=admin:key={BASE64}A==:conf=/x,if=none"),
        older_emulator(folder, "-drive", f"file=nbd://u:p@{MARK}/x@h:1/x,if=none"),
        older_emulator(folder, "-blockdev", json.dumps(iscsi), "-blockdev", nested),
        older_emulator(folder, "-prom-env", f"pw={MARK}prom", "-set", f"object.s.data={MARK}set"),
        older_emulator(folder, "-incoming", f"exec:curl -u a:{MARK}exec http://x"),
        older_emulator(folder, "-netdev", f"user,id=n,guestfwd=tcp:1:2-cmd:env PW={MARK}cmd x"),
        older_emulator(folder, "-smbios", f"type=1,serial=ds=nocloud-net;s=http://h/{MARK}serial"),
        older_emulator(folder, "-object", f"sev-snp-guest,id=s,id-auth={MARK}auth,policy=1"),
        older_emulator(folder, "-drive", f"file=ssh://u:{MARK}ssh@h/x,file.password={MARK}drive"),
        other_program(folder, "--auth", f"a:{MARK}other", "-u", f"root:{MARK}other", MARK),
    ):  # fmt: skip
        plant.enter_context(context)
    until(monitor.exists)


def in_libvirt(plant: ExitStack, folder: Path) -> None:
    kernel = folder / "kernel"
    shutil.copy(STATE / "lab-linux-kernel", kernel)
    arguments = ("-object", f"secret,id=planted,data=a,,{MARK}argument")
    passed = "".join(f"<qemu:arg value='{word}'/>" for word in arguments)
    running = f"""
      <sysinfo type='smbios'><oemStrings><entry>test:{MARK}oem</entry></oemStrings></sysinfo>
      <sysinfo type='fwcfg'><entry name='opt/test/seed'>{MARK}fwcfg</entry></sysinfo>
      <devices>
        <graphics type='vnc' port='-1' autoport='yes' listen='127.0.0.1' passwd='{VNC}'/>
        <graphics type='spice' autoport='yes' listen='127.0.0.1' passwd='{MARK}spice'/>
      </devices>
      <qemu:commandline>{passed}<qemu:env name='PLANTED' value='{MARK}environment'/>
      </qemu:commandline>"""
    off = f"""
      <devices>
        <graphics type='vnc' port='-1' autoport='yes' listen='127.0.0.1' passwd='{VNC}'/>
        <disk type='network' device='cdrom'><driver name='qemu' type='raw'/>
          <source protocol='https' name='disk'><host name='127.0.0.1' port='1'/>
            <cookies><cookie name='session'>{MARK}cookie</cookie></cookies>
          </source><target dev='hda' bus='ide'/><readonly/></disk>
      </devices>"""
    plain = f"""
      <title>{MARK}title</title><description>{MARK}description</description>
      <metadata><a:x xmlns:a='http://a'><a:token of='{MARK}'>{MARK}metadata</a:token></a:x></metadata>
      <sysinfo type='smbios'><system><entry name='serial'>ds=nocloud;s={MARK}</entry>
        <entry name='sku'>{MARK}sku</entry></system></sysinfo>
      <qemu:commandline><qemu:arg value='-incoming'/><qemu:arg value='exec:x {MARK}exec'/>
        <qemu:arg value='-netdev'/><qemu:arg value='user,id=n,guestfwd=tcp:1-cmd:x {MARK}'/>
      </qemu:commandline>
      <devices>
        <interface type='bridge'><source bridge='br-int'/><filterref filter='clean-traffic'>
          <parameter name='PASSWORD' value='{MARK}filter'/></filterref></interface>
      </devices>"""
    arguments = ("-drive", f"file=iscsi://u%{MARK}@127.0.0.1:1/iqn.2026-01.test:p/0,if=none")
    passed = "".join(f"<qemu:arg value='{word}'/>" for word in arguments)
    broken = f"<qemu:commandline>{passed}</qemu:commandline>"
    boot = f"<kernel>{kernel}</kernel><cmdline>console=ttyS0 pw={MARK}cmdline</cmdline>"
    smbios = "<smbios mode='sysinfo'/>"
    plant.enter_context(libvirt_secret(folder))
    way = ("create", "--paused")
    plant.enter_context(domain(folder, "planted", *way, os=boot + smbios, rest=running))
    plant.enter_context(domain(folder, "planted-off", "define", rest=off))
    plant.enter_context(domain(folder, "planted-plain", "define", os=smbios, rest=plain))
    plant.enter_context(domain(folder, "planted-broken", "define", rest=broken))
    # They have no disk to start from, and their logs name the missing disks.
    assert not virsh("start", "planted-off")
    assert not virsh("start", "planted-broken")


@pytest.fixture(scope="module")
def collected() -> Iterator[tuple[Bundle, str]]:
    """Collect a bundle while all secrets are planted; yield the bundle and its text."""
    if os.geteuid() != 0 or not (STATE / "clouds.yaml").exists():
        pytest.skip("this needs root and the lab (make lab)")
    uuid = sql("SELECT uuid FROM nova.instances WHERE deleted = 0 AND display_name = 'vm-data'")
    # libvirt's QEMUs may read this folder, and its path is short enough for sockets.
    folder = Path("/var/tmp") / f"planted-{os.getpid()}"
    folder.mkdir()
    cmdline = folder / "cmdline"
    cmdline.write_text(f"BOOT_IMAGE=/vmlinuz rd.luks.passphrase={MARK}host root={MARK}root\n")
    hoodsnap = [sys.executable, "-m", "hoodsnap", "collect", "--all-hosts", "--qmp"]
    command = [*hoodsnap, "--os-cloud", "hoodlab", "-o", str(folder / "bundle.json")]
    try:
        with ExitStack() as plant:
            web = plant.enter_context(disk_on_the_web())
            in_nova(plant, uuid)
            in_other_databases(plant, uuid)
            in_files(plant, uuid)
            for backing in BACKING:
                plant.enter_context(disk(backing))
            in_processes(plant, folder, web)
            in_libvirt(plant, folder)
            # The host's own cmdline can't be changed, so only the collector sees this one.
            own = f'mount --bind {cmdline} /proc/cmdline && exec "$@"'
            done = subprocess.run(
                ["unshare", "--mount", "bash", "-c", own, "collect", *command],
                env={**os.environ, "OS_CLIENT_CONFIG_FILE": str(STATE / "clouds.yaml")},
                capture_output=True, text=True,
            )  # fmt: skip
        assert (folder / "bundle.json").exists(), done.stderr
        yield load(folder / "bundle.json"), (folder / "bundle.json").read_text()
    finally:
        shutil.rmtree(folder)


def test_no_planted_secret_is_in_the_bundle(collected: tuple[Bundle, str]) -> None:
    bundle, text = collected

    telling = {
        answer.query
        for answer in bundle.answers
        if any(spelling in json.dumps(answer.as_json()) for spelling in SPELLINGS)
    }
    assert telling == set()
    assert not any(spelling.encode() in dump(bundle) for spelling in SPELLINGS)
    assert not any(spelling in text for spelling in SPELLINGS)


SEEN = {
    "a fault's message": ("nova-db", "instance_faults", f"password={WITHHELD}"),
    "the request spec": ("nova-db", "request_specs", "RequestSpec"),
    "an attachment": ("cinder", "/attachments", "driver_volume_type"),
    "a property of an image": ("glance", "/v2/images", f'"os_command_line": "{WITHHELD}"'),
    "a port's binding": ("neutron", "/bindings", f'"x": "{WITHHELD}"'),
    "a session of iSCSI": ("block", "iscsiadm", f"password_in: {WITHHELD}"),
    "nova's log": ("logs", "nova-compute.log", f"password={WITHHELD}"),
    "the log of a failed start": ("logs", "planted-broken.log", f"iscsi://{WITHHELD}"),
    "the log of another failed start": ("logs", "planted-off.log", f"-blockdev {{{WITHHELD}}}"),
    "a header that names a web server": ("images", "qemu-img", f"user:{WITHHELD}@127.0.0.1"),
    "a header that names ceph": ("images", "qemu-img", f"key={WITHHELD}:auth_supported"),
    "a kernel's command line": ("kernel", "/cmdline", rf"-append\u0000{WITHHELD}\u0000-S"),
    "a kernel's command line in ps": ("kernel", "pgrep", f"-append {WITHHELD} -S"),
    "a secret with a comma in it": ("kernel", "pgrep", f"secret,id=sec0,data={WITHHELD}\\n"),
    "an SMBIOS text for the guest": ("kernel", "pgrep", f"type=11,value={WITHHELD}"),
    "the arguments of another program": ("kernel", "pgrep", f"backup-qemu {WITHHELD}\\n"),
    "the source of an incoming migration": ("kernel", "pgrep", f"-incoming exec:{WITHHELD}\\n"),
    "a program of a guest's network": ("kernel", "pgrep", f"2-cmd:{WITHHELD}"),
    "a server's description": ("nova", "/servers", f'"description": "{WITHHELD}"'),
    "a server's tag": ("nova", "/servers", f'"tags": ["{WITHHELD}"]'),
    "a server's name": ("nova", "/servers", f'"name": "{WITHHELD}"'),
    "a port's name": ("neutron", "/ports", f'"name": "{WITHHELD}"'),
    "a flavor's description": ("nova", "/flavors", f'"description": "{WITHHELD}"'),
    "a sentence about a password in nova's log": ("logs", "nova-compute.log", f"password is {WITHHELD}"),
    "another program's metadata": ("libvirt", "--inactive planted-plain", f"<metadata>\\n    {WITHHELD}"),
    "a domain's title": ("libvirt", "--inactive planted-plain", f"<title>{WITHHELD}<"),
    "a parameter of a filter": ("libvirt", "--inactive planted-plain", f"'PASSWORD' value='{WITHHELD}'"),
    "a password of SPICE": ("kernel", "pgrep", f"port=5999,password={WITHHELD}"),
    "a password of CHAP": ("kernel", "pgrep", f"user=u,password={WITHHELD}"),
    "an iSCSI disk": ("kernel", "pgrep", f"iscsi://user%{WITHHELD}@h/iqn"),
    "a ceph disk": ("kernel", "pgrep", f"key={WITHHELD}:conf=/x,if=none"),
    "the XML of a running domain": ("libvirt", "dumpxml planted", f"<cmdline>{WITHHELD}</"),
    "a running domain's graphics": ("libvirt", "dumpxml planted", "<graphics type='spice'"),
    "a running domain's environment": ("libvirt", "dumpxml planted", f"'PLANTED' value='{WITHHELD}'"),
    "the XML of a domain that is off": ("libvirt", "--inactive planted-broken", f"iscsi://u%{WITHHELD}@"),
    "the cookie of a web disk": ("libvirt", "--inactive planted-off", "protocol='https'"),
    "a secret of libvirt": ("libvirt", "virsh secret-list", '"usage_id": "planted"'),
    # The monitor is not asked about the network disk: that could stop the guest.
    "the monitor of a QEMU": ("qemu", "query-block", "the guest has a network disk (http)"),
}  # fmt: skip
"""Planted secret → layer, part of the query, and the text in place of the secret."""


@pytest.mark.parametrize("place", SEEN)
def test_the_collector_read_each_planted_location(
    collected: tuple[Bundle, str], place: str
) -> None:
    layer, query, instead = SEEN[place]

    answers = [
        json.dumps(answer.as_json(), ensure_ascii=False)
        for answer in collected[0].answers
        if answer.layer == layer and query in answer.query
    ]
    assert any(instead in answer for answer in answers), answers
