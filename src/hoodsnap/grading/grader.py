"""Grade one bundle by one sheet: check its conditions, and compare answers with the bundle."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

from hoodsnap.facts.cloud.guest import Guest
from hoodsnap.facts.fact import UnheardError, caught
from hoodsnap.findings.analysis import Report
from hoodsnap.grading.answer import share
from hoodsnap.grading.evaluation import evaluate
from hoodsnap.grading.expression import ExpressionError, Touch, Value
from hoodsnap.grading.result import Result, Status
from hoodsnap.grading.sheet import CHECKS, Answers, Question, Sheet, Task
from hoodsnap.grading.sheet_view import View, view
from hoodsnap.render.line import shortened
from hoodsnap.suggestion import did_you_mean

LONG_QUERY = 100
"""Largest number of characters of a query that is shown in full."""

MOST_FOUND = 8
"""Largest number of values shown for one condition."""


class Seen(NamedTuple):
    """One value that was found, as text, and the query by which a person can see it."""

    text: str
    query: str | None = None


class NoServerError(Exception):
    """The server to grade is missing or ambiguous. The text is one sentence."""


def chosen(report: Report, wanted: str | None) -> Guest:
    """Return the guest to grade. Raises `NoServerError`."""
    guests = report.cloud.guests
    if wanted is not None:
        named = (wanted, wanted.lower())
        found = [
            one for one in guests if one.uuid in named or wanted in (one.name, one.domain_name)
        ]
        if not found:
            names = (name for one in guests for name in (one.name, one.domain_name) if name)
            raise NoServerError(
                f"no server in this bundle is named {wanted}{did_you_mean(wanted, names)}"
            )
        # If several hosts have traces of one server, prefer the host where nova has it.
        found.sort(key=lambda one: (not one.carries_record, one.host is None))
        if len({one.uuid for one in found}) > 1:
            raise NoServerError(f"several servers are named {wanted}: give the server's id instead")
        return found[0]
    if len({one.uuid for one in guests}) == 1:
        return guests[0]
    if not guests:
        raise NoServerError("this bundle contains no server")
    raise NoServerError(
        f"this bundle contains {len(guests)} servers: name one with `server:` in the answers"
        " or with --server"
    )


def grade(sheet: Sheet, report: Report, guest: Guest, answers: Answers) -> tuple[Result, ...]:
    """Grade every task and question, in the order of the sheet."""
    return tuple(_Grader(sheet, report, guest, answers).results())


def ungraded(sheet: Sheet, reason: str) -> tuple[Result, ...]:
    """Return a result for every task and question: none can be graded, for one reason."""
    results = []
    for task in sheet.tasks:
        if task.conditions:
            results.append(_of_task(task, Status.UNGRADED, reason=reason))
        for question in task.questions:
            results.append(_of_question(task, question, Status.UNGRADED, reason=reason))
    return tuple(results)


class _Grader:
    def __init__(self, sheet: Sheet, report: Report, guest: Guest, answers: Answers) -> None:
        self.sheet = sheet
        self.report = report
        self.view = view(report, guest)
        self.answers = answers
        self.done: dict[str, Status] = {}
        self.secrets = _Secrets(sheet, self.view)

    def results(self) -> Iterator[Result]:
        for task in self.sheet.tasks:
            results = [*self._task(task)]
            # A task is done if its conditions hold; its questions may still be open.
            statuses = {result.status for result in results[: 1 if task.conditions else None]}
            if statuses == {Status.RIGHT}:
                self.done[task.id] = Status.RIGHT
            elif Status.UNGRADED in statuses:
                self.done[task.id] = Status.UNGRADED
            else:
                self.done[task.id] = Status.WRONG
            yield from results

    def _task(self, task: Task) -> Iterator[Result]:
        waits = self._waits(task)
        if task.conditions:
            if waits is not None:
                yield _of_task(task, waits[0], reason=waits[1])
            else:
                yield self._conditions(task)
        for question in task.questions:
            if waits is not None:
                yield _of_question(task, question, waits[0], reason=waits[1])
            else:
                yield self._question(task, question)

    def _waits(self, task: Task) -> tuple[Status, str] | None:
        """Return why a task is not graded: a task it needs is not done, or can't be graded."""
        for needed in task.needs:
            if self.done[needed] is Status.UNGRADED:
                return Status.UNGRADED, f"it needs {self._title(needed)}, which can't be graded"
        missing = [needed for needed in task.needs if self.done[needed] is not Status.RIGHT]
        are = "is" if len(missing) == 1 else "are"
        named = ", ".join(self._title(needed) for needed in missing)
        reason = f"it needs {named}, which {are} not done"
        return (Status.WAITS, reason) if missing else None

    def _title(self, needed: str) -> str:
        """Return the title of a task in quotes, unless students must not see it."""
        task = next(task for task in self.sheet.tasks if task.id == needed)
        return "another task" if task.hidden else f'"{task.title}"'

    def _conditions(self, task: Task) -> Result:
        judge = _Judge(self.report, self.view)
        asked: list[tuple[Callable[[str], bool], str]] = [
            *((judge.holds, text) for text in task.holds),
            *((judge.is_quiet, name) for name in task.quiet),
            *((judge.fires, name) for name in task.fires),
        ]
        good, reasons = 0, []
        for is_so, what in asked:
            try:
                good += is_so(what)
            except UnheardError as reason:
                reasons.append(str(reason))
            except ExpressionError as error:
                reasons.append(f"the sheet is wrong: {what}: {error}")
            except Exception as error:  # the net around each condition
                reasons.append(str(caught(error)))
        found = tuple(dict.fromkeys(map(self.secrets.masked, judge.found)))
        # A condition that fails makes the task wrong, even if others could not be decided.
        failed = len(asked) - good - len(reasons)
        if reasons and (task.partial or not failed):
            return _of_task(task, Status.UNGRADED, found=found, reason=reasons[0])
        if good == len(asked):
            return _of_task(task, Status.RIGHT, share=1.0, found=found)
        part = good / len(asked) if task.partial else 0.0
        return _of_task(task, Status.PARTLY if part else Status.WRONG, share=part, found=found)

    def _question(self, task: Task, question: Question) -> Result:
        given = self.answers.get(task.id, {}).get(question.id)
        if given is None or not given or (isinstance(given, str) and not given.strip()):
            return _of_question(task, question, Status.UNANSWERED)
        best, reasons = 0.0, []
        for expression in (question.answer, *question.accept):
            try:
                expected = evaluate(expression, self.view.facts).value
                if isinstance(expected, dict):
                    raise ExpressionError("it returns an object, which can't be an answer")
                best = max(best, share(given, expected, partial=question.partial))
            except UnheardError as reason:
                reasons.append(str(reason))
            except ExpressionError as error:
                reasons.append(f"the sheet is wrong: {error}")
            except Exception as error:  # the net around each question
                reasons.append(str(caught(error)))
        if best == 1.0:
            return _of_question(task, question, Status.RIGHT, share=1.0, given=given)
        if reasons:
            return _of_question(task, question, Status.UNGRADED, reason=reasons[0], given=given)
        status = Status.PARTLY if best else Status.WRONG
        return _of_question(task, question, status, share=best, given=given)


