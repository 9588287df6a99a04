"""The advice of a finding: what to look at, what to do, and how to see that it worked.

A check's page holds commands with placeholders (`virsh domstate NAME`). Here they get the values
of the finding, quoted for a shell. A placeholder stays only where the bundle can't know the value,
and then `PLACEHOLDERS` says what to put there.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from hoodsnap.check import COMMANDS
from hoodsnap.facts.cloud.guest import Guest
from hoodsnap.facts.fact import caught
from hoodsnap.findings.finding import Finding
from hoodsnap.findings.gating import OF_NOVA, NotYet

PLACEHOLDERS: Mapping[str, str] = {
    "UUID": "UUID of the server",
    "NAME": "name of the domain, from `virsh list --all`",
    "PAUSED_SERVER": "UUID of the server, if it was paused",
    "PID": "process id of the guest's QEMU",
    "HOST": "name of the compute host in nova",
    "INSTANCES_PATH": "nova.conf's instances_path",
    "ACCOUNT": "username of the account, from the command before",
    "ACCOUNT_DOMAIN": "domain of the account (user_domain_name), from the command before",
    "ADDRESS": "IP address",
    "ADDED_MAC": "MAC address of the card that was added by hand",
    "ADDED_TYPE": "type of the card, from `virsh domiflist`",
    "AGENT": "id of the agent, from `openstack network agent list`",
    "ALLOWED": "memory limit in KiB; -1 for no limit",
    "ATTACHMENT": "id of the attachment in cinder",
    "BACKED_UP": "name of the domain, if libvirt runs a backup of it",
    "BASE": "path of the base image",
    "BINARY": "path of the QEMU binary",
    "BOUND": "folder of the mount, if only the mount is read-only",
    "BRIDGE": "name of the bridge in Open vSwitch",
    "BUILT": "UUID of the server whose build request is left",
    "CELL_ID": "id of the cell in cell_mappings",
    "CHECKPOINT": "name of the checkpoint, from `virsh checkpoint-list`",
    "CELL": "UUID of the cell, from `nova-manage cell_v2 list_cells`",
    "CARD": "name of the card's tap device",
    "CINDER_CONF": "path of cinder.conf on the host of cinder-volume",
    "CLOSED_CONF": "path of the configuration file, if nova may not read it",
    "CLOSED_LOG": "path of the log file, or of its folder, if nova may not write to it",
    "CLOSED_FOLDER": "path of the folder, if nova may not go through it",
    "CLOSED": "path of the folder that its owner may not write to",
    "COLUMN": "column of the mapping: cell_id or queued_for_delete",
    "COMPARED": "UUID of the server, if its two definitions have different disks",
    "CONFIG_DRIVE": "path of the config drive",
    "CONSUMER": "UUID of the consumer in placement",
    "COPIED": "target of the disk that is being copied: vda",
    "COPY": "path of a new file on a disk with enough room",
    "COVERED": "folder in which the other file system is mounted",
    "CPUS": "numbers of host CPUs: 0-3,8",
    "DAEMON": "process id of the daemon",
    "DATABASE": "name of the cell's database",
    "DEFINED_DOMAIN": "name of the domain, if libvirt has its definition",
    "DEVICE": "kernel name of the device: sdb",
    "DISABLED_PORT": "id of the port, if it is disabled",
    "DISABLED_ROUTER": "id of the router, if it is disabled",
    "DISABLED_NETWORK": "id of the network, if it is disabled",
    "DISABLED": "name of the host whose service an operator disabled",
    "DISABLED_AGENT": "id of the agent, if it is disabled",
    "DISK": "path of the disk",
    "DOMAIN": "name of the domain that QEMU paused",
    "DRIVE": "target of the config drive: hda",
    "DUPLICATE": "name of the interface that is to be removed from the switch",
    "EXTENDED": "id of the volume, if only nova's record of its size differs",
    "EVENTS": "largest number of events that programs may reserve together",
    "EXPORT": "NFS export of the volume, from nova's connection_info",
    "EXTRA_ROW": "path of a file with the server's row of instance_extra, as mysqldump writes it",
    "EXTRA_DAEMON": "process id of the nova-compute that is to end",
    "FILES": "largest number of files that the process may have open",
    "FILE": "path of the XML file",
    "FD": "number of the open file, from the command before",
    "FLAVOR": "name of the flavor",
    "FLOATING_IP": "address of the floating IP",
    "FOLDER": "path of the guest's folder",
    "FORMAT": "format of the disk: raw or qcow2",
    "FORCED_DOWN": "name of the host whose service was forced down but reports",
    "FORMER": "vm_state before the reset: resized, suspended, shelved or shelved_offloaded",
    "FOUND": "path at which the file is now",
    "FREEZER": "file that freezes the control group: …/freezer.state",
    "GIB": "size in GiB",
    "GOOD": "name of the domain, if its saved memory is newer than its disk",
    "GROUP": "path of the control group",
    "GROUP_OF_PORT": "id of each security group, from the command before",
    "GROUP_ID": "UUID of the server group",
    "GUEST": "UUID of the server whose guest is to start again",
    "HAS_GIB": "size on the host in GiB, rounded up",
    "HYPERVISOR": "hypervisor host name",
    "ID": "number of the row",
    "IDENTITY": "UUID of the compute node, if the host's file has another one",
    "IMAGE": "id of the image in glance",
    "INODE": "inode number of the disk, from `ls -i`",
    "IN_ERROR": "UUID of the server, if it is in error",
    "KEYFILE": "path of a file that holds only the key of Ceph's user",
    "LAYER": "path of the image whose header is incomplete",
    "LIBVIRT": "name of libvirt's daemon: libvirtd or virtqemud",
    "LIMITED": "name of the limited card's tap device",
    "LINK": "name that the network device has now",
    "LOCKER": "process id of the program, from the commands before",
    "LOG": "path of the log file",
    "LOOP": "kernel name of the loop device: loop1",
    "LOST_ROW": "id of the row of the boot disk that is marked as deleted",
    "LOST_PORT": "id that the card's port has, or had",
    "MAC": "MAC address",
    "MAP": "name of the multipath map",
    "MARKED_PORT": "id of the port, if its profile names a migration",
    "MISMAPPED": "name of the host, if it is mapped to another cell than its compute node's",
    "MOUNTED": "folder in which the loop device is mounted",
    "MISNAMED": "id of the row, if nova's device name is not the disk's target",
    "MISREAD": "path of the disk, if its two definitions have different formats",
    "MISSING": "path at which the file is missing",
    "MIRROR": "name of the mirror in Open vSwitch",
    "MIGRATING": "id of the volume that cinder is migrating",
    "MODE": "change of the mode, such as a+x",
    "NAMESPACE": "name of the network namespace",
    "NAMESAKE": "UUID of the resource provider, if only its name is the compute node's",
    "NETWORK": "id of the network",
    "NEW": "path of a new file",
    "NEW_BACKEND": "host@backend#pool of the service that has the storage now",
    "NEW_NAME": "name of a new image in glance",
    "NOVA_CONF": "path of the configuration file that sets the option: /etc/nova/nova.conf",
    "NOVA_GROUP": "group of nova's account",
    "NODE": "id of the compute node's row",
    "NOVA_ACCOUNT": "account that nova-compute runs as: nova",
    "NOVA_NAME": "name that nova gives the domain",
    "OFPORT": "number of the tap's port in Open vSwitch",
    "ONCE": "name of the domain, if libvirt starts it once",
    "OF_PROJECT": "project of the account (project_name), from the command before",
    "OLD_BACKEND": "host@backend#pool that the volumes have now",
    "OPTION": "name of the option in nova.conf",
    "OTHER": "UUID of the other server",
    "OPENED": "TCP port on which QEMU listens",
    "OTHER_FLAVOR": "name of a flavor to resize to",
    "OTHER_PID": "process id of the other QEMU",
    "OWN_DEVICE": "name of the host's network device",
    "OWNED": "user and group: nova:nova",
    "OWNER": "id of the project or user that owns the server",
    "PATH": "path of the device or file",
    "PATCH": "name of the patch port",
    "PCI_ADDRESS": "address of the PCI device: 0000:3b:00.1",
    "PEER": "name of the other patch port of the pair",
    "PLUGGED_ATTACHMENT": "id of the attachment in cinder, if the guest has the volume",
    "PORT": "id of the port",
    "POLICED": "name of the interface in Open vSwitch",
    "PREFIXED": "IP address with the length of its prefix: 10.0.0.5/24",
    "PROJECT": "id of the project in keystone",
    "PROVIDER": "UUID of the resource provider",
    "QUESTION": "command whose answer is in doubt",
    "GLOBAL_QUOTA": "quota of the whole guest in microseconds per period",
    "QUOTA": "quota in microseconds per period",
    "RATIO": "allocation ratio: how many times each unit may be allocated",
    "RATIO_PROVIDER": "UUID of the resource provider, if its ratio was lowered in placement",
    "REDIRECTED": "UUID of the server, if nova and cinder name another share than its guest uses",
    "REATTACHED": "id of the volume, if its disk differs from the records",
    "RECONNECTED": "UUID of the server, if nova's connection of the volume is wrong",
    "REMOUNTED": "folder of the mount, if the file system itself is read-only",
    "RENAMED": "UUID of the resource provider, if its name is not the compute node's",
    "REPORTING": "name of the host whose nova-compute has to read its records again",
    "REPLUGGED": "UUID of the server, if nova created the port",
    "RECORDED": "id of the volume, if nova's record names another share than its guest uses",
    "REWRITTEN": "UUID of the server whose definition nova writes again",
    "RESUMED": "UUID of the server, if it is suspended",
    "RESCUED": "UUID of the server, if it is in rescue",
    "RESCUED_BEFORE": "UUID of the server, once its rescue is over",
    "RESOURCE": "resource class in placement: VCPU",
    "RESIZE_FOLDER": "path of the server's folder that ends in _resize",
    "RESIZED": "UUID of the server, if its resize waits to be confirmed",
    "REWIRING": "service of neutron's agent, if it can wire the tap again",
    "ROUTER": "id of the router",
    "ROW": "id of the row",
    "RUNNING_DOMAIN": "name of the domain, if it runs",
    "RUNNING_SERVER": "UUID of the server, if its guest runs",
    "SCOPE": "name of the systemd scope",
    "SAVE": "path of the file with the saved memory",
    "SECOND_ATTACHMENT": "id of the reserved attachment, if nova has another one of the volume",
    "SECRET": "UUID of the secret",
    "SERVER": "UUID of the server that should not have it, or does not exist",
    "SECTION": "name of the section in nova.conf: neutron, cinder, glance or placement",
    "SERVICE": "name of the systemd service",
    "SHAPED": "name of the tap device",
    "SHARE": "source of the share, from /etc/fstab or the volume's connection",
    "SHELVED": "UUID of the server, if it is shelved",
    "SHARE_FOLDER": "folder of the share, if it has to be mounted or uncovered",
    "SHELVED_IMAGE": "id of the image that the server was shelved to",
    "SHUTOFF_SERVER": "UUID of the server, if nova has it as stopped",
    "SIZE": "size in bytes",
    "SOFT_DELETED": "UUID of the server, if it is soft-deleted",
    "SOURCE": "name of the compute host that the server left",
    "SOCKET": "path of the daemon's socket",
    "SOCKET_FOLDER": "folder of the socket",
    "SNAPSHOT_FOLDER": "path of the temporary folder with the copy",
    "SNAPSHOT": "name of the snapshot, from `virsh snapshot-list`",
    "STALE": "name of the domain, if its disk is newer than its saved memory",
    "STRANDED": "UUID of the server, if nova can't end its rescue",
    "STARTED": "UUID of the server, if it is not suspended",
    "STATE": "status that cinder should have: in-use, available or error",
    "STOPPED": "process id, if a signal stopped the process",
    "STOPPED_SERVER": "UUID of each server, from the list before",
    "STORED": "target of the disk, if the next start has it too: vdb",
    "STATUS": "status of the migration: error or finished",
    "TABLE": "name of the table in nova's database",
    "TAP": "name of the tap device",
    "THAW": "word that ends the freeze: THAWED, or 0 for cgroup.freeze",
    "TARGET": "target of the disk: vda",
    "TYPE": "machine type",
    "UNBOUND_PORT": "id of the port, if it is not bound",
    "UNIT": "name of the daemon's systemd unit, from `systemctl list-units`",
    "UNITS": "names of the service and the sockets of the other daemon",
    "UNMOUNTED": "folder whose file system is not mounted",
    "UNNOTICED": "name of the domain, if nova has its server as active",
    "UNCONFIGURED": "UUID of the server, if only nova's record has its config drive",
    "UNRECORDED": "UUID of the server, if nova's record lacks its config drive",
    "UNMARKED": "name of the tap device, if Open vSwitch does not have its port's id",
    "UNNAMED": "UUID of the server, if nova's record does not name its shelve image",
    "UNRESCUED": "UUID of the server, if only nova has it in rescue",
    "UNWIRED": "name of the tap device, if neutron's agent has not wired it",
    "UNREQUESTED": "UUID of the server, if it has no request spec",
    "UNPLUGGED_SERVER": "UUID of the server, if the guest does not have the volume",
    "USER": "id of the user in keystone",
    "VALUE": "value of the column or property",
    "VLAN": "number of the VLAN on the integration bridge",
    "VOLUME": "id of the volume",
    "WANTED": "path of the folder that nova.conf names",
    "WIRING_AGENT": "id of the agent that wires the port",
    "WRONG": "name of the domain that must not run",
    "WRONG_PID": "process id of the QEMU that must not run, if libvirt has no domain of it",
    "WWID": "WWID of the multipath map",
    "HELD_VOLUME": "id of the volume, if cinder has its attachment to the server",
    "LOOSE_VOLUME": "id of the volume, if cinder has no attachment of it to the server",
    "MOVED": "UUID of the server, if the consumer is a move of it",
    "UNMOVED": "UUID of the consumer, if it is no move's",
    "UNZONED": "UUID of the server, if it is shelved and no host is in its zone",
    "ZONE": "name of the availability zone",
    "AMOUNT": "value of the limit; 0 or -1 for no limit",
    "CPU_LIMIT": "name of the limit in `virsh schedinfo`",
    "DISK_LIMIT": "name of the limit in `virsh blkdeviotune`: total-iops-sec",
    "MEMORY_LIMIT": "name of the limit in `virsh memtune`",
    "RESTARTED": "UUID of the server, if it has to be stopped and started",
    "WIDTH": "MTU of the network",
    "OUTDATED": "UUID of the server, if nova or its domain has another MTU",
    "UNCONFIRMED": "id of the migration that waits to be confirmed",
    "OFF_SERVER": "UUID of the server, if it is stopped or shelved",
    "PROPERTY": "name of the image's property",
    "IO_LIMIT": "name of the limit in `virsh blkiotune`: device-read-bytes-sec",
    "IO_WEIGHT": "weight of the guest's access to disks, 10 to 1000",
    "SOFT_LIMIT": "memory in KiB; -1 for no limit",
    "INSIDE": "name of the snapshot inside the disk's file, if the guest is off",
    "HOLDER": "path of the disk with snapshots inside its file",
    "LEFT_HOST": "name of the host in the binding that is left",
    "NOVA": "URL of nova, from `openstack catalog show compute`",
    "NEUTRON": "URL of neutron, from `openstack catalog show network`",
    "OLD_HOST": "name of the host whose service is left",
    "OLD_SERVICE": "UUID of the service, if its host is gone",
    "OLD_BASE": "path of the base image that the last start used",
    "RULE": "the rule as ovs-ofctl takes it: cookie=0x0/-1,table=0,priority=100,in_port=7",
    "TABLE_NUMBER": "number of the rule's table in Open vSwitch",
    "RUNS": "UUID of the server, if it runs",
    "SURPLUS": "id of the row that has no attachment in cinder",
    "MAPPED": "UUID of the server, if nova has one row for the volume",
    "TRACER": "process id of the debugger, if one stopped the process",
    "TRANSIENT_DOMAIN": "name of the domain, if the running guest has a transient disk",
    "IMAGE_FORMAT": "format of the image in glance: raw or qcow2",
}
"""Placeholder → what to put there."""

WORKED = "It worked if "
"""The beginning of the instruction that says how to see that a change worked."""

READ_ONLY = re.compile(
    r"(?!(?!SELECT ).* >)"  # writes a file; in SQL it compares
    r"(cat|df|du|findmnt|free|fuser -v|grep|head|hostname|journalctl|last|ls|lsattr|lsblk|lsof"
    r"|namei|printf|ps|readlink|cmp"
    r'|token=\$\(openstack token issue -f value -c id\)$|curl -s -H "X-Auth-Token: \$token" \S+$'
    r"|sha256sum|ss|stat|systemctl (status|show|is-active|list-units)|tail|tr|date --utc"
    r"|iscsiadm -m session|losetup --list|multipath -ll|sg_inq"
    r"|ip -d link show|ip link show|ip netns list|ip -brief address|ip -n \S+ (address|route)$"
    r"|ip netns exec \S+ (iptables-save -t nat|sysctl net\.ipv4\.ip_forward|cat /proc/net/udp)$"
    r"|ovs-vsctl (get|show|(--columns=\S+ )?list)|ovs-ofctl dump-flows|SELECT"
    r"|qemu-img (info|check -f \S+ \S+$)"
    r"|chronyc tracking|tc -s qdisc show"
    r"|virt-admin -c \S+ srv-clients-(info|list)"
    r"|virsh (capabilities|(backup|checkpoint|managedsave)-dumpxml|checkpoint-list|dumpxml|list"
    r"|dom(blkerror|blkinfo|blklist|blkstat|control|display|id|iflist|ifstat|info|jobinfo|memstat"
    r"|name|state|stats|uuid)|domif-getlink|domiftune \S+ \S+$"
    r"|memtune \S+$|nodeinfo|schedinfo \S+$|secret-list|snapshot-list|uri"
    r"|blkiotune \S+$|emulatorpin \S+$|vcpucount|vcpupin \S+$|version|blockjob \S+ \S+ --info)"
    r"|openstack [^|>;]*\b(list|show)\b|cinder --os-volume-api-version 3.27 attachment-list"
    r"|nova-manage (cell_v2 (list_cells|verify_instance)|image_property show"
    r"|libvirt get_machine_type"
    r"|placement audit --verbose|placement heal_allocations .*--dry-run|volume_attachment show))"
    r"(?!\S)"
)
"""Commands that change nothing."""

_WORD = re.compile(r"\b[A-Z][A-Z_]*[A-Z]\b")


@dataclass(frozen=True, slots=True)
class Command:
    """One command, ready to be copied into a shell."""

    text: str
    changes: bool
    """False if it only reads."""
    left: tuple[str, ...] = ()
    """Placeholders in it whose value the bundle does not hold: keys of `PLACEHOLDERS`."""


@dataclass(frozen=True, slots=True)
class Instruction:
    """A sentence that says what to do or to look for, and the commands for it."""

    prose: str
    commands: tuple[Command, ...] = ()


def instructions(finding: Finding) -> tuple[Instruction, ...]:
    """Return what to do about a finding, in order. The first instruction only reads."""
    values = _values(finding)
    guest = finding.guest
    absent = guest.uuid if guest is not None and not guest.is_novas else None
    found: list[Instruction] = []
    for paragraph in finding.check.sections.get("next", "").split("\n\n"):
        if paragraph.startswith(COMMANDS):
            lines = [line.strip() for line in paragraph.splitlines()]
            commands = tuple(command(line, values) for line in _applicable(lines, values, absent))
            prose = found.pop().prose if found and not found[-1].commands else ""
            if commands:
                found.append(Instruction(prose, commands))
        elif paragraph:
            found.append(Instruction(_prose(paragraph, values)))
    changes = any(command.changes for step in found for command in step.commands)
    # Where no change applies, there is nothing to see of it either.
    return tuple(step for step in found if changes or not step.prose.startswith(WORKED))


def _applicable(
    lines: Sequence[str], values: Mapping[str, str], absent: str | None
) -> Sequence[str]:
    """Return the commands that apply to a finding.

    A check gives an empty value for what this finding does not have: the new name of a file that
    was not renamed. Commands with that placeholder do not apply, nor do others of the same group if
    the group changes something. Neither does a command by which nova would change the server
    `absent`, which it does not have.
    """
    kept = [
        line
        for line in lines
        if all(values.get(name) != "" for name in _WORD.findall(line))
        and not (absent is not None and _changes_server(line, values, absent))
    ]
    changes = any(not READ_ONLY.match(line) for line in lines)
    return kept if not changes or len(kept) == len(lines) else ()


def _changes_server(written: str, values: Mapping[str, str], uuid: str) -> bool:
    """True if nova would change a server by this command: `openstack server start UUID`."""
    named = (values.get(name) for name in _WORD.findall(written))
    return written.startswith(OF_NOVA) and not READ_ONLY.match(written) and uuid in named


def warnings(finding: Finding) -> tuple[str, ...]:
    """Return what must not be done yet, in paragraphs of prose with commands in backticks."""
    values = _values(finding)
    paragraphs = finding.check.sections.get("not yet", "").split("\n\n")
    return tuple(_prose(paragraph, values) for paragraph in paragraphs if paragraph)


def forbidden(item: NotYet, guest: Guest | None) -> str:
    """Return a dangerous command with the guest's values filled in."""
    return command(item.danger.command, of_guest(guest)).text


