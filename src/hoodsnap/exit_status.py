"""The exit statuses of the commands, and their meanings."""

from __future__ import annotations

AGREE = 0
"""The layers agree; all tasks of a sheet are right."""

DISAGREE = 1
"""The layers disagree, at or above `--fail-on`; a task is not right."""

USAGE = 2
"""The command line, or a file that it names, asks for what can't be done."""

BLIND = 3
"""The question can't be answered: a bundle can't be read, or a layer was not collected."""

PARTIAL = 4
"""The bundle was written, but a layer that is there did not answer everything."""

ELSEWHERE = 5
"""The bundle was written, but not where it was asked for: the disk is full or does not answer."""

INTERRUPTED = 130
"""Ctrl-C, as shells report it."""
