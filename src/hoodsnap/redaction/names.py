"""Collection of names that people chose, from the keys, columns, XML elements and queries that hold
them.

UUIDs, addresses and the like are recognized by their form (`identifier.py`); a name can only be
recognized by its place.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterator
from contextlib import suppress
from typing import Any
from urllib.parse import quote
from xml.sax.saxutils import escape

from hoodsnap.bundle import Answer
from hoodsnap.keep.secret import WITHHELD
from hoodsnap.keep.shape import words
from hoodsnap.redaction.commonplace import (
    AUTHORITIES,
    UNITS,
    is_common,
    is_last_label,
    is_standard_link,
    is_standard_network,
    is_system_account,
)
from hoodsnap.redaction.commonplace import COMMON as COMMON
from hoodsnap.redaction.identifier import FOUR, LOOKS, MAC, is_told

_HOSTS = words(
    "host node hypervisor_hostname source_compute dest_compute source_node dest_node dest_host"
    " launched_on host_name nodename OS-EXT-SRV-ATTR:host OS-EXT-SRV-ATTR:hypervisor_hostname"
    " os-vol-host-attr:host binding:host_id active_backend_id fqdn live_migration_inbound_addr"
    " server_proxyclient_address ignore_hosts force_hosts force_nodes hosts"
)
"""Keys and columns that hold host names, perhaps as `host@backend#pool`."""

_NAMES = words(
    "display_name display_description hostname OS-EXT-SRV-ATTR:hostname key_name"
    " availability_zone OS-EXT-AZ:availability_zone zone original_name volume_type cluster_name"
    " description disabled_reason locked_reason region region_id dns_name"
    " asset vg_name pool_lv lv_name pool images_rbd_pool images_volume_group"
    " default_availability_zone image_name server_group availability_zones"
    " availability_zone_hints"
)
"""Keys and columns that hold other names, in any layer."""

_NAMED = words(
    "servers server flavors flavor images image volumes volume snapshots snapshot ports port"
    " networks network subnets subnet routers router security_groups security_group aggregates"
    " server_groups server_group user project domain keypairs keypair nova_object.data"
    " cur old new"
)
"""Lists and objects whose `name` was chosen by a person."""

_NAMED_TABLES = ("instance_groups", "aggregates", "flavors", "instance_types")

_MAPS_OF_NAMES = words("addresses")
"""Objects whose keys are names."""

_ACCOUNTS = words("user group username user_name login rbd_user auth_username owner_name")
"""Keys that hold Unix accounts and groups; those that packages create are kept."""

_NETWORKS = words(
    "physical_network provider:physical_network bridge_name integration_bridge physnet"
    " hw_physnet segmentation_physnet"
)
_NETWORK_MAPS = words("bridge_mappings interface_mappings device_mappings")
"""Objects whose keys are physical networks, and whose values are bridges or devices."""

_SERIALS = words("serial wwn wwid uuid partuuid ptuuid vg_uuid pv_uuid lv_uuid asset asset_tag sku")
"""Keys that hold serial numbers in the layer of block devices."""
_NUMBERED = words("serial asset_tag wwn wwid multipath_id target_wwn")
"""Keys that hold serial numbers in any layer."""

FREE = words("description display_description disabled_reason locked_reason challenge")
"""Keys whose text is replaced as a whole, even if it is longer than a name."""

_LINK_KEYS = ("ifname", "master", "link")

_HOST_QUERIES = frozenset({"hostname", "hostname -f", "virsh hostname"})
_LISTS = ("virsh list --all", "virsh net-list")
_NOBODYS = ("GET /v2.0/extensions", "virsh capabilities")
"""Queries whose answers describe software, not a particular cloud."""

_IN_XML = re.compile(
    r"<nova:(?:name|user|project)\b[^<>]*+>([^<]+)<|<nova:flavor name=[\"']([^\"']+)[\"']"
    r"|<hostname>([^<]+)<|<(?:domain|network|pool|domainsnapshot)\b[^<>]*+>\s*+<name>([^<]+)<"
    r"|<title>([^<]+)<|<description>([^<]+)<|<entry name=['\"]hostname['\"]>([^<]+)<"
    r"|<entry name=['\"](?:asset|sku|serial)['\"]>([^<]+)<|<serial>([^<]+)<"
    r"|<source\b[^<>]{0,400}?\b(?:network|pool|portgroup|volume)=['\"]([^'\"]+)['\"]"
    r"|<source\b[^<>]{0,400}?\bprotocol=['\"]rbd['\"][^<>]{0,400}?\bname=['\"]([^'\"/]+)/"
    r"|<auth username=['\"]([^'\"]+)['\"]"
)
_BRIDGES = re.compile(r"<(?:source|bridge)\b[^<>]{0,400}?\b(?:bridge|name)=['\"]([^'\"]+)['\"]")

_HOME = re.compile(r"/home/([^/\s\"'\\,:;<>()\0]{1,64})")
_ACCOUNT = re.compile(
    r"(?<![A-Za-z0-9_-])(?:username|user|uname)=([^,\s\"'\\\0/@]{1,64})(?![^,\s])"
)
_IDS = re.compile(r"[0-9]\(([^()\s]{1,64})\)")
_SERIAL = re.compile(r"(?<![A-Za-z0-9_])(?:serial|asset|sku|wwn)=([^,\s\"'\0]{4,128})")
_LABEL = re.compile(r"(?<![A-Za-z0-9_])(?:PART)?LABEL=([^\s\"',\0]{1,64})")
_QUALIFIED = re.compile(
    r"\b[in]qn\.[0-9]{4}-[0-9]{2}\.([A-Za-z0-9-]{1,63}(?:\.[A-Za-z0-9-]{1,63}){0,9})"
    r"(?::([^\s\"'<>,;\0]{1,223}))?",
    re.IGNORECASE,
)
_SUBJECT = re.compile(
    r"(?<![A-Za-z0-9_-])(?:CN|OU|DC|O|L|ST|UID|emailAddress) ?= ?([^,/+\"'\n<>\\=]{2,64})"
)
_SOURCE = re.compile(
    r"(?:^|[ \t\"'])(?:([A-Za-z][A-Za-z0-9.-]{0,252}|[0-9.]{7,15}|\[[0-9A-Fa-f:]{2,45}\]):"
    r"|//([A-Za-z0-9.-]{1,253}))(/[^\s\"',]{1,1024})",
    re.MULTILINE,
)
"""Source of a network file system's mount."""
_MAPPER = re.compile(r"(?:/dev/mapper/|\bdm-name-)([A-Za-z0-9+_.:#-]{1,127})")
_RD_LV = re.compile(r"\brd\.lvm\.(?:lv|vg)=([A-Za-z0-9+_.-]{1,127})(?:/([A-Za-z0-9+_.-]{1,127}))?")
_IN_JSON = re.compile(r'\\{0,4}"(?:pool|vg_name)\\{0,4}" ?: ?\\{0,4}"([^"\\]{1,255})')
_MAIL = re.compile(
    r"(?<![A-Za-z0-9._%+-])([A-Za-z0-9._%+-]{1,64})@([A-Za-z0-9-]{1,63}(?:\.[A-Za-z0-9-]{1,63})+)"
)
_WWN = re.compile(
    r"(?<![0-9A-Za-z])(?:0x|3|naa\.|eui\.)?([0-9A-Fa-f]{16}(?:[0-9A-Fa-f]{16})?)(?![0-9A-Za-z])"
)
_WIDE = re.compile(
    r"(?<![0-9A-Za-z])(?:naa\.|eui\.|wwn-0x|3(?=[0-9A-Fa-f]{32}(?![0-9A-Za-z])))"
    r"([0-9A-Fa-f]{16}(?:[0-9A-Fa-f]{16})?)(?![0-9A-Za-z])"
)
"""World-wide name of a LUN, marked as such by its prefix."""
_LOGIN = re.compile(r"[^\W\d][\w.@\\-]{0,63}\$?")
"""Name of an account or group, perhaps with a domain."""
_LETTERS = re.compile(r"[^\W\d_]")
_NO_HEX = re.compile(r"[g-z]|[^\x00-\x7f]", re.IGNORECASE)

