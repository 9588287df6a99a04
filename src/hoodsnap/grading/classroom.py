"""Grades submissions, many at once, and finds those that are of one machine or one moment of it."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from pathlib import Path

from hoodsnap import challenge, plausible, trust
from hoodsnap.analysis import analyze
from hoodsnap.bundle import Bundle, UnreadableBundleError, merge, parse
from hoodsnap.facts.visits import newest
from hoodsnap.fingerprint import fingerprint, verify
from hoodsnap.grading import submissions
from hoodsnap.grading.copies import copies as copies
from hoodsnap.grading.copies import traces
from hoodsnap.grading.grader import NoServerError, chosen, grade, ungraded
from hoodsnap.grading.result import Grade
from hoodsnap.grading.sheet import Answers, AnswersError, Sheet, read_answers
from hoodsnap.grading.submissions import Submission
from hoodsnap.signature import NotTrustedError

DOUBTS = 3
"""So many reasons why a bundle is not plausible are told; `verify --plausible` tells all."""


def grade_submission(
    sheet: Sheet, submission: Submission, server: str | None = None, signers: Path | None = None
) -> tuple[Grade, Bundle | None]:
    """What one student gets, and what it was read from. Raises nothing for what was handed in, but
    `SshKeygenError` if there are allowed `signers` and no way to check signatures."""
    remarks = list(submission.remarks)
    answers, named = _answers(submission, sheet, remarks)
    bundles = [*_bundles(submission, remarks)]
    wanted = server or sheet.server or named

    def nothing(reason: str) -> Grade:
        results = ungraded(sheet, reason)
        return Grade(submission.student, wanted or "", results, tuple(remarks))

    if not bundles:
        if not submission.bundles:
            remarks.append("there is no bundle")
        return nothing("there is no bundle that can be read"), None
    for one in bundles:
        remarks += _trust(sheet, one)
        if signers is not None:
            remarks += _signature(one, submission.student, signers)
    if len(bundles) > 1:
        bundles, superseded = newest(bundles)
        remarks += superseded
    bundle = merge(bundles)
    remarks += _stale(sheet, bundle)
    report = analyze(bundle)
    try:
        guest = chosen(report, wanted)
    except NoServerError as reason:
        return replace(nothing(str(reason)), traces=traces(bundle)), bundle
    results = grade(sheet, report, guest, answers)
    found = Grade(
        submission.student, guest.name or guest.uuid, results, tuple(remarks), traces(bundle)
    )
    return found, bundle


def _answers(
    submission: Submission, sheet: Sheet, remarks: list[str]
) -> tuple[Answers, str | None]:
    if submission.answers is None:
        return {}, None
    try:
        answers, server, strange = read_answers(submission.answers, sheet)
    except AnswersError as error:
        remarks.append(f"the answers can't be read: {error}")
        return {}, None
    remarks += (f"answers: {remark}" for remark in strange[:10])
    return answers, server


def _bundles(submission: Submission, remarks: list[str]) -> Iterator[Bundle]:
    for name, data in submission.bundles:
        try:
            yield parse(data)
        except UnreadableBundleError as error:
            remarks.append(f"{name} can't be read: {error}")


def _trust(sheet: Sheet, bundle: Bundle) -> Iterator[str]:
    """Why a bundle may not be what was collected, or not for this lab."""
    if altered := verify(bundle).altered:
        yield f"altered after it was collected: {altered[0]}"
    if sheet.challenge is not None:
        for doubt in challenge.doubts(bundle, sheet.challenge, None, bundle.ended):
            yield f"unchallenged: {doubt}"
    implausible = [*plausible.doubts(bundle)]
    for rule, _, reason in implausible[:DOUBTS]:
        yield f"not plausible: {reason} ({rule})"
    if len(implausible) > DOUBTS:
        yield f"not plausible for {len(implausible) - DOUBTS} more reasons"


def _signature(bundle: Bundle, student: str, allowed: Path) -> Iterator[str]:
    """Why nobody knows that it is this student's: signers are called like their students, perhaps
    with the rest of a mail address."""
    try:
        signer = trust.signed_by(bundle, fingerprint(bundle), allowed)
    except NotTrustedError as reason:
        yield f"not signed by {student}: {reason}"
    else:
        if student not in (signer, signer.partition("@")[0]):
            yield f"not signed by {student}: signed by {signer}"


def _stale(sheet: Sheet, bundle: Bundle) -> Iterator[str]:
    if sheet.opens is not None and bundle.started < sheet.opens:
        yield f"stale: captured {_moment(bundle)}, before the lab was opened"
    if sheet.closes is not None and bundle.ended > sheet.closes:
        yield f"late: captured {_moment(bundle)}, after the lab was closed"


def _moment(bundle: Bundle) -> str:
    return f"{bundle.started:%Y-%m-%d %H:%M} UTC"


_demand: tuple[Sheet, str | None, Path | None] | None = None
"""In a process of the pool: what all are graded by."""


def _begin(sheet: Sheet, server: str | None, signers: Path | None) -> None:
    global _demand
    _demand = (sheet, server, signers)
    gc.enable()  # one bundle after the other: what was read does not stay


def _grade_path(path: Path) -> Grade:
    assert _demand is not None  # noqa: S101 (the pool has begun)
    sheet, server, signers = _demand
    found, _ = grade_submission(sheet, submissions.read(path), server, signers)
    return found


def grade_class(
    sheet: Sheet, paths: Sequence[Path], server: str | None = None, signers: Path | None = None
) -> list[Grade]:
    """Every submission, in the order of the paths. One that breaks the process it is read in, as
    for want of memory, costs nobody else anything."""
    grades: dict[Path, Grade] = {}
    workers = max(1, min(len(os.sched_getaffinity(0)), len(paths)))

    def processes(number: int) -> ProcessPoolExecutor:
        initargs = (sheet, server, signers)
        return ProcessPoolExecutor(number, initializer=_begin, initargs=initargs)

    with processes(workers) as pool:
        waiting = [(path, pool.submit(_grade_path, path)) for path in paths]
        grades |= _arrived(waiting)
    for path in paths:
        if path not in grades:
            with processes(1) as alone:
                grades |= _arrived([(path, alone.submit(_grade_path, path))])
        if path not in grades:
            remark = f"{path.name} can't be read: it does not fit into this machine's memory"
            results = ungraded(sheet, "there is no bundle that can be read")
            grades[path] = Grade(submissions.name_of(path), "", results, (remark,))
    return [grades[path] for path in paths]


def _arrived(waiting: Iterable[tuple[Path, Future[Grade]]]) -> dict[Path, Grade]:
    found = {}
    for path, future in waiting:
        try:
            found[path] = future.result()
        except BrokenProcessPool:
            continue  # it, or one of its neighbours: each is tried alone
    return found
