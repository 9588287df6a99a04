"""Grade submissions, many in parallel, and trace those that were taken from the same machine."""

from __future__ import annotations

import gc
import os
import resource
import signal
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import FrameType

from hoodsnap import bounds, memory
from hoodsnap.bundle import Bundle, UnreadableBundleError, merge, parse
from hoodsnap.facts.cloud.newest_visit import TwoCloudsError, newest
from hoodsnap.facts.fact import caught
from hoodsnap.findings.analysis import analyze
from hoodsnap.grading import submissions
from hoodsnap.grading.copies import copies as copies
from hoodsnap.grading.copies import traces
from hoodsnap.grading.grader import NoServerError, chosen, grade, ungraded
from hoodsnap.grading.result import Grade
from hoodsnap.grading.sheet import Answers, AnswersError, Sheet, read_answers
from hoodsnap.grading.submissions import Submission
from hoodsnap.trust import challenge, examination, plausible
from hoodsnap.trust.fingerprint import fingerprint, verify
from hoodsnap.trust.signature import NotTrustedError, SshKeygenError

PATIENCE = 600.0
"""Seconds allowed for one submission of a class. Ten thousand guests take a tenth of that."""


NO_BUNDLE = "the submission contains no readable bundle"
"""Reason why nothing in a submission can be graded."""

DOUBTS = 3
"""Number of contradictions shown for a bundle; `verify --plausible` shows all of them."""


def grade_submission(
    sheet: Sheet, submission: Submission, server: str | None = None, signers: Path | None = None
) -> tuple[Grade, Bundle | None]:
    """Return the grade of one student, and the bundle it is based on (None if unreadable).

    Nothing in a submission raises an error: each problem becomes a remark.
    """
    try:
        return _graded(sheet, submission, server, signers)
    except MemoryError:
        remark = f"it can't be graded: {memory.sentence()}"
    except Exception as error:  # the net around each submission
        remark = f"it can't be graded: it {caught(error)}"
    return _unread(sheet, submission.student, remark), None


def _unread(sheet: Sheet, student: str, remark: str) -> Grade:
    """Return the grade of a submission that can't be read at all."""
    results = ungraded(sheet, NO_BUNDLE)
    return Grade(student, "", results, (remark,))


def _graded(
    sheet: Sheet, submission: Submission, server: str | None, signers: Path | None
) -> tuple[Grade, Bundle | None]:
    remarks = list(submission.remarks)
    answers, named = _answers(submission, sheet, remarks)
    bundles = [*_bundles(submission, remarks)]
    wanted = server or sheet.server or named

    def nothing(reason: str) -> Grade:
        results = ungraded(sheet, reason)
        return Grade(submission.student, wanted or "", results, tuple(remarks))

    if not bundles:
        if not submission.bundles:
            remarks.append("it contains no bundle")
        return nothing(NO_BUNDLE), None
    for one in bundles:
        try:
            remarks += _trust(sheet, one)
        except Exception as error:  # a net: grade it anyway, with a remark
            remarks.append(f"its plausibility {caught(error)}")
        if signers is not None:
            remarks += _signature(one, submission.student, signers)
    if len(bundles) > 1:
        try:
            bundles, superseded = newest(bundles)
        except TwoCloudsError as reason:
            return nothing(str(reason)), None
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
    left = bounds.unpacked(sum(len(data) for _, data in submission.bundles))

    def measured(size: int) -> None:
        """Allow memory for one more bundle. Together they must stay in the bounds of one bundle."""
        nonlocal left
        left -= size
        if left < 0:
            raise bounds.OutOfBoundsError("the bundles unpack to too much for files of their size")
        memory.allow(size)

    for name, data in submission.bundles:
        try:
            yield parse(data, measured)
        except UnreadableBundleError as error:
            remarks.append(f"{name} can't be read: {error}")


def _trust(sheet: Sheet, bundle: Bundle) -> Iterator[str]:
    """Yield reasons why a bundle may have been altered, or may not be meant for this lab."""
    if altered := verify(bundle).altered:
        yield f"altered after it was collected: {altered[0]}"
    if sheet.challenge is not None:
        for doubt in challenge.doubts(bundle, sheet.challenge, None, bundle.ended):
            yield f"challenge not answered: {doubt}"
    implausible = [*plausible.doubts(bundle)]
    for rule, _, reason in implausible[:DOUBTS]:
        yield f"not plausible: {reason} ({rule})"
    if (more := len(implausible) - DOUBTS) > 0:
        yield f"not plausible: {more} more contradiction{'s' * (more != 1)}"


