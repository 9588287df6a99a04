"""hoodsnap demo: the main job at once, with or without a cloud."""

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
"""What is run over the recording: the first that this machine has."""


RECORDED = Path(hoodsnap.__file__).parent / "recorded" / "healthy.json.zst"


def demo() -> None:
    """Collect this host if it has Nova or libvirt, and explain it; without guests here, explain the
    recorded cloud."""
    from hoodsnap.collect.visit import worth_asking

    if worth_asking():
        say("this host has Nova or libvirt: collecting it")
        bundle, path = _collect()
    else:
        say("this host has neither Nova nor libvirt: taking the recorded cloud")
        bundle, path = merged([RECORDED]), RECORDED
    tell(bundle, None, ReportFormat.TEXT, False, FailOn.NEVER)
    say(f"the same again: hoodsnap explain {path}")
    _replay(bundle, path)
    say(f"ask it what you like: hoodsnap shell {path}")


def _collect() -> tuple[Bundle, Path]:
    from hoodsnap.collect.visit import Wishes
    from hoodsnap.facts.cloud.cloud import read

    must_be_writable(Path("hoodsnap.json.gz"))
    with Interruption() as interruption:
        bundle, _ = collected(Wishes(), interruption)
        bundle = without_leaks(bundle)
        path = default_name(bundle)
        rescued(bundle, path)
    if read(bundle).guests:
        return bundle, path
    say("it has no guests: taking the recorded cloud")
    return merged([RECORDED]), RECORDED


def _replay(bundle: Bundle, path: Path) -> None:
    """Run a client of this machine over the recording."""
    from hoodsnap.replay import shell
    from hoodsnap.replay.namespaces import NoNamespacesError
    from hoodsnap.replay.recording import Recording, hosts

    for command in COMMANDS:
        if shutil.which(command[0]):
            break
    else:
        return
    say(f"the recording answers real clients: hoodsnap replay {path} -- {' '.join(command)}")
    sys.stdout.flush()  # or what is not yet written is written by the child too
    try:
        shell.run(Recording(bundle, min(hosts(bundle))), None, say, arguments=command)
    except NoNamespacesError as reason:
        say(str(reason))
