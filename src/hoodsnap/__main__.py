"""``python -m hoodsnap``."""

from hoodsnap.cli import main

main()
