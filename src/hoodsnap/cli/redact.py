"""hoodsnap redact: replace the names in a bundle with pseudonyms."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hoodsnap.cli import completion
from hoodsnap.cli.bundles import merged, must_be_writable, saved
from hoodsnap.cli.terminal import give_up, say
from hoodsnap.exit_status import USAGE

if TYPE_CHECKING:
    from hoodsnap.redaction.redactor import Redactor

RedactedOption = Annotated[
    Path,
    typer.Option(
        "--output", "-o", help="File to write (.gz and .zst compress; - for standard output)."
    ),
]


KeyFileOption = Annotated[
    Path | None,
    typer.Option(
        "--key-file",
        help="Key that the pseudonyms are derived from; created if it does not exist. Bundles "
        "redacted with the same key still match.",
        show_default="a new key, which is not kept",
    ),
]


ExplainOption = Annotated[
    bool,
    typer.Option(
        "--explain",
        help="List the replacements by kind, layer and question. Names are listed with their "
        "pseudonyms only if standard error is a terminal.",
    ),
]

MOST_NAMES = 200
"""Names to show on a terminal."""


def redact(
    bundle: Annotated[
        Path,
        typer.Argument(
            help="Bundle to redact.",
            metavar="BUNDLE",
            readable=False,
            autocompletion=completion.recordings,
        ),
    ],
    output: RedactedOption,
    key_file: KeyFileOption = None,
    explain: ExplainOption = False,
) -> None:
    """Replace names, ids and addresses in a bundle with pseudonyms; every relation is preserved.

    Anyone who has the key can find out which pseudonym stands for which name: keep it secret. The
    signature is removed, because it names a person. The new fingerprint refers to the original's.
    """
    from hoodsnap.redaction import pseudonyms
    from hoodsnap.redaction.redactor import Redactor
    from hoodsnap.trust.fingerprint import fingerprint, fingerprinted

    must_be_writable(output, [bundle] if key_file is None else [bundle, key_file])
    try:
        key = pseudonyms.key(key_file)
    except (OSError, ValueError) as error:
        give_up(f"{key_file} can't be used: {getattr(error, 'strerror', None) or error}", USAGE)
    original = merged([bundle])
    redactor = Redactor(pseudonyms.Pseudonyms(key), [original])
    redacted = fingerprinted(redactor.bundle(original), fingerprint(original))
    for line in redactor.explained() if explain else redactor.summary():
        say(line)
    if explain and sys.stderr.isatty():
        _show_originals(redactor)
    saved(redacted, output)


def _show_originals(redactor: Redactor) -> None:
    """Print names with their pseudonyms, for the owner only: never into a file or a pipe."""
    names = list(redactor.originals())
    for name, made in names[:MOST_NAMES]:
        say(f"{made} was {name!a}")
    if len(names) > MOST_NAMES:
        say(f"{len(names) - MOST_NAMES} more names are not shown")
