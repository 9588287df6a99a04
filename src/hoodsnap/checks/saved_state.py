"""Saved memory and checkpoints of backups, which libvirt keeps beside a guest's definition."""

from __future__ import annotations

from typing import NamedTuple

from hoodsnap import phrase
from hoodsnap.bundle import Answer
from hoodsnap.check import Problems, check, problem
from hoodsnap.checks.traps import in_a_container, migrating, task_in_flight
from hoodsnap.evidence import Evidence, Severity, hears, says
from hoodsnap.facts.api.server import Server
from hoodsnap.facts.cloud.guest import Guest
from hoodsnap.facts.cloud.host import Host
from hoodsnap.facts.database.instance import Instance
from hoodsnap.facts.domain.domain import Domain
from hoodsnap.facts.domain.state import ON
from hoodsnap.facts.fact import known
from hoodsnap.keep.save_header import PARTIAL, SIZE

SAVES = "/var/lib/libvirt/qemu/save"
"""Folder in which libvirt's system daemon keeps the memory of saved domains."""


@check(Severity.ERROR, traps=[task_in_flight, migrating, in_a_container])
def saved_memory_missing(
    guest: Guest, host: Host, domain: Domain, record: Server | Instance
) -> Problems:
    """libvirt has saved memory for the guest, but the file with it does not exist.

    libvirt looks for the file when it starts and remembers the answer. If the file is removed or
    moved while libvirt runs, libvirt, and nova for a suspended server, still report saved memory.
    The next start boots the guest as after a power failure: programs and unwritten data are lost,
    and nothing says so.

    Authority: The file.

    Traps: In a container the same path leads to another file.

    Next: Look for the file, also on other file systems and in backups, and check what changed the
    folder:

        ls -l --full-time /var/lib/libvirt/qemu/save
        virsh domstate --reason NAME

    If the file is found, and the guest's disks were not written to since, move it back under its
    name before the next start (owner root, mode 0600). It worked if libvirt can read it:

        virsh managedsave-dumpxml NAME

    If the file is lost, tell the server's owner that the guest will boot as after a power failure.
    Then resume the server, which boots it:

        openstack server resume RESUMED

    If nova does not have the server as suspended, start it:

        openstack server start STARTED

    It worked if the domain runs:

        virsh domstate --reason NAME

    Not yet: Do not start or resume the server while the file may be found: the saved memory no
    longer matches the disks afterwards.

    Source: libvirt qemu_driver.c `qemuDomainManagedSavePath`, `qemuDomainObjStart`; nova
    virt/libvirt/driver.py `suspend`, `resume`.
    """
    if record.deleted or not domain.managed_save or domain.state in ON:
        return
    path, answer = save_of(domain), lost_save(host, domain)
    if answer is None:
        return
    suspended = record.vm_state == "suspended"
    yield problem(
        f"{guest.title} is {domain.state_words} with saved memory in libvirt, but {path} does not "
        "exist",
        says(record, vm_state=record.vm_state),
        says(domain, state=domain.state_words, managed_save=True),
        hears(answer, "images", path, file=None),
        RESUMED=guest.uuid if suspended else "",
        STARTED="" if suspended else guest.uuid,
    )


def save_of(domain: Domain) -> str:
    """Return the path of the file in which libvirt keeps the saved memory of a domain."""
    return f"{SAVES}/{domain.name}.save"


def lost_save(host: Host, domain: Domain) -> Answer | None:
    """Return the answer that the file with a domain's saved memory does not exist; None if it does,
    or if that was not collected. In a container, the file may be out of sight.
    """
    path = save_of(domain)
    if host.images.entry(path) is not None:
        return None
    return host.hypervisor.answer("images", f"stat -L {path}")


@check(Severity.ERROR, traps=[task_in_flight, migrating, in_a_container])
def saved_memory_damaged(
    guest: Guest, host: Host, domain: Domain, record: Server | Instance
) -> Problems:
    """The file with the guest's saved memory is damaged, so the guest can't be restored.

    Only the guest's memory is lost: running programs, and data that the guest had not written. Its
    disks are as after a power failure. If the file is shorter than libvirt's header, or was never
    finished, libvirt removes it at the next start and boots the guest, and nothing reports that.
    Otherwise the start fails; nova then sets the server in error, and removes the domain and the
    file. Usual causes: the file system was full, the file was truncated to make space, the host
    lost power while it was written.

    Authority: The file: its size, and libvirt's header.

    Traps: A file that lost only its end may still be as long as the least that a guest of this size
    needs; only QEMU notices that. Compressed memory may have any length. In a container the same
    path leads to another file.

    Next: Check the file, the space on its file system, and what wrote to it:

        ls -l --full-time SAVE
        df -h /var/lib/libvirt/qemu/save
        virsh managedsave-dumpxml NAME

    Copy the file away first, because the next start may remove it:

        cp -a SAVE COPY

    If a backup has the whole file, and the guest's disks were not written to since, put it back
    under its name (owner root, mode 0600). It worked if libvirt can read it:

        virsh managedsave-dumpxml NAME

    If no whole file exists, tell the server's owner that the guest will boot as after a power
    failure, and remove the managed save:

        virsh managedsave-remove NAME

    Then resume the server, which boots it from its disk:

        openstack server resume RESUMED

    If nova does not have the server as suspended, start it:

        openstack server start STARTED

    It worked if the domain runs:

        virsh domstate --reason NAME

    Not yet: Do not start, resume or hard-reboot the server, and do not remove the managed save,
    before the file was copied. Do not rebuild or delete the server: its disks are intact.

    Source: libvirt qemu_saveimage.c `qemuSaveImageOpen`, qemu_driver.c `qemuDomainObjStart`; nova
    virt/libvirt/driver.py `resume`.
    """
    if record.deleted or not domain.managed_save or domain.state in ON:
        return
    found = damage(host, domain)
    if found is None:
        return
    suspended = record.vm_state == "suspended"
    yield problem(
        f"{guest.title}'s saved memory {found.words}, so {found.effect}",
        says(record, vm_state=record.vm_state),
        says(domain, state=domain.state_words, managed_save=True),
        found.evidence,
        SAVE=save_of(domain),
        RESUMED=guest.uuid if suspended else "",
        STARTED="" if suspended else guest.uuid,
    )