_URL_HOST = re.compile(r"(?<=[a-z0-9+])://(?:[^/@\s\"']*@)?([A-Za-z][A-Za-z0-9.-]*[A-Za-z0-9])[:/]")
_FOREIGN = re.compile(
    r"(^|\.)(openstack|libvirt|debian|ubuntu|launchpad|canonical|redhat|fedoraproject|qemu|w3|dmtf"
    r"|relaxng|centos|rockylinux|almalinux|kernel)\.(org|com|net)$"
)
"""Hosts on the Internet that appear in every bundle."""

_INSTANCE = re.compile(r"[A-Za-z_.]+-[0-9a-f]{8}(?:[._-](?:resize|del|rescue|shelved))*")
_NOVAS = ("instance-0", "AUTO: ")
"""Prefixes of names and reasons that nova itself sets and parses."""
_UUID = re.compile(r"[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}|\b[0-9a-f]{32}\b")
_ADDRESS = re.compile(r"[0-9.]+|(?=[0-9A-Fa-f]*+:[0-9A-Fa-f:])[0-9A-Fa-f:]++")

LONGEST = 255
"""Largest number of characters in a name. Longer texts are descriptions, which no other layer
repeats."""


class Identities:
    """The names in a bundle's answers."""

    def __init__(self) -> None:
        self.names: set[str] = set()
        self.hosts: set[str] = set()
        """Those of `names` that belong to hosts."""
        self.exports: set[str] = set()
        """NFS exports; nova mounts each in a folder named by the export's md5."""
        self.kept: set[str] = set()
        """Names that are kept, because they are common words or too short to be searched for."""
        self.volumes: set[tuple[str, str]] = set()
        """Pairs of a volume group and one of its logical volumes."""
        self.fours: set[str] = set()
        """IPv4 addresses."""
        self.macs: set[str] = set()
        """The last five bytes of MACs, as ten digits."""
        self.wwns: set[str] = set()
        """World-wide names of LUNs: 16 or 32 digits."""

    def add(self, answer: Answer) -> None:
        """Collect the names of one answer."""
        self._host(answer.host)
        value = answer.value
        for text in (answer.query, answer.subject, answer.error and answer.error.message):
            if text:
                self._everywhere(text)
        if answer.query.startswith(_NOBODYS):
            return
        if isinstance(value, str):
            self._printed(answer.query, value)
        if answer.layer == "hoodsnap" and isinstance(value, dict):
            self._name(value.get("challenge"))
        if answer.layer == "network" and isinstance(value, dict | list):
            self._links(answer.query, value)
        if answer.query in _HOST_QUERIES and isinstance(value, str):
            self._host(value)
        elif answer.query.startswith(_LISTS) and isinstance(value, list):
            self._lines(value)
        elif isinstance(value, dict) and isinstance(value.get("columns"), list):
            self._rows(answer.query, value["columns"], value.get("rows"))
        else:
            self._walk(value, "", answer.layer)

    def written(self, name: str) -> set[str]:
        """Return the spellings of a name in XML, in JSON, in JSON inside JSON, and in URLs."""
        as_json = json.dumps(name)[1:-1]
        return {
            name,
            escape(name),
            escape(name, {"'": "&apos;", '"': "&quot;"}),
            as_json,
            json.dumps(as_json)[1:-1],
            json.dumps(name, ensure_ascii=False)[1:-1],
            quote(name, errors="replace"),
            *_beyond_ascii(name),
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
            if isinstance(value.get("vg_name"), str) and isinstance(value.get("lv_name"), str):
                self.volumes.add((value["vg_name"], value["lv_name"]))
            for key, item in value.items():
                self._everywhere(key)
                if inside in _MAPS_OF_NAMES or (inside == "metadata" and is_distinctive(key)):
                    self._name(key)
                elif inside in _NETWORK_MAPS:
                    for name in (key, item):
                        if isinstance(name, str) and not is_standard_link(name):
                            self._name(name)
                self._item(key, item, inside, layer)
        elif isinstance(value, list):
            for item in value:
                self._walk(item, inside, layer)
        elif isinstance(value, str):
            self._text(value, inside, layer)

    def _item(self, key: str, item: Any, inside: str, layer: str) -> None:
        if key in _HOSTS:
            for host in item if isinstance(item, list) else [item]:
                self._host(host)
        elif key == "dns_domain" and isinstance(item, str):
            self._labels(item.strip("."))
        elif key in _NAMES and isinstance(item, list):
            for name in item:
                self._name(name)
        elif key in _NAMES or (key in ("name", "label") and inside in _NAMED):
            self._name(item)
        elif key == "name" and inside == "resource_providers":
            self._host(item)
        elif key in _ACCOUNTS:
            self._account(item)
        elif key in _NETWORKS:
            if isinstance(item, str) and not is_standard_network(item):
                self._name(item)
        elif layer == "block" and key in ("label", "partlabel"):
            self._name(item)
        elif key in _NUMBERED or (layer == "block" and key in _SERIALS):
            self._serial(item)
        elif key == "name" and layer == "block" and isinstance(item, str):
            self._mapper(item)
        elif key == "tags" and isinstance(item, list):
            for tag in item:
                self._name(tag)
        elif key == "export" and isinstance(item, str):
            self.exports.add(item)
            for one, other, path in _SOURCE.findall(item):
                self._host(one or other)
                self._components(path)
        if isinstance(item, dict | list | str):
            self._walk(item, key, layer)

    def _text(self, text: str, inside: str, layer: str) -> None:
        self._everywhere(text)
        if text[:1] in ("{", "[") and layer != "logs":
            with suppress(ValueError, RecursionError):  # the text is not JSON
                self._walk(json.loads(text), inside, layer)
        elif "<" in text and "</" in text:
            for found in _IN_XML.finditer(text):
                name = _unescaped(next(filter(None, found.groups())))
                if found[0].startswith(("<serial", "<entry")):
                    self._serial(name)
                else:
                    self._domain(name)
            for name in _BRIDGES.findall(text):
                if not is_standard_link(name):
                    self._name(name)
        if "://" in text:
            for host in _URL_HOST.findall(text):
                if not _FOREIGN.search(host):
                    self._host(host)

    def _host(self, name: object) -> None:
        """Collect a host name, alone or as `host@backend#pool`, with and without its domain."""
        if not isinstance(name, str):
            return
        name, *backend = re.split("[@#]", name.strip().removesuffix("."))
        for part in backend:
            self._name(part)
        short, _, domain = name.partition(".")
        if _ADDRESS.fullmatch(name) or name.startswith("["):
            return
        for part in (name, short, domain):
            if self._is_name(part):
                self.names.add(part)
                self.hosts.add(part)
        self._labels(domain)

    def _labels(self, domain: str) -> None:
        """Collect each label of a domain as a name; `com` and the like are kept."""
        labels = domain.split(".") if domain else []
        for at, label in enumerate(labels):
            if not (at == len(labels) - 1 and is_last_label(label)) and self._is_name(label):
                self.names.add(label)
                self.hosts.add(label)

    def _account(self, name: object) -> None:
        if isinstance(name, str) and _LOGIN.fullmatch(name) and not is_system_account(name):
            self._name(name)

    def _serial(self, text: object) -> None:
        """Collect a serial number, unless it is recognized by its form. It may be all digits."""
        if not isinstance(text, str) or not (text := text.strip()):
            return
        if found := _WWN.fullmatch(text):
            self.wwns.add(found[1].lower())
        elif not is_told(text):
            if len(text) >= 6 and re.fullmatch(r"[0-9. :_-]+", text):
                self.names.add(text)
            else:
                self._name(text)

    def _mapper(self, name: str) -> None:
        """Collect the parts of a device mapper name; a hyphen inside a part is doubled."""
        if "-" not in name or name.startswith(("dm-", "mpath")):
            return
        parts = [part.replace("\0", "-") for part in name.replace("--", "\0").split("-")]
        for part in parts if "--" in name or len(parts) == 2 else ():
            self._name(part)

    def _links(self, query: str, value: Any) -> None:
        """Collect names of the host's bridges and devices that an administrator chose."""
        names: list[object] = []
        if isinstance(value, dict) and isinstance(value.get("headings"), list):
            headings, rows = value["headings"], value.get("data")
            if "name" in headings and isinstance(rows, list):
                at = headings.index("name")
                names = [row[at] for row in rows if isinstance(row, list) and len(row) > at]
        elif isinstance(value, list):
            names = [row.get(key) for row in value if isinstance(row, dict) for key in _LINK_KEYS]
        for name in names:
            if isinstance(name, str) and not is_standard_link(name) and not LOOKS.search(name):
                self._name(name.removeprefix("int-").removeprefix("phy-"))

    def _printed(self, query: str, text: str) -> None:
        """Collect names in the output of some commands: accounts, mounts, owners of processes."""
        if query == "id" or query.startswith("id "):
            for name in _IDS.findall(text):
                self._account(name)
        if "mountinfo" in query or query.startswith(("mount", "/proc/mounts", "findmnt")):
            for one, other, path in _SOURCE.findall(text):
                self._host(one or other)
                self._components(path)
        first, _, rest = text.partition("\n")
        if "USER" in (heads := first.split()):
            at = heads.index("USER")
            for line in rest.splitlines():
                fields = line.split(maxsplit=at + 1)
                if len(fields) > at:
                    self._account(fields[at].removesuffix("+"))

    def _components(self, path: str) -> None:
        for part in path.split("/"):
            self._name(part)

    def _everywhere(self, text: str) -> None:
        """Collect names that any text may hold after a certain prefix: homes, serials, IQNs …"""
        if len(text) < 7:
            return
        if "." in text and text.count(".") >= 3:
            self.fours.update(re.findall(FOUR, text))
        if ":" in text or "-" in text:
            for mac in re.findall(MAC, text):
                if len(mac) == 17:
                    self.macs.add(re.sub("[^0-9a-f]", "", mac.lower())[2:])
        if "/home/" in text:
            for name in _HOME.findall(text):
                self._account(name)
        if "=" in text:
            self._assigned(text)
        if "qn." in text.lower():
            for authority, rest in _QUALIFIED.findall(text):
                self._qualified(authority, rest)
        if "@" in text:
            for local, domain in _MAIL.findall(text):
                if domain.rpartition(".")[2] not in UNITS:
                    self._account(local)
                    self._labels(domain)
        for name in _WIDE.findall(text):
            self.wwns.add(name.lower())
        if "mapper/" in text or "dm-name-" in text:
            for name in _MAPPER.findall(text):
                self._mapper(name)
        if '"pool' in text or '"vg_name' in text:
            for name in _IN_JSON.findall(text):
                self._name(name)

    def _assigned(self, text: str) -> None:
        if "user" in text or "uname" in text:
            for name in _ACCOUNT.findall(text):
                self._account(name)
        if "CN" in text:
            for name in _SUBJECT.findall(text):
                self._host(name.strip()) if "." in name else self._name(name.strip())
        for name in _SERIAL.findall(text):
            self._serial(name)
        if "LABEL=" in text:
            for name in _LABEL.findall(text):
                self._name(name)
        if "rd.lvm" in text:
            for group, volume in _RD_LV.findall(text):
                self._name(group)
                self._name(volume)

    def _qualified(self, authority: str, rest: str) -> None:
        """Collect the names in an IQN or NQN: its domain, and the parts after it."""
        known = AUTHORITIES.match(authority.lower())
        labels = authority[known.end() :].split(".") if known else authority.split(".")
        for label in labels:
            if label and not (label == labels[0] and is_last_label(label) and not known):
                self._name(label)
        if known and known[0] in ("org.openstack", "org.debian"):
            return
        for part in re.split("[:.]", rest):
            if part not in ("uuid", "sn", "01", "x8664") and not is_told(part):
                self._name(part)

    def _domain(self, name: object) -> None:
        """Collect a name, unless nova derived it from a row's id: such a name identifies nobody."""
        if isinstance(name, str) and not _INSTANCE.fullmatch(name):
            self._name(name)

    def _name(self, name: object) -> None:
        if not isinstance(name, str) or name.startswith(_NOVAS):
            return
        if is_told(name):  # it is replaced for its form
            return
        while name.endswith("-shelved"):  # nova appends this to the name of the server
            name = name.removesuffix("-shelved")
        if _UUID.search(name):  # the UUID is replaced for its form
            for part in _UUID.split(name):
                self._name(part.strip("-_. "))
        elif self._is_name(name):
            self.names.add(name)

    def _is_name(self, name: str) -> bool:
        """True if all occurrences of the text can be replaced without touching other words."""
        if not name or name == WITHHELD or _ADDRESS.fullmatch(name) or len(name) > LONGEST:
            return False
        if is_common(name) or len(name) < 2 or not _LETTERS.search(name):
            self.kept.add(name)
            return False
        return True


def is_distinctive(name: str) -> bool:
    """True if a name is also replaced inside longer words: it has at least seven characters, not
    only letters, and not only hexadecimal digits and hyphens."""
    return len(name) >= 7 and not name.isalpha() and _NO_HEX.search(name) is not None


def is_word(name: str) -> bool:
    """True if a name is also replaced next to `_` and digits, but not next to letters: it has at
    least four characters, all of them letters."""
    return len(name) >= 4 and name.isalpha() and name.isascii()


def _beyond_ascii(name: str) -> Iterator[str]:
    """Yield the spellings of a name with non-ASCII letters in logs, shells and Python."""
    if name.isascii():
        return
    for form in ("NFC", "NFD"):
        same = unicodedata.normalize(form, name)
        raw = same.encode(errors="replace")
        ways = (
            same,
            "".join(chr(byte) if byte < 128 else f"\\{byte:03o}" for byte in raw),
            "".join(chr(byte) if byte < 128 else f"\\x{byte:02x}" for byte in raw),
            raw.decode("latin-1"),
            ascii(same)[1:-1],
        )
        for way in ways:
            in_json = json.dumps(way)[1:-1]
            yield from (way, in_json, json.dumps(in_json)[1:-1])


def _unescaped(text: str) -> str:
    for written, plain in (("&lt;", "<"), ("&gt;", ">"), ("&quot;", '"'), ("&apos;", "'")):
        text = text.replace(written, plain)
    return text.replace("&amp;", "&")
