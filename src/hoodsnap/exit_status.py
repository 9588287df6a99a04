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

INTERRUPTED = 130
"""Ctrl-C, as shells report it."""