class _Judge:
    """Judge of conditions, which records the values that it reads."""

    def __init__(self, report: Report, view: View) -> None:
        self.report = report
        self.view = view
        self.found: list[Seen] = []

    def holds(self, text: str) -> bool:
        """True if an expression holds. Raises `UnheardError` and `ExpressionError`."""
        value = evaluate(text, self.view.facts)
        self.found += _read(value, self.view)
        return value.holds

    def is_quiet(self, name: str) -> bool:
        """True if a check finds nothing about this guest. Raises `UnheardError`."""
        if self._finds(name):
            return False
        self._must_be_decided(name)
        return True

    def fires(self, name: str) -> bool:
        """True if a check finds something about this guest. Raises `UnheardError`."""
        if self._finds(name):
            return True
        self._must_be_decided(name)
        self.found.append(Seen(f"{name} finds nothing"))
        return False

    def _finds(self, name: str) -> bool:
        fires = False
        for finding in self.report.everything():
            concerned = not finding.guests or self.view.guest in finding.guests
            if finding.check.name == name and concerned:
                fires = True
                self.found.append(Seen(f"{name}: {finding.check.message}"))
                self.found += (Seen(str(evidence)) for evidence in finding.evidence)
        return fires

    def _must_be_decided(self, name: str) -> None:
        for skip in self.report.skips:
            if skip.check.name == name and not skip.legal and skip.guest in (None, self.view.guest):
                raise UnheardError(f"{name} can't be decided: {skip.reason}")
        # Without the guest's host its layers are unknown, even if no check was skipped.
        if CHECKS[name].scope == "guest" and self.view.guest.host is None:
            raise UnheardError(f"{name} can't be decided: the server's host is in no bundle")