def of_guest(guest: Guest | None) -> dict[str, str]:
    """Return the placeholders whose value follows from the guest: UUID, NAME, PID, HOST …"""
    if guest is None:
        return {}
    values = {"UUID": guest.uuid}
    if guest.domain_name is not None:
        values["NAME"] = guest.domain_name
    if guest.process is not None:
        values["PID"] = str(guest.process.pid)
    if guest.host is not None:
        values["HOST"] = guest.host.nova_name
        if tops := guest.host.images.tops:
            values["INSTANCES_PATH"] = tops[0]
    return values


def command(written: str, values: Mapping[str, str]) -> Command:
    """Fill values into a command: `virsh domstate NAME` becomes `virsh domstate instance-00000001`.

    A value is quoted for the shell. A value that starts with a dash (except after `=`), or that
    holds a quote and stands inside quotes, is not filled in: the command could do something else
    with it. Neither is one with a backtick, which would end the command in prose.
    """
    left: dict[str, None] = {}

    def fill(found: re.Match[str]) -> str:
        name = found[0]
        if name not in PLACEHOLDERS:
            return name
        value = values.get(name)
        inside = written.count("'", 0, found.start()) % 2 == 1
        inside = inside or written.count('"', 0, found.start()) % 2 == 1
        option = (value or "").startswith("-") and not written.endswith("=", 0, found.start())
        if not value or option or not value.isprintable() or "`" in value:
            left[name] = None
            return name
        quoted = shlex.quote(value)
        if inside and quoted != value:
            left[name] = None
            return name
        return quoted

    return Command(_WORD.sub(fill, written), not READ_ONLY.match(written), tuple(left))


def _values(finding: Finding) -> dict[str, str]:
    guest = finding.shared.guests[0] if finding.shared is not None else finding.guest
    return {**_of_host(finding), **_known(guest), **finding.names}


def _known(guest: Guest | None) -> dict[str, str]:
    try:
        return of_guest(guest)
    except Exception as error:  # a value that can't be read leaves its placeholder
        caught(error)
        return {}


def _of_host(finding: Finding) -> dict[str, str]:
    return {"HOST": finding.host} if finding.host is not None else {}


def _prose(paragraph: str, values: Mapping[str, str]) -> str:
    """Fill values into the commands in backticks; prose itself has no placeholders."""
    return "".join(
        f"`{command(part[1:-1], values).text}`" if part.startswith("`") else part
        for part in _spans(paragraph)
    )


def _spans(paragraph: str) -> Iterator[str]:
    yield from re.split(r"(`[^`]*`)", paragraph)
