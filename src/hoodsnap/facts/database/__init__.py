"""Rows of the nova databases, one file per table."""
