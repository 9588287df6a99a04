"""Names that identify nobody: words of the formats, system accounts, standard bridges, domains.

`redact` keeps them everywhere. docs/howto/share-a-bundle.md lists the kinds.
"""

from __future__ import annotations

import re

from hoodsnap.keep.shape import words

COMMON = words(
    # OpenStack's own terms
    "admin default internal public private external nova neutron cinder glance keystone placement"
    " service services demo member reader heat swift ironic compute controller network volume"
    " image images block storage api cell cell0 cell1 scheduler conductor console consoleauth"
    " agent metadata global local localhost localdomain localhost.localdomain openstacklocal"
    " RegionOne regionOne Default None none null true false True False N/A NULL"
    " novalocal openstack OpenStack hypervisor node host hosts server servers instance instances"
    " nova-compute nova-scheduler nova-conductor nova-api nova-novncproxy nova-consoleauth"
    " cinder-volume cinder-scheduler cinder-backup cinder-api neutron-server"
    " neutron-openvswitch-agent neutron-dhcp-agent neutron-l3-agent neutron-metadata-agent"
    " novncproxy osapi_volume osapi_compute power_state task_state vm_state instance_type"
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
    # more words of the formats: short words of command lines, and parts of other words
    " export exports share shares pool pools target targets portal session sessions lun luns"
    " volume-group vg lv pv rw ro ext4 xfs tmpfs mode path paths source sources reason message"
    " description create update delete action request response process processes thread task"
    " tasks interface interfaces switch openvswitch container resource resources provider"
    " providers inventory inventories usage usages allocation allocations trait traits generation"
    " availability zone zones migration migrations attachment mapping mappings connection"
    " available creating attaching detaching deleting building stopped suspended rescued resized"
    " shelved reserved maximum minimum virtual physical security_group hypervisors"
    " qemu-system-x86_64 qemu-system-x86 qemu-system libvirt-qemu virtio-net virtio-blk"
    " availability_zone"
)
"""Words that formats use and that identify nobody. They are kept even if they are a name."""

_FOLDED = frozenset(word.lower() for word in COMMON)


def is_common(name: str) -> bool:
    """True if this is a common word, in upper or lower case."""
    return name in COMMON or name.lower() in _FOLDED


_SYSTEM = words(
    "root daemon bin sys sync games man lp mail news uucp proxy www-data backup list irc gnats"
    " nobody nogroup _apt adm tty disk mem kmem dialout fax voice cdrom floppy tape sudo audio dip"
    " operator src shadow utmp video sasl plugdev staff users wheel input render sgx kvm qemu"
    " crontab messagebus dbus polkitd systemd-network systemd-resolve systemd-timesync systemd-oom"
    " systemd-journal systemd-coredump sshd ssh ntp chrony _chrony rpc _rpc rpcuser statd tss"
    " libvirt libvirt-qemu libvirt-dnsmasq libvirtdbus dnsmasq nova neutron cinder glance keystone"
    " placement heat swift ironic octavia barbican designate manila horizon openvswitch hugetlbfs"
    " ovn ceph ceph-mon mysql mariadb rabbitmq memcache memcached apache httpd nginx haproxy"
    " keepalived etcd epmd stack kolla docker podman lxd tcpdump unbound saned colord avahi"
    " postfix postdrop nfsnobody netdev scanner uuidd landscape fwupd-refresh syslog _ssh vsock"
    " ubuntu debian centos fedora rocky almalinux cirros alpine arch ec2-user cloud-user vagrant"
)
"""Accounts and groups that packages create."""

_SYSTEM_LOOKS = re.compile(r"systemd-[a-z-]+|_[a-z]+|[0-9]+|[a-z]+-(?:data|daemon)")


def is_system_account(name: str) -> bool:
    """True if a package creates this account or group, so that it identifies nobody."""
    return name in _SYSTEM or _SYSTEM_LOOKS.fullmatch(name) is not None


_LINK = re.compile(
    r"(?:lo|eth|eno|ens|enp|enx|wlan|wlp|bond|team|virbr|vnet|tap|qbr|qvb|qvo|qr-|qg-|ha-|sg-|fg-"
    r"|fpr-|rfp-|veth|vxlan|vlan|docker|ovs|dummy|tun|gre|erspan|ip6|sit|genev|int-br-|phy-br-"
    r"|patch|macvtap|ib|ifb|brq|nlmon|ip_vti|tunl|teql|wg|br)[0-9a-z@._-]{0,12}"
)
_STANDARD = words(
    "br-int br-ex br-tun br-provider br-vlan br-data br0 br1 int-br-ex phy-br-ex patch-tun"
    " patch-int int-br-tun phy-br-tun docker0 virbr0 ovs-system physnet physnet0 physnet1"
    " physnet2 physnet3 provider datacentre extern lo"
)


def is_standard_network(name: str) -> bool:
    """True if guides and installers use this name for a bridge or physical network."""
    return name in _STANDARD


def is_standard_link(name: str) -> bool:
    """True if this is a network device named by the kernel or a service."""
    if name.startswith(("br-", "int-br-", "phy-br-")):
        return name in _STANDARD
    return name in _STANDARD or _LINK.fullmatch(name) is not None


_LAST_LABELS = words(
    "com org net edu gov mil int arpa info biz name pro io cloud dev app local lan internal"
    " localdomain novalocal openstacklocal home corp intranet invalid localhost test site"
)


def is_last_label(label: str) -> bool:
    """True if this label is kept at the end of a domain: `com`, `de`, `local`."""
    return label.lower() in _LAST_LABELS or re.fullmatch("[A-Za-z]{2}", label) is not None


AUTHORITIES = re.compile(
    r"org\.(?:openstack|debian|linux-iscsi|nvmexpress|freenas|truenas)"
    r"|com\.(?:redhat|ubuntu|suse|microsoft|vmware|netapp|purestorage|emc|dell|hp|hpe|3pardata"
    r"|ibm|hitachi|huawei|nimblestorage|solidfire|synology|qnap|tintri|infinidat|ceph|citrix)"
)
"""Naming authorities in the names of iSCSI and NVMe devices: software and storage vendors."""

UNITS = words("service socket timer scope slice target mount automount device path swap")
"""Suffixes of systemd units, whose names may contain an @ like mail addresses."""
