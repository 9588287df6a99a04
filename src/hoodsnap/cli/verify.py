"""hoodsnap verify: check a bundle's integrity, signer, challenge and plausibility."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hoodsnap import memory
from hoodsnap.bundle import UnreadableBundleError, load
from hoodsnap.cli.bundles import Bundles, in_folder, name_of
from hoodsnap.cli.terminal import Format, FormatOption, give_up, put_document, say
from hoodsnap.exit_status import AGREE, BLIND, DISAGREE, USAGE

if TYPE_CHECKING:
    from hoodsnap.trust import examination


AllowedSignersOption = Annotated[
    Path | None,
    typer.Option(
        "--allowed-signers",
        help="Accept signatures of these signers (ssh-keygen's allowed-signers format).",
    ),
]


ExpectedChallengeOption = Annotated[
    str | None,
    typer.Option(
        "--challenge", help="The text that you gave to the person who collected the bundle."
    ),
]


WithinOption = Annotated[
    int | None,
    typer.Option("--within", metavar="MINUTES", min=0, help="Maximum age of the bundle."),
]


PlausibleOption = Annotated[
    bool,
    typer.Option(
        "--plausible", help="Also compare what forgers overlook: clocks, numbers and files."
    ),
]


def verify(
    bundles: Bundles,
    allowed_signers: AllowedSignersOption = None,
    challenge: ExpectedChallengeOption = None,
    within: WithinOption = None,
    plausible: PlausibleOption = False,
    format: FormatOption = Format.TEXT,
) -> None:
    """Check that bundles are unchanged, and by whom and for whom they were collected."""

    if within is not None and challenge is None:
        give_up(
            "--within needs --challenge: without a challenge the time in the bundle can be forged",
            USAGE,
        )
    from hoodsnap.render import trust
    from hoodsnap.trust import examination

    if allowed_signers is not None and not allowed_signers.is_file():
        give_up(f"{allowed_signers} can't be read: no such file", USAGE)
    wanted = examination.ExpectedProof(allowed_signers, challenge, within, plausible)
    verdicts, status = _trusted(bundles, wanted)
    if format is Format.JSON:
        put_document(trust.as_json(verdicts))
    else:
        for line in trust.lines(verdicts):
            put_document(f"{line}\n")
    raise typer.Exit(status)


def _trusted(
    paths: Sequence[Path], wanted: examination.ExpectedProof
) -> tuple[list[examination.Trust], int]:
    """Return a verdict on each readable bundle, and the exit status for all of them."""
    from hoodsnap.trust import examination
    from hoodsnap.trust.signature import SshKeygenError

    verdicts, status = [], AGREE
    for path in (one for given in paths for one in in_folder(given) or [given]):
        try:
            memory.forget()  # bundles are read one at a time, so each may use the whole allowance
            bundle = load(path, memory.allow)
            verdict = examination.examine(bundle, str(path), wanted, datetime.now(UTC))
        except UnreadableBundleError as reason:
            say(f"{name_of(path)} can't be read: {reason}")
            status = BLIND
            continue
        except SshKeygenError as reason:
            give_up(f"signatures can't be checked: {reason}")
        verdicts.append(verdict)
        blind = verdict.verdict.recorded is None and not verdict.verdict.altered
        worst = BLIND if blind else DISAGREE if verdict.doubts else AGREE
        status = max(status, worst)
    return verdicts, status
