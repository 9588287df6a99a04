"""``python -m hoodsnap``."""

import sys

if not sys.flags.safe_path:
    # Python puts the current folder first, and that folder may belong to another account.
    del sys.path[0]

from hoodsnap.cli import start

start()
