"""hoodsnap shell, replay and serve: real clients talk to a recording."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hoodsnap.cli import completion
from hoodsnap.cli.bundles import Bundles, merged
from hoodsnap.cli.terminal import give_up, put_document, say
from hoodsnap.exit_status import USAGE
from hoodsnap.suggestion import did_you_mean

if TYPE_CHECKING:
    from hoodsnap.replay.recording import Recording


HostOption = Annotated[
    str | None,
    typer.Option("--host", help="Host to replay.", show_default="the only host in the bundle"),
]


CoverageOption = Annotated[
    bool,
    typer.Option("--coverage", help="List at the end the requests that were not recorded."),
]


def shell(
    bundles: Bundles,
    host: HostOption = None,
    command: Annotated[
        str | None, typer.Option("--command", "-c", help="Run this command line and exit.")
    ] = None,
    coverage: CoverageOption = False,
) -> None:
    """Open a shell in which the real virsh, mysql, openstack, ps … talk to the recording.

    The shell is sealed: it sees this machine's programs, but none of its other files, processes,
    sockets or networks. Files written in it are lost at exit; -c COMMAND > FILE keeps a result. A
    request that was not recorded is refused, and the error names it.
    """
    raise typer.Exit(_replayed(bundles, host, command, (), coverage))


def replay(
    bundle: Annotated[
        Path,
        typer.Argument(
            help="Bundle to replay.",
            metavar="BUNDLE",
            readable=False,
            autocompletion=completion.recordings,
        ),
    ],
    command: Annotated[
        list[str], typer.Argument(help="Command and its arguments.", metavar="-- COMMAND")
    ],
    host: HostOption = None,
    coverage: CoverageOption = False,
) -> None:
    """Run one command against the recording: `hoodsnap replay bundle.json -- virsh list`."""
    raise typer.Exit(_replayed([bundle], host, None, tuple(command), coverage))


def serve(
    bundles: Bundles,
    host: HostOption = None,
    force: Annotated[
        bool, typer.Option("--force", help="Serve even if a live libvirt or database listens here.")
    ] = False,
) -> None:
    """Serve the recording until interrupted, and print the variables that point clients to it.

    Use it on hosts without user namespaces. The OpenStack APIs require the printed password. A
    client may ignore the variables, so serve refuses to start where a live libvirt or database
    listens.
    """
    import threading

    from hoodsnap.printable import clean
    from hoodsnap.replay import serve as serving

    recording = _recording(bundles, host)
    live = serving.live_sockets()
    if live and not force:
        give_up(
            f"a live server listens at {live[0]}, and a client that ignores the printed variables"
            " would reach it. Use hoodsnap shell, or --force to serve anyway",
            USAGE,
        )
    with serving.folder_of_ours() as folder:
        try:
            lines = serving.start(recording, folder, say)
        except OSError as reason:
            # The path of a socket is limited to 107 bytes.
            give_up(f"can't listen in {folder}: {reason}. Set TMPDIR to a shorter path")
        for line in lines:
            put_document(f"{line}\n")
        sys.stdout.flush()
        say(f"serving the recording of {clean(recording.host)}; press Ctrl-C to stop")
        threading.Event().wait()


def _recording(paths: Sequence[Path], host: str | None) -> Recording:
    """Return the recording of the host to replay."""
    from hoodsnap.printable import clean
    from hoodsnap.replay.recording import Recording, hosts

    bundle = merged(paths)
    there = hosts(bundle)
    if not there:
        give_up("no layer of a host answered when this bundle was collected")
    if host is None and len(there) == 1:
        (host,) = there
    if host not in there:
        if host is not None and (meant := did_you_mean(host, there)):
            give_up(f"no host in this bundle is named {host}{meant}", USAGE)
        wanted = f"no host is named {host}" if host else "choose one with --host"
        give_up(f"{wanted}; hosts in this bundle: {clean(', '.join(there))}", USAGE)
    return Recording(bundle, host)


def _replayed(
    paths: Sequence[Path],
    host: str | None,
    line: str | None,
    arguments: tuple[str, ...],
    coverage: bool,
) -> int:
    from hoodsnap.replay import shell as replaying
    from hoodsnap.replay.seal.namespaces import NoNamespacesError

    recording = _recording(paths, host)
    try:
        return replaying.run(recording, line, say, arguments=arguments, tell_missed=coverage)
    except NoNamespacesError as reason:
        give_up(str(reason))
