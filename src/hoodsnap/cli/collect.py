"""hoodsnap collect: ask every layer of this host and write one file."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hoodsnap.bundle import Bundle
from hoodsnap.cli.bundles import speaks
from hoodsnap.cli.interruption import Interruption
from hoodsnap.cli.terminal import give_up, remark, say
from hoodsnap.exit_status import INTERRUPTED, PARTIAL, USAGE
from hoodsnap.printable import escaped

if TYPE_CHECKING:
    from hoodsnap.collect.visit import Wishes


OutputOption = Annotated[
    Path | None,
    typer.Option(
        "--output",
        "-o",
        help="File to write (.gz and .zst compress; - for standard output).",
        show_default="hoodsnap-HOST-TIME.json.gz",
        parser=Path,  # typer's own calls stat, which never returns where a file server is dead
        metavar="PATH",
    ),
]


AllHostsOption = Annotated[
    bool,
    typer.Option("--all-hosts", help="Collect nova's records of every host, not only this one."),
]


CloudOption = Annotated[
    str | None,
    typer.Option(
        "--os-cloud", help="Cloud to use from clouds.yaml.", show_default="OS_CLOUD, else OS_*"
    ),
]


DatabaseOption = Annotated[
    str | None,
    typer.Option(
        "--db-url",
        help="URL of nova's database, as written in nova.conf.",
        show_default="from nova.conf, else the local socket as root",
    ),
]


LibvirtOption = Annotated[
    str | None,
    typer.Option(
        "--libvirt-uri",
        help="libvirt to connect to.",
        show_default="from nova.conf if it is local, else qemu:///system",
    ),
]


QmpOption = Annotated[
    bool,
    typer.Option(
        "--qmp",
        help="Query QEMU's monitors too (query-* commands only). Off by default: until the next "
        "start of each queried domain, libvirt marks it as tainted (custom-monitor) in its log "
        "and in `virsh dominfo`. Disks of a guest with a network disk are not queried, because "
        "that could hang the guest.",
    ),
]


DaysOption = Annotated[
    int, typer.Option("--days", min=0, help="Collect server actions of this many days.")
]


SignOption = Annotated[
    Path | None,
    typer.Option(
        "--sign",
        metavar="KEY",
        help="Sign the bundle with this OpenSSH key. With a public key, the matching key in "
        "ssh-agent signs.",
    ),
]


ChallengeOption = Annotated[
    str | None,
    typer.Option(
        "--challenge", help="Text to put into the bundle, chosen by the person who asked for it."
    ),
]


QuietOption = Annotated[
    bool,
    typer.Option("--quiet", "-q", help="Print nothing unless the bundle can't be used (for cron)."),
]


DetailsOption = Annotated[
    bool,
    typer.Option("--verbose", "-v", help="Print every layer and every reason in the summary."),
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
    quiet: QuietOption = False,
    verbose: DetailsOption = False,
) -> None:
    """Ask every layer of this host, without changing anything, and write the answers to one file.

    Text that looks like a secret (even in a server's name) is withheld; its location is printed to
    standard error.
    """
    from hoodsnap.cli.rescue import must_be_free, rescued
    from hoodsnap.collect.gaps import gaps
    from hoodsnap.collect.visit import Wishes

    _check_key(sign)
    name = output or Path("hoodsnap-HOST-TIME.json.gz")
    must_be_free(name, [] if sign is None else [sign])
    wishes = Wishes(all_hosts, os_cloud, db_url, libvirt_uri, qmp, days, challenge)
    with Interruption() as interruption:
        bundle, interrupted = collected(wishes, interruption, quiet=quiet, verbose=verbose)
        bundle = without_leaks(bundle)
        path = output or default_name(bundle)
        if sign is not None:
            bundle = _signed(bundle, sign, path)
        rescued(bundle, path, quiet=quiet)
    if interrupted:
        give_up("interrupted: the bundle contains the answers collected so far", INTERRUPTED)
    if not speaks(bundle):
        give_up("no layer answered" + ("; run again without --quiet for the reasons" * quiet))
    if missing := gaps(bundle):
        reasons = "; run again without --quiet for the reasons" * quiet
        give_up(f"the bundle lacks answers of {', '.join(missing)}{reasons}", PARTIAL)


def _check_key(key: Path | None) -> None:
    """Exit if this key can't sign: better before an hour of collecting than after it."""
    if key is None:
        return
    from hoodsnap.trust.signature import SshKeygenError, require_ssh_keygen

    if not key.is_file():
        give_up(f"can't sign with {key}: no such file", USAGE)
    try:
        require_ssh_keygen()
    except SshKeygenError as reason:
        give_up(f"the bundle can't be signed: {reason}")


def _signed(bundle: Bundle, key: Path, path: Path) -> Bundle:
    """Return the signed bundle. If signing fails, write the bundle unsigned and exit."""
    from hoodsnap.cli.rescue import rescued
    from hoodsnap.trust.fingerprint import fingerprint, signed
    from hoodsnap.trust.signature import SshKeygenError, sign

    try:
        return signed(bundle, sign(fingerprint(bundle), key))
    except SshKeygenError as reason:
        rescued(bundle, path)
        give_up(f"the bundle is not signed: {reason}")


def collected(
    wishes: Wishes, interruption: Interruption, *, quiet: bool = False, verbose: bool = False
) -> tuple[Bundle, bool]:
    """Collect this host; return the bundle, and True if collecting was interrupted.

    Progress and a summary go to standard error, unless `quiet`.
    """
    from hoodsnap.cli.progress import Progress, shown
    from hoodsnap.collect.readable import readable
    from hoodsnap.collect.summary import details, summary
    from hoodsnap.collect.visit import Visit
    from hoodsnap.trust.fingerprint import fingerprinted

    interrupted = False
    progress = Progress()
    with nullcontext() if quiet else shown(progress):
        visit = Visit(wishes, progress.begin)
        progress.recorder = visit.recorder
        try:
            interruption.asking = True
            visit.run()
            interruption.asking = False
        except KeyboardInterrupt:
            interrupted = True
        bundle = fingerprinted(readable(visit.bundle()))
    if not quiet:
        for line in details(bundle) if verbose else summary(bundle):
            remark(escaped(line))
    return bundle, interrupted


def without_leaks(bundle: Bundle) -> Bundle:
    """Return the bundle without text that looks like a secret; print each location to stderr."""
    from hoodsnap.keep.fence import fenced, report
    from hoodsnap.trust.fingerprint import fingerprinted

    kept, leaks = fenced(bundle)
    for line in report(leaks):
        say(line)
    return fingerprinted(kept) if leaks else kept


def default_name(bundle: Bundle) -> Path:
    """Return a file name made of host and time, safe in any file system."""
    host = bundle.answers[0].host if bundle.answers else "host"
    safe = "".join(char if char.isalnum() or char in "-." else "_" for char in host)
    return Path(f"hoodsnap-{safe}-{bundle.started:%Y%m%dT%H%M%SZ}.json.gz")
