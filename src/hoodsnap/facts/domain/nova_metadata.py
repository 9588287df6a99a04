"""nova's metadata in a domain's XML, written for people."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple
from xml.etree.ElementTree import Element

from hoodsnap.facts.quantity import whole

NOVA = "http://openstack.org/xmlns/libvirt/nova/"


class NovaMetadata(NamedTuple):
    """One `<nova:instance>`, as of the time when the XML was generated."""

    package: str | None
    """Version of nova-compute."""
    name: str | None
    created: str | None
    """Time when the XML was generated: `2026-11-23 06:52:09`, UTC."""
    flavor: str | None
    memory_mib: int | None
    vcpus: int | None
    root_gb: int | None
    ephemeral_gb: int | None
    swap_mib: int | None
    user: str | None
    project: str | None
    root_image: str | None
    """UUID of the image; None if the server boots from a volume."""
    ports: tuple[str, ...]
    """UUIDs of the ports; empty before Ussuri, which does not note them."""
    addresses: tuple[str, ...]
    """Fixed IP addresses of the ports."""


def read_metadata(metadata: Iterable[Element]) -> NovaMetadata | None:
    """Read nova's part of a domain's `<metadata>`; None without one."""
    for element in metadata:
        for child in element:
            # The namespace prefix may vary, and pasted XML may lack its declaration.
            if child.tag == "nova:instance" or any(
                value.startswith(NOVA) for value in child.attrib.values()
            ):
                return _nova(child)
    return None


def _nova(element: Element) -> NovaMetadata:
    parts = _children(element)
    flavor, owner, root = parts.get("flavor"), _children(parts.get("owner")), parts.get("root")
    sold = _children(flavor)
    ports = parts.get("ports")
    return NovaMetadata(
        package=_attribute(parts.get("package"), "version"),
        name=_content(parts.get("name")),
        created=_content(parts.get("creationTime")),
        flavor=_attribute(flavor, "name"),
        memory_mib=whole(_content(sold.get("memory"))),
        vcpus=whole(_content(sold.get("vcpus"))),
        root_gb=whole(_content(sold.get("disk"))),
        ephemeral_gb=whole(_content(sold.get("ephemeral"))),
        swap_mib=whole(_content(sold.get("swap"))),
        user=_attribute(owner.get("user"), "uuid"),
        project=_attribute(owner.get("project"), "uuid"),
        root_image=_attribute(root, "uuid") if _attribute(root, "type") == "image" else None,
        ports=tuple(port.get("uuid", "") for port in (ports if ports is not None else ())),
        addresses=tuple(
            address
            for port in (ports if ports is not None else ())
            for ip in port
            if ip.get("type") == "fixed" and (address := ip.get("address"))
        ),
    )


def _children(element: Element | None) -> Mapping[str, Element]:
    """Return the children by name, without their namespace prefix."""
    return {
        child.tag.rpartition(":")[2]: child for child in (element if element is not None else ())
    }


def _attribute(element: Element | None, name: str) -> str | None:
    return None if element is None else element.get(name)


def _content(element: Element | None) -> str | None:
    return None if element is None else element.text
