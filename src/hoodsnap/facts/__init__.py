"""Typed facts read from a bundle's answers, at analysis time and without side effects.

Each folder is one source, and each file is named after what that source calls the thing. Code that
needs two sources is in `cloud/`.
"""
