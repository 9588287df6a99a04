"""hoodsnap shell, replay and serve: real clients meet a recording."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hoodsnap.cli.bundles import Bundles, merged
from hoodsnap.cli.terminal import USAGE, give_up, put_document, say

if TYPE_CHECKING:
    from hoodsnap.replay.recording import Recording


HostOption = Annotated[
    str | None,
    typer.Option("--host", help="Which host of the bundle.", show_default="the only one"),
]


CoverageOption = Annotated[
    bool,
    typer.Option("--coverage", help="Say in the end what was asked for and not recorded."),
]


def shell(
    bundles: Bundles,
    host: HostOption = None,
    command: Annotated[
        str | None, typer.Option("--command", "-c", help="Run this line instead of typing.")
    ] = None,
    coverage: CoverageOption = False,
) -> None:
    """Open a shell in which the real virsh, mysql, openstack, ps … meet the recording.

    It is sealed: no file, process, socket or network of this machine is in it, only programs. What
    is written in it is lost with it; -c COMMAND > FILE keeps a result. Whatever was not recorded is
    refused by name.
    """
    raise typer.Exit(_replayed(bundles, host, command, (), coverage))


def replay(
    bundle: Annotated[Path, typer.Argument(help="A bundle.", metavar="BUNDLE")],
    command: Annotated[
        list[str], typer.Argument(help="A command and its arguments.", metavar="-- COMMAND")
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
        bool, typer.Option("--force", help="Even if a live libvirt or database listens here.")
    ] = False,
) -> None:
    """Let the stand-ins listen until interrupted, and print the variables that lead clients there.

    For hosts that give no namespaces. The OpenStack APIs ask for the password that is printed. A
    client may ignore them, so serve is refused where a live libvirt or database listens.
    """
    import threading

    from hoodsnap.replay import serve as serving
    from hoodsnap.replay.recording import plain

    recording = _recording(bundles, host)
    live = serving.live_sockets()
    if live and not force:
        give_up(
            f"a live server listens at {live[0]}, and a client that ignores the printed variables"
            " would reach it. Use hoodsnap shell, or --force to serve all the same",
            USAGE,
        )
    with serving.folder_of_ours() as folder:
        try:
            lines = serving.start(recording, folder, say)
        except OSError as reason:
            # A socket's path has 107 bytes at most.
            give_up(f"no stand-in can listen in {folder}: {reason}. Set TMPDIR to a shorter path")
        for line in lines:
            put_document(f"{line}\n")
        sys.stdout.flush()
        say(f"serving {plain(recording.host)} as it was; Ctrl-C ends it")
        threading.Event().wait()


def _recording(paths: Sequence[Path], host: str | None) -> Recording:
    """The host of these bundles that is to be replayed."""
    from hoodsnap.replay.recording import Recording, hosts, plain

    bundle = merged(paths)
    there = hosts(bundle)
    if host is None and len(there) == 1:
        (host,) = there
    if host not in there:
        names = plain(", ".join(there)) or "none"
        wanted = f"there is no host {host}" if host else "--host says which"
        give_up(f"{wanted}; hosts of this bundle: {names}", USAGE)
    return Recording(bundle, host)


def _replayed(
    paths: Sequence[Path],
    host: str | None,
    line: str | None,
    arguments: tuple[str, ...],
    coverage: bool,
) -> int:
    from hoodsnap.replay import shell as replaying
    from hoodsnap.replay.namespaces import NoNamespacesError

    recording = _recording(paths, host)
    try:
        return replaying.run(recording, line, say, arguments=arguments, tell_missed=coverage)
    except NoNamespacesError as reason:
        give_up(str(reason))
