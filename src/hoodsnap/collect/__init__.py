"""Collect a bundle on a live host.

Only this package touches a host. It only reads and never changes anything. `visit.py` defines the
order in which the layers are asked; every other file is named after what it asks.
"""

from hoodsnap.collect.visit import Visit, Wishes, worth_asking

__all__ = ["Visit", "Wishes", "worth_asking"]
