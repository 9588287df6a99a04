#!/usr/bin/python3
"""Removes all rows of deleted instances with such names: purge.py PATTERN (of SQL's LIKE)."""

import sys

from instances import Database

if __name__ == "__main__":
    Database().purge(sys.argv[1])
