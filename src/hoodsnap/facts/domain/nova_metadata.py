"""What nova writes into a domain's XML, for people."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple
from xml.etree.ElementTree import Element

from hoodsnap.facts.quantity import whole

NOVA = "http://openstack.org/xmlns/libvirt/nova/"


class NovaMetadata(NamedTuple):
    """One `<nova:instance>`. It is as old as the XML is."""

    package: str | None
    """The version of nova-compute."""
    name: str | None
    created: str | None
    """When the XML was made: `2026-11-23 06:52:09`, UTC."""
    flavor: str | None
    memory_mib: int | None
    vcpus: int | None
    ephemeral_gb: int | None
    swap_mib: int | None
    project: str | None
    root_image: str | None
    """UUID of the image; None when it boots from a volume."""
    ports: tuple[str, ...]
    """UUIDs."""


def read_metadata(metadata: Iterable[Element]) -> NovaMetadata | None:
    """Of the `<metadata>` of a domain; None if nova did not write any."""
    for element in metadata:
        for child in element:
            # A prefix is anybody's choice, and a paste may have lost its declaration.
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
        ephemeral_gb=whole(_content(sold.get("ephemeral"))),
        swap_mib=whole(_content(sold.get("swap"))),
        project=_attribute(owner.get("project"), "uuid"),
        root_image=_attribute(root, "uuid") if _attribute(root, "type") == "image" else None,
        ports=tuple(port.get("uuid", "") for port in (ports if ports is not None else ())),
    )


def _children(element: Element | None) -> Mapping[str, Element]:
    """The children by name, without the prefix of their namespace."""
    return {
        child.tag.rpartition(":")[2]: child for child in (element if element is not None else ())
    }


def _attribute(element: Element | None, name: str) -> str | None:
    return None if element is None else element.get(name)


def _content(element: Element | None) -> str | None:
    return None if element is None else element.text
