"""hoodsnap verify: is it what was collected, by whom, for whom."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hoodsnap import memory
from hoodsnap.bundle import UnreadableBundleError, load
from hoodsnap.cli.bundles import Bundles
from hoodsnap.cli.terminal import (
    AGREE,
    BLIND,
    DISAGREE,
    USAGE,
    Format,
    FormatOption,
    give_up,
    put_document,
    say,
)

if TYPE_CHECKING:
    from hoodsnap.trust import examination


AllowedSignersOption = Annotated[
    Path | None,
    typer.Option("--allowed-signers", help="Whose signatures count: ssh-keygen's file of signers."),
]


AnswersOption = Annotated[
    str | None,
    typer.Option("--challenge", help="The text that was given to whoever collected the bundle."),
]


WithinOption = Annotated[
    int | None,
    typer.Option("--within", metavar="MINUTES", min=0, help="How old the bundle may be."),
]


PlausibleOption = Annotated[
    bool,
    typer.Option("--plausible", help="Also compare what a forger forgets: clocks, numbers, files."),
]


def verify(
    bundles: Bundles,
    allowed_signers: AllowedSignersOption = None,
    challenge: AnswersOption = None,
    within: WithinOption = None,
    plausible: PlausibleOption = False,
    format: FormatOption = Format.TEXT,
) -> None:
    """Say whether bundles are still what was collected, by whom and for whom."""

    if within is not None and challenge is None:
        give_up("--within needs --challenge: without it anybody can say any time", USAGE)
    from hoodsnap.trust import examination

    if allowed_signers is not None and not allowed_signers.is_file():
        give_up(f"{allowed_signers} can't be read: there is no such file", USAGE)
    wanted = examination.ExpectedProof(allowed_signers, challenge, within, plausible)
    verdicts, status = _trusted(bundles, wanted)
    if format is Format.JSON:
        put_document(examination.as_json(verdicts))
    else:
        for line in examination.lines(verdicts):
            put_document(f"{line}\n")
    raise typer.Exit(status)


def _trusted(
    paths: Sequence[Path], wanted: examination.ExpectedProof
) -> tuple[list[examination.Trust], int]:
    """What is to be said of each bundle that can be read; the exit status of all."""
    from hoodsnap.trust import examination
    from hoodsnap.trust.signature import SshKeygenError

    verdicts, status = [], AGREE
    for path in paths:
        try:
            memory.forget()  # one after the other: each may take what it needs
            bundle = load(path, memory.allow)
            verdict = examination.examine(bundle, str(path), wanted, datetime.now(UTC))
        except UnreadableBundleError as reason:
            say(f"{path} can't be read: {reason}")
            status = BLIND
            continue
        except SshKeygenError as reason:
            give_up(f"signatures can't be checked: {reason}")
        verdicts.append(verdict)
        blind = verdict.verdict.recorded is None and not verdict.verdict.altered
        worst = BLIND if blind else DISAGREE if verdict.doubts else AGREE
        status = max(status, worst)
    return verdicts, status
