#!/usr/bin/python3
"""Remove all rows of deleted instances with matching names: purge.py PATTERN (an SQL LIKE)."""

import sys

from instances import Database

if __name__ == "__main__":
    Database().purge(sys.argv[1])
