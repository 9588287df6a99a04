"""Where a bundle holds names of somebody's choice: which keys, columns, elements, questions.

UUIDs, addresses and the like are told by their looks (`redact.py`); a name is only known from the
place where it stands.
"""

from __future__ import annotations

import json
import re
from contextlib import suppress
from typing import Any
from urllib.parse import quote
from xml.sax.saxutils import escape

from hoodsnap.bundle import Answer


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_HOSTS = _words(
    "host node hypervisor_hostname source_compute dest_compute source_node dest_node dest_host"
    " launched_on host_name nodename OS-EXT-SRV-ATTR:host OS-EXT-SRV-ATTR:hypervisor_hostname"
    " os-vol-host-attr:host binding:host_id active_backend_id"
)
"""Keys and columns of hosts, perhaps `host@backend#pool`."""

_NAMES = _words(
    "display_name display_description hostname OS-EXT-SRV-ATTR:hostname key_name"
    " availability_zone OS-EXT-AZ:availability_zone zone original_name volume_type cluster_name"
    " description disabled_reason locked_reason dns_domain region region_id"
)
"""Keys and columns of other names, wherever they stand."""

_NAMED = _words(
    "servers server flavors flavor images image volumes volume snapshots snapshot ports port"
    " networks network subnets subnet routers router security_groups security_group aggregates"
    " server_groups server_group user project domain keypairs keypair nova_object.data"
    " cur old new"
)
"""Lists and things whose `name` is of somebody's choice."""

_NAMED_TABLES = ("instance_groups", "aggregates", "flavors", "instance_types")

_MAPS_OF_NAMES = _words("addresses")
"""Objects whose keys are names."""

_BLOCK = _words("serial wwn")

_HOST_QUERIES = frozenset({"hostname", "hostname -f", "virsh hostname"})
_LISTS = ("virsh list --all", "virsh net-list")
_NOBODYS = ("GET /v2.0/extensions", "virsh capabilities")
"""Questions whose answers describe software, and nobody's cloud."""

_IN_XML = re.compile(
    r"<nova:(?:name|user|project)\b[^<>]*+>([^<]+)<|<nova:flavor name=[\"']([^\"']+)[\"']"
    r"|<hostname>([^<]+)<|<(?:domain|network|pool|domainsnapshot)\b[^<>]*+>\s*+<name>([^<]+)<"
    r"|<title>([^<]+)<|<description>([^<]+)<|<entry name=['\"]hostname['\"]>([^<]+)<"
)
_URL_HOST = re.compile(r"(?<=[a-z0-9+])://(?:[^/@\s\"']*@)?([A-Za-z][A-Za-z0-9.-]*[A-Za-z0-9])[:/]")
_FOREIGN = re.compile(
    r"(^|\.)(openstack|libvirt|debian|ubuntu|launchpad|canonical|redhat|fedoraproject|qemu|w3|dmtf"
    r"|relaxng|centos|rockylinux|almalinux|kernel)\.(org|com|net)$"
)
"""Hosts that everybody's bundles name."""

_INSTANCE = re.compile(r"[A-Za-z_.]+-[0-9a-f]{8}(?:[._-](?:resize|del|rescue|shelved))*")
_NOVAS = ("instance-0", "AUTO: ")
"""How names and reasons begin that nova gave, and reads."""
_UUID = re.compile(r"[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}|\b[0-9a-f]{32}\b")
_ADDRESS = re.compile(r"[0-9.]+|(?=[0-9A-Fa-f]*+:[0-9A-Fa-f:])[0-9A-Fa-f:]++")

LONGEST = 255
"""Characters of a name. What is longer is a description, of which no other layer has a copy."""

COMMON = _words(
    # what OpenStack calls its own things
    "admin default internal public private external nova neutron cinder glance keystone placement"
    " service services demo member reader heat swift ironic compute controller network volume"
    " image images block storage api cell cell0 cell1 scheduler conductor console consoleauth"
    " agent metadata global local localhost localdomain localhost.localdomain openstacklocal"
    " RegionOne regionOne Default None none null true false True False N/A NULL"
    " novalocal openstack OpenStack hypervisor node host hosts server servers instance instances"
    # words of the formats
    " disk disks root data swap ephemeral config config.drive name names id ids uuid type types"
    " status state states active ACTIVE running paused shutdown shutoff SHUTOFF error ERROR raw"
    " qcow2 file files driver drivers bus virtio ide scsi sata usb pci vda vdb vdc sda hda qemu"
    " kvm tcg pc q35 lvm nfs rbd ceph iscsi fc multipath loop tap bridge br-int br-ex br-tun ovs"
    " ovn linuxbridge vlan vxlan gre geneve flat eth0 lo enabled disabled up down on off yes no"
    " var lib run etc usr bin dev proc sys mnt opt srv tmp home log stack kolla docker"
    " libvirt libvirtd systemd kernel linux Linux Debian Ubuntu x86_64 aarch64 amd64 AMD Intel"
    " device devices port ports ip address addresses mac link links self bookmark version value"
    " key keys user users project projects domain domains tenant owner group groups size used"
    " total free memory memory_mb vcpus vcpu cpu cpus ram flavor flavors extra spec specs from"
    " From FROM SELECT WHERE AND OR IN to the and or of in is a an for with by as at not no"
    " SHOW TABLES COLUMNS table columns rows query get GET HEAD virsh list all info stat cat find"
    " test base _base snapshot backup volumes snapshots attachments new old time date"
    " fixed floating IPv4 IPv6 ingress egress tcp udp icmp arp drop accept monitor mon"
    " serial chardev netdev blockdev object machine smp smbios uefi bios boot rtc msg"
    " timestamp event return execute arguments result text json xml bytes format filename"
    " instance_uuid display_name hostname launched_at created_at updated_at deleted deleted_at"
)
"""Words that identify nobody, and that formats use. They stay even where they are a name."""


