"""Lab sheet: the tasks and questions that a teacher writes, validated before anyone is graded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from hoodsnap.checks import CATALOG
from hoodsnap.grading.evaluation import compiled
from hoodsnap.grading.expression import ExpressionError
from hoodsnap.grading.plain_yaml import Place, YamlDocument, YamlError, read
from hoodsnap.suggestion import did_you_mean

SHIPPED = Path(__file__).parent.parent / "sheets"

MOST_TASKS = 500

CHECKS = {check.name: check for check in CATALOG}


class SheetError(Exception):
    """The sheet can't be used. The text has one line for each mistake, with its line number."""


def _expression(text: str) -> str:
    try:
        compiled(text)
    except ExpressionError as error:
        raise ValueError(f"it is not a JMESPath expression: {error}") from None
    return text


def _check(name: str) -> str:
    if name not in CHECKS:
        raise ValueError(f"no check is named {name} (see: hoodsnap checks)")
    return name


def _listed(value: object) -> object:
    return [value] if isinstance(value, str) else value


def _words(text: str) -> str:
    """Join the lines of each paragraph; line breaks in the file carry no meaning."""
    return "\n\n".join(" ".join(part.split()) for part in text.strip().split("\n\n"))


Id = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,49}$")]
Words = Annotated[str, AfterValidator(_words)]
Expression = Annotated[str, AfterValidator(_expression)]
Expressions = Annotated[tuple[Expression, ...], BeforeValidator(_listed)]
Checks = Annotated[tuple[Annotated[str, AfterValidator(_check)], ...], BeforeValidator(_listed)]
Ids = Annotated[tuple[Id, ...], BeforeValidator(_listed)]
Points = Annotated[float, Field(ge=0, le=1000, allow_inf_nan=False)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Question(_Part):
    """A question. The right answer is computed from the student's own bundle."""

    id: Id
    text: Words
    points: Points = 1
    answer: Expression
    accept: Expressions = ()
    """Expressions for other right answers."""
    hint: Words = ""
    partial: bool = False
    """True if each right item of a list counts."""


class Task(_Part):
    """A task: something to do, and the conditions that hold in a bundle once it is done."""

    id: Id
    title: Words
    text: Words = ""
    points: Points | None = None
    """Points for the conditions; the questions have their own points."""
    holds: Expressions = ()
    quiet: Checks = ()
    fires: Checks = ()
    expected: Words = ""
    """The conditions, in words."""
    partial: bool = False
    """True if each condition counts."""
    questions: tuple[Question, ...] = ()
    hint: Words = ""
    needs: Ids = ()
    hidden: bool = False

    @property
    def worth(self) -> float:
        """Points for the conditions."""
        return (1 if self.points is None else self.points) if self.conditions else 0

    @property
    def conditions(self) -> int:
        """Number of conditions."""
        return len(self.holds) + len(self.quiet) + len(self.fires)

    @model_validator(mode="after")
    def _is_gradable(self) -> Self:
        if not self.conditions and not self.questions:
            raise ValueError("a task needs holds, quiet, fires or questions")
        if not self.conditions and self.points is not None:
            raise ValueError("a task without holds, quiet or fires can't have points")
        return self


class Sheet(_Part):
    """The sheet of one lab."""

    id: Id
    title: Words
    text: Words = ""
    server: str | None = None
    """Name of the server to grade; None if each student names one."""
    opens: AwareDatetime | None = None
    closes: AwareDatetime | None = None
    challenge: str | None = None
    """Challenge that bundles must answer (`collect --challenge`); None if none is required."""
    tasks: tuple[Task, ...]


def load(lab: str) -> Sheet:
    """Load a sheet by its name, if it comes with hoodsnap, or by its path. Raises `SheetError`."""
    path = SHIPPED / f"{lab}.yaml"
    if lab not in shipped():
        path = Path(lab)
    try:
        with path.open("rb") as file:
            return parse(file.read(1 << 20))
    except FileNotFoundError:
        known = shipped()
        meant = did_you_mean(lab, known) or f"; the labs are: {', '.join(known)}"
        raise SheetError(f"no file or lab has this name{meant}") from None
    except OSError as error:
        raise SheetError(error.strerror or str(error)) from None


def shipped() -> tuple[str, ...]:
    """Return the names of the sheets that come with hoodsnap."""
    return tuple(sorted(path.stem for path in SHIPPED.glob("*.yaml")))


def parse(data: bytes) -> Sheet:
    """Parse a sheet. Raises `SheetError`, with every mistake and its line number."""
    try:
        document = read(data)
    except YamlError as error:
        raise SheetError(str(error)) from None
    if not isinstance(document.value, dict):
        raise SheetError("line 1: a sheet must be an object with id, title and tasks")
    try:
        sheet = Sheet.model_validate(document.value)
    except ValidationError as error:
        raise SheetError("\n".join(_mistakes(error, document))) from None
    if mistakes := [*_in_order(sheet, document)]:
        raise SheetError("\n".join(mistakes))
    return sheet


def _mistakes(error: ValidationError, document: YamlDocument) -> Iterator[str]:
    for one in error.errors(include_url=False, include_input=False):
        place: Place = one["loc"]
        reason = one["msg"].removeprefix("Value error, ")
        named = ".".join(str(part) for part in place)
        if one["type"] == "extra_forbidden":
            reason = "unknown field"
        yield f"line {document.line(place)}: {named}: {reason}" if named else f"line 1: {reason}"


def _in_order(sheet: Sheet, document: YamlDocument) -> Iterator[str]:
    """Yield mistakes that concern the whole sheet: duplicate ids, and needs that don't precede."""
    if not 1 <= len(sheet.tasks) <= MOST_TASKS:
        yield f"line {document.line(('tasks',))}: tasks: a sheet has 1 to {MOST_TASKS} tasks"
    seen: set[str] = set()
    for number, task in enumerate(sheet.tasks):
        place: Place = ("tasks", number)
        if task.id in seen:
            yield f"line {document.line((*place, 'id'))}: duplicate id: {task.id}"
        if task.id == "server":
            line = document.line((*place, "id"))
            yield f"line {line}: the id `server` is reserved for the server's name in the answers"
        for needed in task.needs:
            if needed not in seen:
                line = document.line((*place, "needs"))
                yield f"line {line}: needs: no earlier task has the id {needed}"
        seen.add(task.id)
        asked: set[str] = set()
        for index, question in enumerate(task.questions):
            if question.id in asked:
                line = document.line((*place, "questions", index, "id"))
                yield f"line {line}: duplicate id: {question.id}"
            asked.add(question.id)


Answers = dict[str, dict[str, str | list[str]]]
"""The student's answers, by task id and question id."""


class AnswersError(Exception):
    """The student's answers can't be read. The text is one sentence."""


def read_answers(data: bytes, sheet: Sheet) -> tuple[Answers, str | None, Sequence[str]]:
    """Return the answers, the server that they name (or None), and remarks about unusable entries.

    Raises `AnswersError`.
    """
    try:
        document = read(data)
    except YamlError as error:
        raise AnswersError(str(error)) from None
    value: Any = document.value if document.value is not None else {}
    if not isinstance(value, dict):
        raise AnswersError("line 1: write answers as `task:`, and below it `question: answer`")
    server = value.get("server")
    known = {task.id: {question.id for question in task.questions} for task in sheet.tasks}
    answers: Answers = {}
    remarks = []
    for task, given in value.items():
        if task == "server":
            continue
        line = document.line((task,))
        if task not in known or not isinstance(given, dict):
            remarks.append(f"line {line}: {task[:50]!r} is not a task with answers below it")
            continue
        for question, answer in given.items():
            if question not in known[task]:
                line = document.line((task, question))
                remarks.append(f"line {line}: {task} has no question {question[:50]!r}")
            elif isinstance(answer, str) or _is_texts(answer):
                answers.setdefault(task, {})[question] = answer
            else:
                line = document.line((task, question))
                remarks.append(f"line {line}: {task}.{question} is neither text nor a list")
    # The printed answer sheet has an empty `server:`, which not everybody fills in.
    named = server.strip() if isinstance(server, str) else ""
    return answers, named or None, remarks


def _is_texts(answer: object) -> bool:
    return isinstance(answer, list) and all(isinstance(item, str) for item in answer)
