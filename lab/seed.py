#!/usr/bin/python3
"""Fill the new cloud: `identity` (users, services, endpoints) and `resources` (everything else).

Run by up.sh with Debian's python3. Safe to run again: existing objects are left alone.
"""

import os
import sys
from pathlib import Path
from typing import Any

URLS = {
    # service: (type, endpoint)
    "glance": ("image", "http://127.0.0.1:9292"),
    "placement": ("placement", "http://127.0.0.1:8778"),
    "neutron": ("network", "http://127.0.0.1:9696"),
    "nova": ("compute", "http://127.0.0.1:8774/v2.1"),
    "cinder": ("volumev3", "http://127.0.0.1:8776/v3/%(project_id)s"),
}
FLAVORS = {
    # name: (RAM in MiB, vCPUs, disk in GiB, ephemeral disk in GiB, swap in MiB)
    "lab.tiny": (64, 1, 1, 0, 0),
    "lab.small": (128, 1, 2, 0, 0),
    "lab.duo": (128, 2, 1, 0, 0),
    "lab.extra": (64, 1, 1, 1, 64),
    "lab.vol": (64, 1, 0, 0, 0),
    "lab.linux": (96, 1, 1, 0, 0),
    "lab.huge": (4194304, 64, 10, 0, 0),  # larger than any host: its instance ends in error
}


def identity(cloud: Any, password: str) -> None:
    """Create projects, roles, users and the service catalog."""
    ident = cloud.identity
    domain = ident.find_domain("Default").id
    projects = {p.name: p for p in ident.projects()}
    for name in ("service", "lab"):
        projects[name] = projects.get(name) or ident.create_project(name=name, domain_id=domain)
    roles = {r.name: r for r in ident.roles()}
    for name in ("service", "member"):
        roles[name] = roles.get(name) or ident.create_role(name=name)
    users = {u.name: u for u in ident.users(domain_id=domain)}
    for name in (*URLS, "lab"):
        users[name] = users.get(name) or ident.create_user(
            name=name, password=password, domain_id=domain
        )
    grants = [("service", user, role) for user in URLS for role in ("admin", "service")]
    for project, user, role in [*grants, ("lab", "lab", "member"), ("lab", "admin", "admin")]:
        ident.assign_project_role_to_user(projects[project], users[user], roles[role])
    have = {s.type for s in ident.services()}
    for name, (kind, url) in URLS.items():
        if kind not in have:
            service = ident.create_service(name=name, type=kind)
            for interface in ("public", "internal", "admin"):
                ident.create_endpoint(
                    service_id=service.id, interface=interface, url=url, region_id="RegionOne"
                )


def compute(cloud: Any, state: Path) -> None:
    """Create the guests' images, flavors, quotas, a key pair and the volume type."""
    boot_sector = {"os_distro": "hoodlab", "hw_disk_bus": "virtio"}
    image(cloud, "lab-guest", state / "lab-guest.qcow2", "qcow2", "bare", boot_sector)
    linux = {
        "kernel_id": image(cloud, "lab-kernel", state / "lab-linux-kernel", "aki", "aki", {}),
        "ramdisk_id": image(cloud, "lab-initrd", state / "lab-linux-initrd", "ari", "ari", {}),
        "os_command_line": "console=ttyS0",
    }
    image(cloud, "lab-linux", state / "lab-linux.raw", "raw", "bare", linux)
    have = {f.name for f in cloud.compute.flavors(get_extra_specs=False)}
    for name, (ram, vcpus, disk, ephemeral, swap) in FLAVORS.items():
        if name not in have:
            cloud.compute.create_flavor(
                name=name, ram=ram, vcpus=vcpus, disk=disk, ephemeral=ephemeral, swap=swap
            )
    for project in (cloud.current_project_id, cloud.get_project("lab").id):
        # unlimited RAM, so that lab.huge fails in the scheduler and not in the quota
        cloud.set_compute_quotas(project, instances=100, cores=200, ram=-1)
    if not cloud.compute.find_keypair("lab-key"):
        cloud.compute.create_keypair(name="lab-key", public_key=new_key(state / "lab-key"))
    if not [t for t in cloud.volume.types() if t.name == "nfs"]:
        cloud.volume.create_type(name="nfs", extra_specs={"volume_backend_name": "nfs"})


