"""hoodsnap redact: a bundle under other names."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hoodsnap.cli.bundles import merged, must_be_writable, saved
from hoodsnap.cli.terminal import USAGE, give_up, say

if TYPE_CHECKING:
    from hoodsnap.redaction.redactor import Redactor

RedactedOption = Annotated[
    Path,
    typer.Option("--output", "-o", help="Where to write (.gz and .zst compress; - for stdout)."),
]


KeyFileOption = Annotated[
    Path | None,
    typer.Option(
        "--key-file",
        help="The key that the pseudonyms are made with: made if it is not there. Several bundles "
        "redacted with one key still belong together.",
        show_default="a new key, which nobody keeps",
    ),
]


ExplainOption = Annotated[
    bool,
    typer.Option(
        "--explain",
        help="List what was replaced, by kind, layer and question. Names and their pseudonyms are "
        "listed only if standard error is a terminal.",
    ),
]

MOST_NAMES = 200
"""Names that a terminal shows."""


def redact(
    bundle: Annotated[Path, typer.Argument(help="A bundle.", metavar="BUNDLE")],
    output: RedactedOption,
    key_file: KeyFileOption = None,
    explain: ExplainOption = False,
) -> None:
    """Write a bundle with pseudonyms for names, ids and addresses; every relation stays.

    Whoever has the key can recompute which pseudonym belongs to which name: keep it to yourself.
    The signature goes, since it names somebody; the new fingerprint names the original's.
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
    """Print names with their pseudonyms, for the owner's eyes: never into a file or a pipe."""
    names = list(redactor.originals())
    for name, made in names[:MOST_NAMES]:
        say(f"{made} was {name!a}")
    if len(names) > MOST_NAMES:
        say(f"{len(names) - MOST_NAMES} more names are not shown")
