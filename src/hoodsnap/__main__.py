"""``python -m hoodsnap``."""

import sys

if not sys.flags.safe_path:
    # Python puts the current folder first, which may be another account's.
    del sys.path[0]

from hoodsnap.cli import main

main()
