"""Entry point of ``python -m hoodsnap``."""

import sys

if not sys.flags.safe_path:
    # Python searches the current folder first, and it may belong to another account.
    del sys.path[0]

from hoodsnap.cli import main

main()
