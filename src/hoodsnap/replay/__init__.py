"""Replay: stand-ins for the servers of one recorded host, for real clients to connect to.

One rule: they return recorded bytes, or refuse and name what was not recorded. They never return
defaults or invented values, and never write.
"""