def _read(value: Value, view: View) -> Iterator[Seen]:
    """Yield the values that an expression read, and where a person can see them."""
    seen: dict[str, tuple[Touch, str | None]] = {}
    for touch in value.touched:
        path = view.paths.get(id(touch.part))
        if path is None or _is_large(touch.value):
            continue
        seen.setdefault(f"{path}.{touch.name}", (touch, view.query(touch.part, touch.name)))
    for path, (touch, query) in list(seen.items())[:MOST_FOUND]:
        yield Seen(f"{path} = {worded(touch.value)}", query)
    if len(seen) > MOST_FOUND:
        yield Seen(f"and {len(seen) - MOST_FOUND} more")


def _is_large(value: object) -> bool:
    return isinstance(value, list) and any(isinstance(item, dict) for item in value)


def worded(value: object) -> str:
    """Return a value in words."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(map(worded, value)) or "nothing"
    return str(value)


class _Secrets:
    """Values that the sheet's questions ask for, which must never be shown."""

    def __init__(self, sheet: Sheet, view: View) -> None:
        self.paths: set[str] = set()
        self.values: set[str] = set()
        for question in (one for task in sheet.tasks for one in task.questions):
            for expression in (question.answer, *question.accept):
                self._add(expression, view)

    def _add(self, expression: str, view: View) -> None:
        try:
            value = evaluate(expression, view.facts)
        except (UnheardError, ExpressionError):
            return
        given = value.value if isinstance(value.value, list) else [value.value]
        answers = [answer for answer in given if answer is not None]
        read = [touch for touch in value.touched if not _is_large(touch.value)]
        # Hide the fields that hold the answer; if it was computed, hide all that it was made from.
        telling = [touch for touch in read if touch.value in answers or touch.value == given]
        for touch in telling or (read if answers else ()):
            path = view.paths.get(id(touch.part))
            if path is not None:
                self.paths.add(f"{path}.{touch.name}")
        # A short value (1, vda, yes) occurs everywhere; it is hidden by its path alone.
        self.values |= {str(answer).lower() for answer in answers if len(str(answer)) > 3}

    def masked(self, seen: Seen) -> str:
        """Return a line of what was found, without values that a question asks for."""
        path, equals, _ = seen.text.partition(" = ")
        if path in self.paths or self._tells(seen.text):
            hidden = "hidden, because a question asks for it"
            return f"{path}: {hidden}" if equals else hidden
        query = seen.query
        if query is None or self._tells(query):
            return seen.text
        return f"{seen.text} ({_short(query)})"

    def _tells(self, text: str) -> bool:
        lower = text.lower()
        return any(value in lower for value in self.values)


def _short(query: str) -> str:
    """Shorten a query to fit in a line; its lists of ids are of no use to a student."""
    query = shortened(query)
    return query if len(query) <= LONG_QUERY else f"{query.partition('?')[0][:LONG_QUERY]}…"


def _of_task(
    task: Task,
    status: Status,
    *,
    share: float = 0.0,
    found: Sequence[str] = (),
    reason: str = "",
) -> Result:
    return Result(
        id=task.id,
        title=task.title,
        status=status,
        points=round(share * task.worth, 2),
        worth=task.worth,
        expected=task.expected or _in_words(task),
        found=tuple(found),
        reason=reason,
        hint=task.hint,
        hidden=task.hidden,
    )


def _in_words(task: Task) -> str:
    parts = [
        *task.holds,
        *(f"{name} finds nothing" for name in task.quiet),
        *(f"{name} finds something" for name in task.fires),
    ]
    return "; ".join(parts)


def _of_question(
    task: Task,
    question: Question,
    status: Status,
    *,
    share: float = 0.0,
    reason: str = "",
    given: str | list[str] = "",
) -> Result:
    answered = given if isinstance(given, str) else ", ".join(given)
    return Result(
        id=f"{task.id}.{question.id}",
        title=question.text,
        status=status,
        points=round(share * question.points, 2),
        worth=question.points,
        found=(f"your answer: {' '.join(answered.split())[:200]}",) if answered else (),
        reason=reason,
        hint=question.hint,
        hidden=task.hidden,
    )


def mistakes(sheet: Sheet, report: Report, guest: Guest) -> Mapping[str, str]:
    """Return the reason for each task and question that can't be graded with an example."""
    answers: Answers = {
        task.id: {question.id: "?" for question in task.questions} for task in sheet.tasks
    }
    alone = sheet.model_copy(
        update={"tasks": tuple(task.model_copy(update={"needs": ()}) for task in sheet.tasks)}
    )
    results = grade(alone, report, guest, answers)
    return {result.id: result.reason for result in results if result.status is Status.UNGRADED}
