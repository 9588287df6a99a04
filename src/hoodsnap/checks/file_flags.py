"""Flags of files that forbid changes to everyone, root included: `chattr +i` and `chattr +a`."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

from hoodsnap import phrase
from hoodsnap.check import Problems, check, problem
from hoodsnap.checks.saved_state import save_of
from hoodsnap.evidence import Evidence, Severity, hears
from hoodsnap.facts.cloud.guest import Guest
from hoodsnap.facts.cloud.host import Host
from hoodsnap.facts.domain.domain import Domain
from hoodsnap.facts.fact import UnheardError, known
from hoodsnap.facts.host.instances_directory import FOLDER, FolderEntry, is_base


@check(Severity.ERROR)
def guest_file_immutable(guest: Guest, host: Host, domain: Domain | None) -> Problems:
    """A file of the guest is immutable or append-only, so QEMU, libvirt or nova can't change it.

    With `chattr +i` or `chattr +a`, the kernel refuses changes to everyone, root included: QEMU
    can't open the disk, libvirt can't replace the console log, nova can't remove the folder. The
    error is "Operation not permitted", although owner and mode are right. A start or hard reboot
    fails after nova has removed the domain. A running guest has its disk open: on ext4, each write
    to an immutable disk fails at once, and the guest gets I/O errors; other file systems, and
    append-only disks, go on until the next start. Causes: an administrator or a hardening script
    that protects files, a restored backup, an intruder.

    Authority: The kernel.

    Traps: Network file systems do not report flags: nothing is known there. A flag may protect a
    disk on purpose, for example while an incident is investigated.

    Next: Check the flags, and who set them. The change time of the file (ctime) is not older than
    the flag:

        lsattr -d PATH
        stat PATH
        grep chattr /root/.bash_history /var/log/auth.log

    If nobody needs the flag, clear it:

        chattr -ia PATH

    If more files in the guest's folder have a flag, clear it from all of them:

        chattr -R -ia FOLDER

    If a start had failed, start the server again:

        openstack server start STARTED

    It worked if no file shows the letter i or a:

        lsattr -d PATH

    Not yet: Do not start, hard-reboot, migrate, resize or delete the server: each of these fails
    half-way. Do not change owner or mode: they are not the cause. Do not copy the disk to get
    around the flag: the guest would continue on another file than nova has.

    Source: chattr(1); Linux fs/namei.c `may_open`, `may_delete`, fs/ext4/file.c
    `ext4_write_checks`.
    """
    if not host.images.tops:
        raise UnheardError("the instances directory was not collected")
    if not host.images.flagged:
        return
    record = guest.record
    is_off = not guest.runs and record is not None and not record.deleted
    # A start that fails leaves no domain behind.
    failed = is_off and domain is None and guest.is_here
    written = set(_written(host, domain)) if domain is not None else set()
    for folder, entries in _of_guest(guest, host, domain):
        if is_off and any(_is_needed(entry, guest, written) for entry in entries):
            severity, what = None, f"{guest.title} can't be started: its"
        elif any(entry.immutable and entry.path in written for entry in entries):
            severity, what = None, f"{guest.title} may not write to its disk:"
        else:
            severity, what = Severity.WARNING, f"{guest.title}'s"
        yield problem(
            f"{what} {_named(entries)}",
            *(_seen(host, entry) for entry in entries[:SHOWN]),
            severity=severity,
            PATH=entries[0].path,
            FOLDER=folder if len(entries) > 1 else "",
            STARTED=guest.uuid if failed else "",
        )


SHOWN = 3
"""Files that a finding names."""


def _of_guest(
    guest: Guest, host: Host, domain: Domain | None
) -> Iterator[tuple[str, list[FolderEntry]]]:
    """Yield each of the guest's folders and its flagged files, then each other flagged file."""
    flagged = host.images.flagged
    found: set[str] = set()
    for folder in host.images.folders.get(guest.uuid, ()):
        inside = [path for path in sorted(flagged) if f"{path}/".startswith(f"{folder.path}/")]
        if inside:
            found.update(inside)
            yield folder.path, [flagged[path] for path in inside]
    # A start restores saved memory from a flagged file, but libvirt can't remove it afterwards.
    others = (*_written(host, domain), save_of(domain)) if domain is not None else ()
    for path in dict.fromkeys(others):
        if path in flagged and path not in found:
            yield "", [flagged[path]]