def _signature(bundle: Bundle, student: str, allowed: Path) -> Iterator[str]:
    """Yield a remark if the student did not sign the bundle.

    A signer has the student's name, optionally as the local part of a mail address.
    """
    try:
        signer = examination.signed_by(bundle, fingerprint(bundle), allowed)
    except NotTrustedError as reason:
        yield f"not signed by {student}: {reason}"
    except SshKeygenError as reason:
        yield f"the signature of {student} could not be verified: {reason}"
    else:
        if student not in (signer, signer.partition("@")[0]):
            yield f"not signed by {student}: signed by {signer}"


def _stale(sheet: Sheet, bundle: Bundle) -> Iterator[str]:
    if sheet.opens is not None and bundle.started < sheet.opens:
        yield f"stale: captured {_moment(bundle)}, before the lab opened"
    if sheet.closes is not None and bundle.ended > sheet.closes:
        yield f"late: captured {_moment(bundle)}, after the lab closed"


def _moment(bundle: Bundle) -> str:
    return f"{bundle.started:%Y-%m-%d %H:%M} UTC"


class TookTooLong(BaseException):
    """A submission was not graded in time. It derives from BaseException so that only the handler
    around a submission catches it."""


_demand: tuple[Sheet, str | None, Path | None, float] | None = None
"""In a worker process: sheet, server, allowed signers and patience for all submissions."""


def _begin(sheet: Sheet, server: str | None, signers: Path | None, patience: float) -> None:
    global _demand
    _demand = (sheet, server, signers, patience)
    signal.signal(signal.SIGALRM, _too_long)
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it without a traceback
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    gc.enable()  # a worker reads many bundles, and must free each one


def _grade_path(path: Path) -> Grade:
    assert _demand is not None  # noqa: S101 (the pool called _begin)
    sheet, server, signers, patience = _demand
    memory.forget()  # the previous submission
    try:
        with _patiently(patience):
            found, _ = grade_submission(sheet, submissions.read(path), server, signers)
    except TookTooLong:
        return _unread(sheet, submissions.name_of(path), _late(path, patience))
    return found


def _late(path: Path, patience: float) -> str:
    return f"{path.name} can't be graded: grading took longer than {patience:g} s"


@contextmanager
def _patiently(seconds: float) -> Iterator[None]:
    """Interrupt the body after this time, whether it waits for a file or computes.

    Code that can't be interrupted ends with its process, after twice as many seconds of CPU time.
    """
    used = resource.getrusage(resource.RUSAGE_SELF)
    until = int(used.ru_utime + used.ru_stime + 2 * seconds) + 1
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    if hard == resource.RLIM_INFINITY or until < hard:
        resource.setrlimit(resource.RLIMIT_CPU, (until, hard))
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def _too_long(number: int, frame: FrameType | None) -> None:
    raise TookTooLong


def grade_class(
    sheet: Sheet,
    paths: Sequence[Path],
    server: str | None = None,
    signers: Path | None = None,
    patience: float = PATIENCE,
) -> list[Grade]:
    """Grade every submission, in the order of the paths.

    Each is read in a worker process, so one that crashes, hangs or exhausts the memory does not
    affect the others.
    """
    grades: dict[Path, Grade] = {}
    workers = max(1, min(len(os.sched_getaffinity(0)), len(paths)))

    def processes(number: int) -> ProcessPoolExecutor:
        initargs = (sheet, server, signers, patience)
        return ProcessPoolExecutor(number, initializer=_begin, initargs=initargs)

    with processes(workers) as pool:
        waiting = [(path, pool.submit(_grade_path, path)) for path in paths]
        grades |= _arrived(sheet, waiting)
    for path in paths:
        if path not in grades:
            with processes(1) as alone:
                grades |= _arrived(sheet, [(path, alone.submit(_grade_path, path))])
        if path not in grades:
            remark = f"{path.name} can't be read: its process ran out of memory or time"
            grades[path] = _unread(sheet, submissions.name_of(path), remark)
    return [grades[path] for path in paths]


def _arrived(sheet: Sheet, waiting: Iterable[tuple[Path, Future[Grade]]]) -> dict[Path, Grade]:
    found = {}
    for path, future in waiting:
        try:
            found[path] = future.result()
        except BrokenProcessPool:
            continue  # this submission or another one broke the pool: each is tried again alone
        except Exception as error:  # a net: it can't be graded, or its grade can't be pickled
            remark = f"{path.name} can't be graded: {type(error).__name__}"
            found[path] = _unread(sheet, submissions.name_of(path), remark)
    return found
