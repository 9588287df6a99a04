"""The same commands give the same output live and on a recording, byte for byte.

Each command is run live before and after the lab is collected. If these two outputs differ, the
cloud changed in between, and the replay may match either. Every other difference is listed in PARTS
or LINES with its reason.
"""

from __future__ import annotations

import io
import os
import re
import shlex
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.lab

VIRSH = """
virsh list
virsh list --all
virsh list --all --name --uuid
virsh list --inactive
virsh list --state-paused
virsh list --all --managed-save
virsh domstate --reason $D
virsh domstate --reason $OFF
virsh dominfo $D
virsh dominfo $OFF
virsh dumpxml $D
virsh dumpxml --inactive $D
virsh dumpxml $OFF
virsh domblklist $D
virsh domblklist $D --details
virsh domiflist $D
virsh domid $D
virsh domuuid $D
virsh domname $U
virsh vncdisplay $D
virsh domdisplay $D
virsh ttyconsole $D
virsh domjobinfo $D
virsh blockjob $D vda
virsh snapshot-list $D
virsh metadata $D http://openstack.org/xmlns/libvirt/nova/1.1
virsh net-list --all
virsh net-dumpxml default
virsh nodeinfo
virsh hostname
virsh version
virsh capabilities
virsh dominfo no-such-domain
"""

MYSQL = """
mysql nova -e 'select uuid, vm_state, hostname, host from instances'
mysql nova -t -e 'select uuid, vm_state, hostname, host from instances'
mysql nova -B -N -e 'select id, display_name, power_state from instances where deleted = 0'
mysql nova -e 'select id, uuid, host, node, launched_at from instances limit 2 \\G'
mysql nova -t -e 'describe instances'
mysql nova -e 'show create table instances \\G'
mysql nova -t -e 'show tables'
mysql nova -t -e "show tables like 'inst%'"
mysql nova -t -e 'select count(*), host from instances group by host order by host'
mysql nova -t -e 'select i.display_name, b.device_name, b.volume_id from instances i join block_device_mapping b on b.instance_uuid = i.uuid where b.deleted = 0 and i.deleted = 0 order by i.id, b.id'
mysql nova -t -e 'select distinct vm_state from instances order by 1'
mysql nova -t -e "select concat(display_name, '@', host) as place from instances where display_name like 'vm-%' and host is not null order by id"
mysql nova -t -e 'select max(id), min(id), avg(memory_mb) from instances where deleted = 0'
mysql nova -t -e 'select host, `binary`, disabled, forced_down from services where deleted = 0'
mysql nova -t -e 'select source_compute, dest_compute, status, migration_type from migrations'
mysql nova -t -e 'select i.display_name, m.`key`, m.value from instances i join instance_system_metadata m on m.instance_uuid = i.uuid where m.`key` = "image_base_image_ref" and i.deleted = 0 order by i.id'
mysql nova_cell0 -t -e 'select display_name, vm_state from instances'
mysql nova_api -t -e 'select id, uuid, name, disabled from cell_mappings'
mysql nova_api -t -e 'select f.name, f.memory_mb, f.vcpus, f.root_gb from flavors f order by f.id'
mysql nova -t -e 'select uuid from nosuch'
mysql nova -t -e 'select nosuch from instances'
mysql nova -t -e 'select database(), 1+1, version()'
"""

OPENSTACK = """
openstack server list
openstack server list --all-projects
openstack server list --all-projects --long
openstack server list --all-projects -f json
openstack server list --status PAUSED
openstack server show vm-plain
openstack server show vm-bfv -f json
openstack hypervisor list
openstack hypervisor show $H
openstack compute service list
openstack flavor list
openstack flavor show lab.tiny
openstack image list
openstack image show lab-guest
openstack port list
openstack port list --server vm-plain
openstack network list
openstack subnet list
openstack volume list --all-projects
openstack resource provider list
openstack aggregate list
nova list
nova list --all-tenants
nova show vm-duo
nova show vm-tenant
nova server-group-list
openstack server group list --all-projects
openstack volume show $V
"""

HOST = """
pgrep qemu
pgrep -c qemu
pgrep qemu | xargs ps ww
pgrep -a qemu
ps -o pid,ppid,comm,args ww $(pgrep qemu)
ps -o pid,user,nlwp,vsz $(pgrep qemu)
ls -1 /var/lib/nova/instances
ls -l /var/lib/nova/instances/$U
ls -ln /var/lib/nova/instances/$U/disk
ls -1 /var/lib/nova/instances/_base
qemu-img info -U /var/lib/nova/instances/$U/disk
qemu-img info -U --backing-chain /var/lib/nova/instances/$U/disk
qemu-img info -U --backing-chain --output=json /var/lib/nova/instances/$U/disk
qemu-img info -U --backing-chain --output=json -f qcow2 /var/lib/nova/instances/$U/disk
cat /var/lib/nova/instances/$U/disk.info
tail -n 1 /var/log/libvirt/qemu/$D.log
virsh qemu-monitor-command $D '{"execute": "query-status"}'
virsh qemu-monitor-command $D '{"execute": "query-uuid"}'
"""

PARTS = {
    r"^virsh dominfo": (r"CPU time: .*", "it goes on while it is collected"),
    r"^pgrep.*ps|^ps": (r" [A-Z][<NLsl+]*\s+\d+:\d\d ", "state and CPU time go on, too"),
    r"^pgrep|^ps": (r"(?<=-append )\S+", "the kernel command line is withheld"),
    r"^openstack (compute service|resource provider)": (
        r"\d{4}-\d\d-\d\d[T ][\d:.]+|\| +\d+ \|",
        "a heartbeat, or a count of changes",
    ),
    r"qemu-monitor-command": (r',"id":"libvirt-\d+"', "libvirt numbers its own commands"),
    r"^openstack server list .*--long": (
        r"\| (nova|) +\| [\w-]* +\|.*$",
        "the last column is the owner's metadata, which is withheld",
    ),
}
"""Patterns of what may differ within lines, by command, with the reason."""

