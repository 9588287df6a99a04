"""hoodsnap demo: collect, explain and replay in one go, with or without a cloud."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import hoodsnap
from hoodsnap.cli.bundles import merged, must_be_writable, rescued
from hoodsnap.cli.collect import collected, default_name, without_leaks
from hoodsnap.cli.explain import FailOn, ReportFormat, tell
from hoodsnap.cli.interruption import Interruption
from hoodsnap.cli.terminal import say

if TYPE_CHECKING:
    from hoodsnap.bundle import Bundle

COMMANDS = (("virsh", "list", "--all"), ("pgrep", "-l", "qemu"))
"""Commands to run against the recording; the first one that is installed here is used."""


RECORDED = Path(hoodsnap.__file__).parent / "recorded" / "healthy.json.zst"


def demo() -> None:
    """Collect this host if it has Nova or libvirt and explain it. If the host has no guests,
    explain a recorded cloud instead."""
    from hoodsnap.collect.visit import worth_asking

    if worth_asking():
        say("this host runs Nova or libvirt: collecting it")
        bundle, path = _collect()
    else:
        say("this host runs neither Nova nor libvirt: using the recorded cloud")
        bundle, path = merged([RECORDED]), RECORDED
    tell(bundle, None, ReportFormat.TEXT, False, [FailOn.NEVER])
    say(f"to print this report again: {_program()} explain {path}")
    _replay(bundle, path)
    say(f"to explore the recording: {_program()} shell {path}")


def _program() -> str:
    """Return the command to type: `make demo` installs hoodsnap where no shell looks for it."""
    path = Path(sys.argv[0])
    return str(path) if path.name == "hoodsnap" and not shutil.which("hoodsnap") else "hoodsnap"


def _collect() -> tuple[Bundle, Path]:
    from hoodsnap.collect.visit import Wishes
    from hoodsnap.facts.cloud.cloud import read

    must_be_writable(Path("hoodsnap-HOST-TIME.json.gz"))
    with Interruption() as interruption:
        bundle, _ = collected(Wishes(), interruption)
        bundle = without_leaks(bundle)
        path = default_name(bundle)
        rescued(bundle, path)
    if read(bundle).guests:
        return bundle, path
    say("this host has no guests: using the recorded cloud")
    return merged([RECORDED]), RECORDED


def _replay(bundle: Bundle, path: Path) -> None:
    """Run a client of this machine against the recording."""
    from hoodsnap.replay import shell
    from hoodsnap.replay.recording import Recording, hosts
    from hoodsnap.replay.seal.namespaces import NoNamespacesError

    for command in COMMANDS:
        if shutil.which(command[0]):
            break
    else:
        return
    say(f"the recording answers real clients: {_program()} replay {path} -- {' '.join(command)}")
    sys.stdout.flush()  # or the forked child writes the buffered output a second time
    try:
        shell.run(Recording(bundle, min(hosts(bundle))), None, say, arguments=command)
    except NoNamespacesError as reason:
        say(str(reason))