def image(
    cloud: Any, name: str, path: Path, disk: str, container: str, properties: dict[str, str]
) -> str:
    """Return the UUID of an image; upload it if missing. `disk`, `container` are its formats."""
    found = cloud.image.find_image(name) or cloud.create_image(
        name,
        filename=str(path),
        disk_format=disk,
        container_format=container,
        wait=True,
        visibility="public",
        **properties,
    )
    return str(found.id)


def new_key(path: Path) -> str:
    """Write a private key to `path`; return the public key in nova's format."""
    from cryptography.hazmat.primitives import serialization as ser
    from cryptography.hazmat.primitives.asymmetric import ed25519

    key = ed25519.Ed25519PrivateKey.generate()
    path.touch(mode=0o600)
    path.write_bytes(
        key.private_bytes(ser.Encoding.PEM, ser.PrivateFormat.OpenSSH, ser.NoEncryption())
    )
    public = key.public_key().public_bytes(ser.Encoding.OpenSSH, ser.PublicFormat.OpenSSH)
    return public.decode() + " lab"


def networks(cloud: Any) -> None:
    """Create two tenant networks, an external one, a router, and a permissive security group."""
    net = cloud.network
    lab = net.find_network("lab-net") or net.create_network(name="lab-net", shared=True)
    subnet = net.find_subnet("lab-subnet") or net.create_subnet(
        name="lab-subnet",
        network_id=lab.id,
        ip_version=4,
        cidr="10.20.0.0/24",
        dns_nameservers=["127.0.0.1"],
    )
    lab2 = net.find_network("lab-net2") or net.create_network(name="lab-net2", shared=True)
    if not net.find_subnet("lab-subnet2"):
        net.create_subnet(
            name="lab-subnet2",
            network_id=lab2.id,
            ip_version=4,
            cidr="10.21.0.0/24",
            gateway_ip=None,
        )
    external = net.find_network("lab-ext") or net.create_network(
        name="lab-ext",
        is_router_external=True,
        provider_network_type="flat",
        provider_physical_network="physnet1",
    )
    if not net.find_subnet("lab-ext-subnet"):
        net.create_subnet(
            name="lab-ext-subnet",
            network_id=external.id,
            ip_version=4,
            cidr="172.24.4.0/24",
            gateway_ip="172.24.4.1",
            is_dhcp_enabled=False,
            allocation_pools=[{"start": "172.24.4.100", "end": "172.24.4.200"}],
        )
    if not net.find_router("lab-router"):
        router = net.create_router(
            name="lab-router", external_gateway_info={"network_id": external.id}
        )
        net.add_interface_to_router(router, subnet_id=subnet.id)
    groups = net.security_groups(project_id=cloud.current_project_id)
    group = next(g for g in groups if g.name == "default")
    have = {r.protocol for r in net.security_group_rules(security_group_id=group.id)}
    for protocol in {"icmp", "tcp"} - have:
        net.create_security_group_rule(
            security_group_id=group.id,
            direction="ingress",
            protocol=protocol,
            ether_type="IPv4",
        )


def main(what: str) -> None:
    """Create what is named: `identity` needs only keystone, `resources` needs every API."""
    import openstack

    cloud = openstack.connect(cloud="hoodlab")
    if what == "identity":
        identity(cloud, os.environ["LAB_PASS"])
    else:
        compute(cloud, Path(os.environ["LAB_STATE"]))
        networks(cloud)


if __name__ == "__main__":
    main(sys.argv[1])