LINES = {
    r"^openstack server show|^nova show": (
        r"^\| (properties|metadata) ",
        "the owner's metadata is withheld",
    ),
    r"^virsh dominfo": (r"^(Messages:|\s+tainted:)", "asking a monitor taints"),
    r"^openstack hypervisor show": (
        r"^\| (uptime|load_average|users|host_time|.*_used|free_.*|disk_avail.*|memory_.*) ",
        "the uptime is a separate query that is not collected; the rest changes every minute",
    ),
    r"^openstack volume show": (
        r"^\| (properties|volume_image_metadata|description) ",
        "free text is withheld",
    ),
    r"^openstack image show": (
        r"^\| (properties|direct_url|locations) ",
        "free text is withheld",
    ),
}
"""Patterns of lines that may differ or be missing, by command, with the reason."""


def _commands() -> list[str]:
    groups = (VIRSH, MYSQL, OPENSTACK, HOST)
    return [line for group in groups for line in group.strip().splitlines()]


def _run(commands: list[str], folder: Path, prefix: list[str], names: dict[str, str]) -> None:
    """Run each command, and write its output to `folder/NUMBER`. The outputs come through standard
    output, because nothing else leaves a shell."""
    folder.mkdir()
    exports = [f"export {name}={shlex.quote(value)}" for name, value in names.items()]
    lines = [f"( {line} ) >$OUT/{number} 2>&1" for number, line in enumerate(commands)]
    script = [*exports, "OUT=$(mktemp -d)", *lines, "tar -c -C $OUT .", "rm -r $OUT"]
    done = subprocess.run(
        [*prefix, "bash", "-c", "\n".join(script)], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
    )
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as found:
        # The first releases of Python 3.11 have no filters.
        found.extraction_filter = getattr(tarfile, "data_filter", None)
        found.extractall(folder)  # noqa: S202 our own commands made it


def _accepted(command: str, text: str) -> list[str]:
    lines = text.splitlines()
    for pattern, (differs, _) in LINES.items():
        if re.search(pattern, command):
            lines = [line for line in lines if not re.search(differs, line)]
    for pattern, (differs, _) in PARTS.items():
        if re.search(pattern, command):
            lines = [re.sub(differs, "", line) for line in lines]
    # A column is as wide as what stands in it.
    return [re.sub(r"-{2,}|\s+", " ", line).strip() for line in lines if line.strip()]


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, list[str]]]:
    state = Path(os.environ.get("LAB_STATE", "/var/lib/hoodlab"))
    if os.geteuid() != 0 or not (state / "clouds.yaml").exists():
        pytest.skip("this needs root and the lab (make lab)")
    folder = tmp_path_factory.mktemp("differential")
    credentials = subprocess.run(
        ["bash", "-c", f". {state}/openrc; env"], capture_output=True, text=True, check=True
    ).stdout
    names = dict(line.split("=", 1) for line in credentials.splitlines() if line[:3] == "OS_")
    names |= _things(names)
    commands = _commands()
    _run(commands, folder / "before", [], names)
    bundle = folder / "bundle.json.zst"
    hoodsnap = [sys.executable, "-m", "hoodsnap"]
    subprocess.run(
        [*hoodsnap, "collect", "--all-hosts", "--qmp", "-o", bundle],
        env=os.environ | names, stderr=subprocess.DEVNULL, check=True,
    )  # fmt: skip
    _run(commands, folder / "after", [], names)
    plain = {key: value for key, value in names.items() if key[:3] != "OS_"}
    _run(commands, folder / "replay", [*hoodsnap, "replay", str(bundle), "--"], plain)
    yield folder, commands


def _things(names: dict[str, str]) -> dict[str, str]:
    """Names used in the commands: a domain, one that is shut off, its UUID, a host, a volume."""

    def ask(command: str) -> str:
        done = subprocess.run(
            ["bash", "-c", command], env=os.environ | names, capture_output=True, text=True
        )
        return done.stdout.split()[0]

    volumes = "select volume_id from nova.block_device_mapping where deleted = 0"
    where = "from nova.instances where deleted = 0 and display_name"
    return {
        "U": ask(f"mysql -N -e \"select uuid {where} = 'vm-plain'\""),
        "D": ask(f"virsh domname $(mysql -N -e \"select uuid {where} = 'vm-plain'\")"),
        "OFF": ask(f"virsh domname $(mysql -N -e \"select uuid {where} = 'vm-stopped'\")"),
        "H": ask("virsh hostname"),
        "V": ask(f"mysql -N -e '{volumes} and volume_id is not null'"),
    }


def test_enough_commands_are_compared() -> None:
    assert len(_commands()) >= 60


@pytest.mark.parametrize("number", range(len(_commands())), ids=_commands())
def test_the_replay_prints_the_same_as_the_host(
    outputs: tuple[Path, list[str]], number: int
) -> None:
    folder, commands = outputs
    before, after, replayed = (
        (folder / name / str(number)).read_text(errors="surrogateescape")
        for name in ("before", "after", "replay")
    )
    if replayed in (before, after):
        return
    command = commands[number]
    accepted = [_accepted(command, text) for text in (before, after, replayed)]
    assert accepted[2] in accepted[:2], f"live:\n{after}\nreplayed:\n{replayed}"
