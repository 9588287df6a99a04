"""Files in which libvirt keeps its definitions: does it have what it reads at its next start?"""

from __future__ import annotations

import re
from collections import Counter

from hoodsnap.check import Problems, check, problem
from hoodsnap.checks.traps import building, migrating, task_in_flight
from hoodsnap.evidence import Severity, derives, hears
from hoodsnap.facts.cloud.guest import Guest
from hoodsnap.facts.cloud.host import Host
from hoodsnap.facts.domain.domain import Domain
from hoodsnap.facts.fact import UnheardError, value_of
from hoodsnap.facts.host.definition_file import FOLDER
from hoodsnap.facts.layer import LIBVIRT
from hoodsnap.phrase import several
from hoodsnap.printable import cut

LONGEST = 40
"""Longest line of a definition in a headline, in characters."""

_PASSWORD = re.compile(r" (?:passwd|passwdValidTo)=(?:'[^']*'|\"[^\"]*\")")
"""Attributes that only the file has: libvirt shows them to nobody who may only read."""

OF_QEMU = re.compile(r"qemu(?:\+\w+)?://[^/]*/system")
"""Connections whose definitions are in `FOLDER`."""


@check(Severity.WARNING, traps=[building, task_in_flight, migrating])
def definition_file_differs(guest: Guest, host: Host, domain: Domain) -> Problems:
    """The file with the guest's definition is missing, or was edited since libvirt read it.

    libvirt reads its files in `/etc/libvirt/qemu` when it starts, and has the definitions in its
    memory afterwards. A file that somebody edited by hand, restored from a backup or removed takes
    effect at the next restart of libvirtd (an update, a restart of the host), when nobody thinks of
    it any more: then the guest starts with other devices, or libvirt no longer has the domain.

    Authority: libvirt, for what is defined; nova's database, for what should be.

    Traps: Only files that changed after libvirt's daemon started are compared, because it has read
    all others; a definition of an older libvirt may be written otherwise. Passwords are not
    compared. libvirt writes and deletes files during the collection, as nova does in a hard reboot:
    the files are listed at its beginning and its end, and only those that stayed are compared.

    Next: Compare the file with libvirt's definition, and check when it was changed:

        ls -l --full-time /etc/libvirt/qemu
        cat /etc/libvirt/qemu/NAME.xml
        virsh dumpxml --inactive NAME

    If nobody wants the change, let libvirt write the file again from its own definition, which
    changes nothing for the running guest:

        virsh dumpxml --inactive --security-info NAME >NEW
        virsh define NEW

    It worked if the file has libvirt's definition again:

        cat /etc/libvirt/qemu/NAME.xml
        virsh dumpxml --inactive NAME

    Not yet: Do not restart libvirtd or the host before the file is right.

    Source: libvirt src/conf/virdomainobjlist.c `virDomainObjListLoadAllConfigs`; the comment in
    front of each of these files.
    """
    if not domain.persistent or domain.name is None:
        return
    uri = value_of(host.hypervisor.answer("libvirt", "virsh uri"), "libvirt's URI", str)
    if OF_QEMU.fullmatch(uri) is None:
        return
    files, path = host.definition_files, f"{FOLDER}/{domain.name}.xml"
    if domain.name not in files.seen:
        yield problem(
            f"{guest.title}'s file {path} does not exist: libvirtd's next restart loses the domain",
            hears(files.answer, "files", path, exists=False),
            derives(domain, "inactive", name=domain.name),
        )
        return
    content = files.content(domain.name)
    defined = domain.said.get("inactive")
    if content is None or defined is None or domain.name not in files.lasting:
        return
    if not files.first.at < defined.at < files.answer.at:
        return
    text, answer = content
    own = _lines(text)
    theirs = _lines(value_of(defined, "virsh dumpxml --inactive", str))
    added, removed = [*(own - theirs)], [*(theirs - own)]
    if added or removed:
        shown = several([cut(line, LONGEST) for line in added or removed], 1)
        what = f"has {shown}" if added else f"lacks {shown}"
        yield problem(
            f"{guest.title}'s file {path} was edited since libvirt read it: it {what}",
            hears(answer, "file", path, lines=several(added, 3) or None),
            derives(domain, "inactive", lines=several(removed, 3) or None),
        )


def _lines(xml: str) -> Counter[str]:
    """Return the lines of a definition that count: without indentation and without passwords."""
    lines = (_PASSWORD.sub("", line.strip()) for line in xml.splitlines())
    return Counter(line for line in lines if line)


@check(Severity.WARNING)
def definition_file_left(host: Host) -> Problems:
    """libvirt's folder has the definition of a domain that libvirt does not have.

    At its next start libvirt defines this domain: a guest that was moved to another host or deleted
    is there again. nova does not know it, reports it as orphaned, or destroys it, and somebody may
    start it with disks that another guest uses. A file that was restored from a backup of `/etc`,
    or copied to keep it, is such a file.

    Authority: libvirt, for what is defined; nova, for what should be on the host.

    Traps: libvirt did not read a file that has an error, and reports the error in its log when it
    starts. libvirt writes and deletes files during the collection: only a file that was there at
    its beginning and its end, unchanged, is compared.

    Next: Check the file, and whether libvirt and nova know its domain:

        ls -l --full-time FILE
        cat FILE
        virsh list --all
        journalctl -u libvirtd -u virtqemud -n 50

    Then move the file out of libvirt's folder:

        mv FILE NEW

    It worked if the folder has only files of domains that libvirt lists:

        ls -l --full-time /etc/libvirt/qemu

    Not yet: Do not restart libvirtd or the host before the file is moved. Do not define the domain.

    Source: libvirt src/conf/virdomainobjlist.c `virDomainObjListLoadAllConfigs`.
    """
    files = host.definition_files
    uri = value_of(host.hypervisor.answer("libvirt", "virsh uri"), "libvirt's URI", str)
    if OF_QEMU.fullmatch(uri) is None:
        return
    # A domain may be defined or deleted between a list of the files and one of the domains.
    lists = [
        one
        for one in host.bundle.asked(LIBVIRT.id, LIBVIRT.census_query, host.name)
        if one.error is None and files.first.at < one.at < files.answer.at
    ]
    if not lists:
        raise UnheardError("libvirt's list of domains was not collected between two of the files")
    names = {
        row.get("name")
        for one in lists
        for row in value_of(one, "libvirt's list of domains", list[dict[str, object]])
    }
    census = lists[-1]
    for name, changed in files.lasting.items():
        if name not in names:
            path = f"{FOLDER}/{name}.xml"
            yield problem(
                f"{path} on {host.name} defines a domain that libvirt does not have: libvirtd's "
                "next restart brings it back",
                hears(files.answer, "files", path, modified=changed),
                hears(census, "libvirt", name, domain=None),
                FILE=path,
            )