def _written(host: Host, domain: Domain) -> Iterator[str]:
    """Yield the paths of the files that QEMU opens for writing for a domain."""
    for disk in known(lambda: domain.definition.disks) or ():
        if disk.image.type == "file" and disk.source is not None and not disk.read_only:
            yield host.images.listed_path(disk.source)
    firmware = known(lambda: domain.definition.firmware)
    if firmware is not None and firmware.nvram is not None:
        yield firmware.nvram


def _is_needed(entry: FolderEntry, guest: Guest, written: Collection[str]) -> bool:
    """True if a start changes this file of the guest: a disk, the console log, or their folder."""
    if entry.path in written or entry.path.endswith(f"/{guest.uuid}"):
        return True
    folder, _, name = entry.path.rpartition("/")
    is_own = folder.endswith(f"/{guest.uuid}") and name != "disk.info"
    return is_own and name.startswith(("disk", "console.log"))


def _named(entries: Sequence[FolderEntry]) -> str:
    """Return the files and their flags: `…/3970aa18/disk is immutable (chattr +i)`."""
    names = phrase.several((phrase.place(entry.path) for entry in entries), SHOWN)
    flags = dict.fromkeys(IMMUTABLE if entry.immutable else APPEND_ONLY for entry in entries)
    return f"{names} {'is' if len(entries) == 1 else 'are'} {' or '.join(flags)}"


IMMUTABLE, APPEND_ONLY = "immutable (chattr +i)", "append-only (chattr +a)"


def _seen(host: Host, entry: FolderEntry) -> Evidence:
    answer = host.hypervisor.answer("images", f"stat -L {entry.path}") or host.listing
    said = {"immutable": True} if entry.immutable else {"append_only": True}
    return hears(answer, "images", entry.path, path=entry.path, **said)


@check(Severity.WARNING)
def nova_file_immutable(host: Host) -> Problems:
    """A folder or file that nova shares among servers is immutable or append-only.

    With `chattr +i` or `chattr +a`, the kernel refuses changes to everyone, root included, with
    "Operation not permitted", although owner and mode are right. If it is the instances directory,
    nova can't build, move or delete any server here; if it is `_base`, no server with another image
    can be built; if it is `locks`, nova can't lock an image that it has not used before. A base
    image is only read by guests, which start and run with it; nova just can't note its use or
    remove it, and logs an error each time (a note).

    Authority: The kernel.

    Traps: Network file systems do not report flags: nothing is known there. Some administrators
    protect base images on purpose.

    Next: Check the flags, and who set them:

        lsattr -d PATH
        stat PATH
        grep chattr /root/.bash_history /var/log/auth.log

    If nobody needs the flag, clear it. Running guests notice nothing:

        chattr -ia PATH

    It worked if the letters i and a are not shown:

        lsattr -d PATH

    Not yet: If it is a folder, do not build, resize, migrate or delete servers on this host before.
    Do not change owner or mode, and do not run `chattr -R` on the instances directory:
    guest-file-immutable reports the flags of a server's own files.

    Source: chattr(1); Linux fs/namei.c `may_create`, `may_delete`; nova
    virt/libvirt/imagecache.py; oslo.concurrency lockutils `external_lock`.
    """
    if not host.images.tops:
        raise UnheardError("the instances directory was not collected")
    for path, entry in sorted(host.images.flagged.items()):
        top = next((one for one in host.images.tops if f"{path}/".startswith(f"{one}/")), None)
        if top is None or FOLDER.fullmatch(path.removeprefix(top).strip("/").partition("/")[0]):
            continue  # a file of one guest, or none of nova's
        is_image = entry.type == "f" and is_base(path)
        kind = "Base image" if is_image else f"nova's {'folder' if entry.type == 'd' else 'file'}"
        yield problem(
            f"{kind} {_named([entry])} on {host.name}",
            _seen(host, entry),
            severity=Severity.NOTE if is_image else Severity.ERROR if path == top else None,
            PATH=path,
        )
