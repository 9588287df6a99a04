"""hoodsnap redact: a bundle under other names."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hoodsnap.cli.bundles import merged, must_be_writable, saved
from hoodsnap.cli.terminal import USAGE, give_up, say

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


def redact(
    bundle: Annotated[Path, typer.Argument(help="A bundle.", metavar="BUNDLE")],
    output: RedactedOption,
    key_file: KeyFileOption = None,
) -> None:
    """Write a bundle with pseudonyms for names, ids and addresses; every relation stays.

    Whoever has the key can recompute which pseudonym belongs to which name: keep it to yourself.
    The signature goes, since it names somebody; the new fingerprint names the original's.
    """
    from hoodsnap import pseudonym, redact
    from hoodsnap.fingerprint import fingerprint, fingerprinted

    must_be_writable(output, [bundle] if key_file is None else [bundle, key_file])
    try:
        key = pseudonym.key(key_file)
    except (OSError, ValueError) as error:
        give_up(f"{key_file} can't be used: {getattr(error, 'strerror', None) or error}", USAGE)
    original = merged([bundle])
    redactor = redact.Redactor(pseudonym.Pseudonyms(key), [original])
    redacted = fingerprinted(redactor.bundle(original), fingerprint(original))
    for line in redactor.summary():
        say(line)
    saved(redacted, output)
