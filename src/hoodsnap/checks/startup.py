"""nova-compute's next start: can it read its configuration, and write its log?

While it runs, it needs neither.
"""

from __future__ import annotations

from typing import Any

from hoodsnap.check import Problems, check, problem
from hoodsnap.evidence import Severity, hears
from hoodsnap.facts.cloud.host import Host


@check(Severity.WARNING)
def nova_conf_unusable(host: Host) -> Problems:
    """nova-compute can't read its configuration: its next start fails.

    nova-compute reads its configuration when it starts, as its own account (nova), and ends if a
    file is missing, closed to that account, or has a line that is no option, section or comment. A
    running nova-compute notices nothing. A file that root edited with a new mode, or a deployment
    tool that stopped half way, leaves such a file; the next update or restart of the host brings
    the fault to light.

    Authority: The files, for the next start.

    Traps: An access control list may let the account in, so a file with one is not judged. A value
    that nova does not know is nova-conf-wrong's.

    Next: Check the owners and modes of the files and of the folders above them, and the line that
    the finding names:

        namei -l NOVA_CONF
        grep -n '' NOVA_CONF
        ps -o pid,user,lstart,args -C nova-compute

    If the account may not read the file, give the file back to the account's group, which keeps
    its passwords from others:

        chgrp NOVA_GROUP CLOSED_CONF
        chmod g=r,o= CLOSED_CONF

    If a folder is closed to it, open the folder:

        chmod g+x,o+x CLOSED_FOLDER

    If a line is wrong, correct the line. If a file is missing, restore the file from the deployment
    tool. nova-compute need not be restarted if it runs.

    It worked if the account can read the file, and hoodsnap reports no error in it:

        namei -l NOVA_CONF
        grep -n '' NOVA_CONF

    Not yet: Do not restart nova-compute before it can read its configuration.

    Source: oslo.config, cfg.py `ConfigFilesPermissionDeniedError`, `ConfigFilesNotFoundError`,
    iniparser.py `ParseError`.
    """
    files = host.configuration_files
    for file in files.listed:
        if files.answer is None:
            return
        names: dict[str, Any] = {
            "NOVA_CONF": file.path,
            "CLOSED_CONF": "",
            "NOVA_GROUP": "",
            "CLOSED_FOLDER": "",
        }
        start = "nova-compute's next start fails"
        if file.is_absent:
            yield problem(
                f"{file.path}, which nova-compute on {host.name} reads, does not exist: {start}",
                hears(files.answer, _name(file.path), file.path, exists=False),
                **names,
            )
        if (closed := file.barrier) is not None:
            names |= _opening(closed.path, file.path)
            what = "" if closed.path == file.path else f", as {closed.path} is closed to it"
            yield problem(
                f"nova's account on {host.name} can't read {file.path}{what}: {start}",
                hears(files.answer, _name(file.path), closed.path, mode=closed.mode).and_so(
                    uid=closed.uid, gid=closed.gid
                ),
                **names,
            )
        elif file.error is not None:
            line, reason = file.error
            yield problem(
                f"Line {line} of {file.path} on {host.name} is none that nova can read "
                f"({reason}): {start}",
                hears(files.answer, _name(file.path), f"line {line}", error=reason),
                **names,
            )


def _opening(closed: str, file: str) -> dict[str, str]:
    """Return the placeholders of the advice that opens a file, or a folder above it."""
    if closed == file:
        return {"CLOSED_CONF": file, "NOVA_GROUP": "nova"}
    return {"CLOSED_FOLDER": closed}


def _name(path: str) -> str:
    """Return the name by which a finding calls a file."""
    return path.rpartition("/")[2]


@check(Severity.WARNING)
def nova_log_not_writable(host: Host) -> Problems:
    """nova-compute can't write its log file: its next start fails.

    nova-compute opens its log when it starts, as its own account (nova), and ends if it may not. A
    running nova-compute has the file open and notices nothing. A nova-compute that root started by
    hand, a log that root put back from a backup, or a rotation that makes the new file as root,
    leaves such a file; the next restart of the service or of the host brings the fault to light.

    Authority: The file, for the next start.

    Traps: An access control list may let the account in, so a file with one is not judged. A log
    that does not exist is made by nova-compute, which then has to write to its folder. A service
    that logs to the journal alone has no file.

    Next: Check the owners and modes of the log and of the folders above it, and the account of
    nova-compute:

        namei -l LOG
        ps -o pid,user,lstart,args -C nova-compute

    If the log is closed to the account, give it back to nova-compute's account. nova-compute need
    not be restarted if it runs:

        chown NOVA_ACCOUNT CLOSED_LOG
        chmod u+rwX CLOSED_LOG

    If a folder above is closed to it, open the folder:

        chmod g+x,o+x CLOSED_FOLDER

    It worked if the account owns the log and may write it:

        namei -l LOG

    Not yet: Do not restart nova-compute before it can write its log: it would not come back. Do not
    start it as root.

    Source: oslo.log, log.py `_setup_logging_from_conf`; Python, logging.FileHandler.
    """
    files = host.configuration_files
    log = files.log
    if log is None or log.barrier is None or files.answer is None:
        return
    closed = log.barrier
    folder = log.path.rpartition("/")[0]
    is_own = closed.path == log.path or (log.is_absent and closed.path == folder)
    where = "" if closed.path == log.path else f", as {closed.path} is closed to it"
    yield problem(
        f"nova's account on {host.name} can't write {log.path}{where}: nova-compute's next start "
        "fails",
        hears(files.answer, _name(log.path), closed.path, mode=closed.mode).and_so(
            uid=closed.uid, gid=closed.gid
        ),
        LOG=log.path,
        NOVA_ACCOUNT="nova",
        CLOSED_LOG=closed.path if is_own else "",
        CLOSED_FOLDER="" if is_own else closed.path,
    )