class Damage(NamedTuple):
    """What is wrong with a file that holds saved memory."""

    words: str
    """A predicate whose subject is the file: `is empty`."""
    effect: str
    """What the next start does: a clause."""
    evidence: Evidence


BOOTS = "libvirt removes it at the next start and boots the guest"
FAILS = "the next start fails, and nova then removes it"


def damage(host: Host, domain: Domain) -> Damage | None:
    """Return what is wrong with the file that holds a domain's saved memory.

    None if the file is good, does not exist or was not collected. Of its content only the header is
    known.
    """
    path = save_of(domain)
    entry = known(lambda: host.images.entry(path))
    look = host.hypervisor.answer("images", f"stat -L {path}")
    if entry is None or look is None:
        return None
    size = entry.size
    if size < SIZE:
        words = f"has {size} of the {SIZE} bytes of libvirt's header" if size else "is empty"
        return Damage(words, BOOTS, hears(look, "images", path, size=size))
    header = host.images.save_header(path)
    if header is None:
        return None
    found, answer = header
    if found.read < SIZE:  # it was replaced between the two questions
        return None
    if found.magic is None:
        words = "does not begin with libvirt's header"
        return Damage(words, FAILS, hears(answer, "images", path, magic=None))
    if found.magic == PARTIAL:
        words = "was not written to its end"
        return Damage(words, BOOTS, hears(answer, "images", path, magic=found.magic))
    least = SIZE + (found.data_len or 0)
    seen = hears(look, "images", path, size=size)
    if size < least:
        return Damage(f"has {size} bytes, but its header announces {least}", FAILS, seen)
    memory = known(lambda: domain.inactive.memory_kib) or 0
    # QEMU writes 9 bytes for each page of 4 KiB, even an empty one: more than a byte for each KiB.
    if found.compressed == 0 and size < least + memory:
        words = f"has {phrase.size(size)}, too few for a guest with {phrase.size(memory << 10)}"
        return Damage(words, FAILS, seen)
    return None


@check(Severity.WARNING, traps=[task_in_flight, migrating])
def backup_checkpoint_left(guest: Guest, record: Server | Instance, domain: Domain) -> Problems:
    """The domain has checkpoints of a backup tool, with which nova can't remove it.

    Tools for incremental backups create a checkpoint in libvirt for each backup. libvirt refuses to
    undefine a domain with checkpoints, and nova does not ask it to drop them. So deleting,
    resizing, cold-migrating, hard-rebooting, shelving or rescuing the server fails half-way: the
    guest is destroyed, then the server goes into error.

    Authority: libvirt.

    Traps: While the backup tool is in use, its newest checkpoint is needed for the next backup. It
    has to be removed only before such an operation.

    Next: List the checkpoints, and ask which tool uses them:

        virsh checkpoint-list NAME
        virsh checkpoint-dumpxml NAME CHECKPOINT

    Then, before nova has to remove the domain, or if no tool uses them, let the tool remove them,
    or make libvirt forget each one. The disks stay as they are; the next backup is a full one:

        virsh checkpoint-delete NAME CHECKPOINT --metadata

    It worked if the list is empty:

        virsh checkpoint-list NAME

    Not yet: Do not delete, resize, cold-migrate, hard-reboot, shelve or rescue the server.

    Source: libvirt qemu_driver.c `qemuDomainUndefineFlags`; nova virt/libvirt/guest.py
    `delete_configuration`.
    """
    if not guest.is_here or record.deleted or not domain.checkpoints:
        return
    names = domain.checkpoints
    yield problem(
        f"{guest.title} has checkpoints of a backup, with which nova can't remove its domain: "
        f"{phrase.several(names)}",
        says(record, vm_state=record.vm_state),
        says(domain, state=domain.state_words, checkpoints=", ".join(names)),
        CHECKPOINT=names[0],
    )
