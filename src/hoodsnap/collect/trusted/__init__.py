"""Decide which processes, files and addresses of a host are trusted. A name proves nothing."""