class Identities:
    """The names in a bundle's answers."""

    def __init__(self) -> None:
        self.names: set[str] = set()
        self.hosts: set[str] = set()
        """Those of `names` that are hosts'."""
        self.exports: set[str] = set()
        """NFS shares; nova mounts each in a folder called by its md5."""
        self.kept: set[str] = set()
        """Names that stay, being common words or too short to be found."""

    def add(self, answer: Answer) -> None:
        """Collect the names of one answer."""
        self._host(answer.host)
        value = answer.value
        if answer.query.startswith(_NOBODYS):
            return
        if answer.query in _HOST_QUERIES and isinstance(value, str):
            self._host(value)
        elif answer.query.startswith(_LISTS) and isinstance(value, list):
            self._lines(value)
        elif isinstance(value, dict) and isinstance(value.get("columns"), list):
            self._rows(answer.query, value["columns"], value.get("rows"))
        else:
            self._walk(value, "", answer.layer)

    def written(self, name: str) -> set[str]:
        """A name as XML, JSON, URLs and JSON in JSON write it."""
        as_json = json.dumps(name)[1:-1]
        return {
            name,
            escape(name),
            escape(name, {"'": "&apos;", '"': "&quot;"}),
            as_json,
            json.dumps(as_json)[1:-1],
            json.dumps(name, ensure_ascii=False)[1:-1],
            quote(name, errors="replace"),
        } - COMMON

    def _lines(self, lines: list[object]) -> None:
        for line in lines:
            if isinstance(line, dict):
                self._domain(line.get("name"))

    def _rows(self, query: str, columns: list[object], rows: object) -> None:
        named = query.startswith("SELECT") and any(
            f".{table} " in f"{query.replace('`', '')} " for table in _NAMED_TABLES
        )
        for row in rows if isinstance(rows, list) else ():
            for column, cell in zip(columns, row if isinstance(row, list) else (), strict=False):
                if named and column == "name":
                    self._name(cell)
                elif isinstance(column, str) and query.startswith("SELECT"):
                    self._item(column, cell, "", "nova-db")

    def _walk(self, value: Any, inside: str, layer: str) -> None:
        if isinstance(value, dict):
            for key, item in value.items():
                if inside in _MAPS_OF_NAMES:
                    self._name(key)
                self._item(key, item, inside, layer)
        elif isinstance(value, list):
            for item in value:
                self._walk(item, inside, layer)
        elif isinstance(value, str):
            self._text(value, inside, layer)

    def _item(self, key: str, item: Any, inside: str, layer: str) -> None:
        if key in _HOSTS:
            self._host(item)
        elif key in _NAMES or (key in ("name", "label") and inside in _NAMED):
            self._name(item)
        elif key == "name" and inside == "resource_providers":
            self._host(item)
        elif layer == "block" and key in _BLOCK:
            self._name(item)
        elif key == "tags" and isinstance(item, list):
            for tag in item:
                self._name(tag)
        elif key == "export" and isinstance(item, str):
            self.exports.add(item)
        if isinstance(item, dict | list | str):
            self._walk(item, key, layer)

    def _text(self, text: str, inside: str, layer: str) -> None:
        if text[:1] in ("{", "[") and layer != "logs":
            with suppress(ValueError, RecursionError):  # only what is JSON is looked into
                self._walk(json.loads(text), inside, layer)
        elif "<" in text and "</" in text:
            for found in _IN_XML.finditer(text):
                self._domain(_unescaped(next(filter(None, found.groups()))))
        if "://" in text:
            for host in _URL_HOST.findall(text):
                if not _FOREIGN.search(host):
                    self._host(host)

    def _host(self, name: object) -> None:
        """A host's name, alone or as `host@backend#pool`; with its domain, and without."""
        if not isinstance(name, str):
            return
        name = re.split("[@#]", name.strip())[0]
        short, _, domain = name.partition(".")
        if _ADDRESS.fullmatch(name) or name.startswith("["):
            return
        for part in (name, short, domain):
            if self._is_name(part):
                self.names.add(part)
                self.hosts.add(part)

    def _domain(self, name: object) -> None:
        """A name that nova may have made of a row's id, which stays: it says nothing."""
        if isinstance(name, str) and not _INSTANCE.fullmatch(name):
            self._name(name)

    def _name(self, name: object) -> None:
        if not isinstance(name, str) or name.startswith(_NOVAS):
            return
        while name.endswith("-shelved"):  # nova's addition to the name of the server
            name = name.removesuffix("-shelved")
        if _UUID.search(name):  # that is exchanged for itself
            for part in _UUID.split(name):
                self._name(part.strip("-_. "))
        elif self._is_name(name):
            self.names.add(name)

    def _is_name(self, name: str) -> bool:
        """Whether it can be looked for everywhere without touching what is no name."""
        if not name or name == "[withheld]" or _ADDRESS.fullmatch(name) or len(name) > LONGEST:
            return False
        if name in COMMON or len(name) < 2 or not re.search(r"[^\W\d_]", name):
            self.kept.add(name)
            return False
        return True


def _unescaped(text: str) -> str:
    for written, plain in (("&lt;", "<"), ("&gt;", ">"), ("&quot;", '"'), ("&apos;", "'")):
        text = text.replace(written, plain)
    return text.replace("&amp;", "&")
