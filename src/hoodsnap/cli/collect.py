"""hoodsnap collect: ask this host, write one file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hoodsnap.bundle import Bundle
from hoodsnap.cli.bundles import must_be_writable, rescued, speaks
from hoodsnap.cli.interruption import Interruption
from hoodsnap.cli.terminal import INTERRUPTED, USAGE, give_up, say, shown

if TYPE_CHECKING:
    from hoodsnap.collect.visit import Wishes


OutputOption = Annotated[
    Path | None,
    typer.Option(
        "--output",
        "-o",
        help="Where to write (.gz and .zst compress; - for standard output).",
        show_default="hoodsnap-HOST-TIME.json.gz",
    ),
]


AllHostsOption = Annotated[
    bool, typer.Option("--all-hosts", help="nova's records of every host, not only of this one.")
]


CloudOption = Annotated[
    str | None,
    typer.Option("--os-cloud", help="An entry of clouds.yaml.", show_default="OS_CLOUD, else OS_*"),
]


DatabaseOption = Annotated[
    str | None,
    typer.Option(
        "--db-url",
        help="nova's database, as nova.conf would name it.",
        show_default="nova.conf's, else the local socket as root",
    ),
]


LibvirtOption = Annotated[
    str | None,
    typer.Option(
        "--libvirt-uri",
        help="Which libvirt to ask.",
        show_default="nova.conf's if it is local, else qemu:///system",
    ),
]


QmpOption = Annotated[
    bool,
    typer.Option(
        "--qmp",
        help="Ask QEMU's monitors too (query-* only). Off by default, because libvirt marks every "
        "domain that is asked as tainted (custom-monitor) in its log and in `virsh dominfo` "
        "until its next start. A guest with a network disk is not asked about its disks: that "
        "could stop it.",
    ),
]


DaysOption = Annotated[int, typer.Option("--days", min=0, help="How far back actions are read.")]


SignOption = Annotated[
    Path | None,
    typer.Option(
        "--sign",
        metavar="KEY",
        help="Sign the bundle with this OpenSSH key; a public one is looked for in the agent.",
    ),
]


ChallengeOption = Annotated[
    str | None,
    typer.Option("--challenge", help="A text that somebody chose, put into the bundle."),
]


def collect(
    output: OutputOption = None,
    all_hosts: AllHostsOption = False,
    os_cloud: CloudOption = None,
    db_url: DatabaseOption = None,
    libvirt_uri: LibvirtOption = None,
    qmp: QmpOption = False,
    days: DaysOption = 7,
    sign: SignOption = None,
    challenge: ChallengeOption = None,
) -> None:
    """Ask every layer of this host, changing nothing, and write the answers to one file.

    A text that looks like a secret (a server's name, say) is withheld; its place is on stderr.
    """
    from hoodsnap.collect.visit import Wishes

    _check_key(sign)
    must_be_writable(output or Path("hoodsnap.json.gz"), [] if sign is None else [sign])
    wishes = Wishes(all_hosts, os_cloud, db_url, libvirt_uri, qmp, days, challenge)
    with Interruption() as interruption:
        bundle, interrupted = collected(wishes, interruption)
        bundle = without_leaks(bundle)
        path = output or default_name(bundle)
        if sign is not None:
            bundle = _signed(bundle, sign, path)
        rescued(bundle, path)
    if interrupted:
        give_up("interrupted: the bundle has what was heard until then", INTERRUPTED)
    if not speaks(bundle):
        give_up("no layer answered")


def _check_key(key: Path | None) -> None:
    """Better before an hour's collecting than after."""
    if key is None:
        return
    from hoodsnap.trust.signature import SshKeygenError, require_ssh_keygen

    if not key.is_file():
        give_up(f"{key} can't be signed with: there is no such file", USAGE)
    try:
        require_ssh_keygen()
    except SshKeygenError as reason:
        give_up(f"the bundle can't be signed: {reason}")


def _signed(bundle: Bundle, key: Path, path: Path) -> Bundle:
    """The bundle with a signature. If there can't be one, what was collected is not lost."""
    from hoodsnap.trust.fingerprint import fingerprint, signed
    from hoodsnap.trust.signature import SshKeygenError, sign

    try:
        return signed(bundle, sign(fingerprint(bundle), key))
    except SshKeygenError as reason:
        rescued(bundle, path)
        give_up(f"the bundle is not signed: {reason}")


def collected(wishes: Wishes, interruption: Interruption) -> tuple[Bundle, bool]:
    """A bundle of this host, and whether it was cut short."""
    from rich.console import Console

    from hoodsnap.collect.readable import readable
    from hoodsnap.collect.summary import summary
    from hoodsnap.collect.visit import Visit
    from hoodsnap.trust.fingerprint import fingerprinted

    console = Console(stderr=True, highlight=False)
    interrupted = False
    with console.status("reading nova.conf …") as status:
        visit = Visit(wishes, lambda phase: status.update(f"{phase} …"))
        try:
            interruption.asking = True
            visit.run()
            interruption.asking = False
        except KeyboardInterrupt:
            interrupted = True
        bundle = fingerprinted(readable(visit.bundle()))
    for line in summary(bundle):
        console.print(shown(line), markup=False, soft_wrap=True)
    return bundle, interrupted


def without_leaks(bundle: Bundle) -> Bundle:
    """Return the bundle without texts that look like secrets, and name their places on stderr."""
    from hoodsnap.keep.fence import fenced, report
    from hoodsnap.trust.fingerprint import fingerprinted

    kept, leaks = fenced(bundle)
    for line in report(leaks):
        say(line)
    return fingerprinted(kept) if leaks else kept


def default_name(bundle: Bundle) -> Path:
    """Of the host and the time, safe in any file system."""
    host = bundle.answers[0].host if bundle.answers else "host"
    safe = "".join(char if char.isalnum() or char in "-." else "_" for char in host)
    return Path(f"hoodsnap-{safe}-{bundle.started:%Y%m%dT%H%M%SZ}.json.gz")
