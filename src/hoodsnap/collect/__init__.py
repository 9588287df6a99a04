"""Collect a bundle on a live host. This package alone touches a host; it reads and changes nothing.

`visit.py` has the order in which the layers are asked. Every other file is named after what it
asks.
"""

from hoodsnap.collect.visit import Visit, Wishes, worth_asking

__all__ = ["Visit", "Wishes", "worth_asking"]
