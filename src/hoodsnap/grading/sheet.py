"""A lab sheet: what a teacher writes, checked to the line before anybody is graded by it."""

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

from hoodsnap.checks import CATALOGUE
from hoodsnap.grading.expression import ExpressionError, compiled
from hoodsnap.grading.plain_yaml import Place, YamlDocument, YamlError, read

SHIPPED = Path(__file__).parent.parent / "sheets"

MOST_TASKS = 500

CHECKS = {check.name: check for check in CATALOGUE}


class SheetError(Exception):
    """The sheet can't be used. The text has one line for each reason, with the line it is in."""


def _expression(text: str) -> str:
    try:
        compiled(text)
    except ExpressionError as error:
        raise ValueError(f"it is no JMESPath expression: {error}") from None
    return text


def _check(name: str) -> str:
    if name not in CHECKS:
        raise ValueError(f"no check is called {name} (see: hoodsnap checks)")
    return name


def _listed(value: object) -> object:
    return [value] if isinstance(value, str) else value


def _words(text: str) -> str:
    """Paragraphs stay; where a line ended in the file does not matter."""
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
    """A question whose right answer is computed from the student's own bundle."""

    id: Id
    text: Words
    points: Points = 1
    answer: Expression
    accept: Expressions = ()
    """What is right too."""
    hint: Words = ""
    partial: bool = False
    """Of a list, each right item counts."""


class Task(_Part):
    """Something to do, and what the bundle of whoever did it shows."""

    id: Id
    title: Words
    text: Words = ""
    points: Points | None = None
    """For what must hold; the questions have their own."""
    holds: Expressions = ()
    quiet: Checks = ()
    fires: Checks = ()
    expected: Words = ""
    """What must hold, in words."""
    partial: bool = False
    """Of several that must hold, each counts."""
    questions: tuple[Question, ...] = ()
    hint: Words = ""
    needs: Ids = ()
    hidden: bool = False

    @property
    def worth(self) -> float:
        """The points for what must hold."""
        return (1 if self.points is None else self.points) if self.conditions else 0

    @property
    def conditions(self) -> int:
        """How many things must hold."""
        return len(self.holds) + len(self.quiet) + len(self.fires)

    @model_validator(mode="after")
    def _is_gradable(self) -> Self:
        if not self.conditions and not self.questions:
            raise ValueError("a task has holds, quiet, fires or questions")
        if not self.conditions and self.points is not None:
            raise ValueError("its points are for holds, quiet or fires, and it has none of them")
        return self


class Sheet(_Part):
    """A lab."""

    id: Id
    title: Words
    text: Words = ""
    server: str | None = None
    """The name of the server that it is about; None: the student says which."""
    opens: AwareDatetime | None = None
    closes: AwareDatetime | None = None
    challenge: str | None = None
    """What bundles must have been collected with (`collect --challenge`)."""
    tasks: tuple[Task, ...]


def load(lab: str) -> Sheet:
    """A sheet by its name, if it comes with hoodsnap, or its path. Raises `SheetError`."""
    path = SHIPPED / f"{lab}.yaml"
    if lab not in shipped():
        path = Path(lab)
    try:
        with path.open("rb") as file:
            return parse(file.read(1 << 20))
    except FileNotFoundError:
        names = ", ".join(shipped())
        raise SheetError(f"there is no such file, and no lab of that name ({names})") from None
    except OSError as error:
        raise SheetError(error.strerror or str(error)) from None


def shipped() -> tuple[str, ...]:
    """The names of the sheets that come with hoodsnap."""
    return tuple(sorted(path.stem for path in SHIPPED.glob("*.yaml")))


def parse(data: bytes) -> Sheet:
    """Read a sheet. Raises `SheetError`, with every mistake and the line it is in."""
    try:
        document = read(data)
    except YamlError as error:
        raise SheetError(str(error)) from None
    if not isinstance(document.value, dict):
        raise SheetError("line 1: a sheet is an object with id, title and tasks")
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
        said = one["msg"].removeprefix("Value error, ")
        named = ".".join(str(part) for part in place)
        if one["type"] == "extra_forbidden":
            said = "there is no such field"
        yield f"line {document.line(place)}: {named}: {said}" if named else f"line 1: {said}"


def _in_order(sheet: Sheet, document: YamlDocument) -> Iterator[str]:
    """What only the whole sheet shows: ids that occur twice, prerequisites that don't precede."""
    if not 1 <= len(sheet.tasks) <= MOST_TASKS:
        yield f"line {document.line(('tasks',))}: tasks: there are 1 to {MOST_TASKS} of them"
    seen: set[str] = set()
    for number, task in enumerate(sheet.tasks):
        place: Place = ("tasks", number)
        if task.id in seen:
            yield f"line {document.line((*place, 'id'))}: the id {task.id} is taken"
        if task.id == "server":
            line = document.line((*place, "id"))
            yield f"line {line}: in the answers, `server` names the server: take another id"
        for needed in task.needs:
            if needed not in seen:
                line = document.line((*place, "needs"))
                yield f"line {line}: needs: no task before it is called {needed}"
        seen.add(task.id)
        asked: set[str] = set()
        for index, question in enumerate(task.questions):
            if question.id in asked:
                line = document.line((*place, "questions", index, "id"))
                yield f"line {line}: the id {question.id} is taken"
            asked.add(question.id)


Answers = dict[str, dict[str, str | list[str]]]
"""Task → question → what the student wrote."""


class AnswersError(Exception):
    """The student's answers can't be read. The text is one sentence."""


def read_answers(data: bytes, sheet: Sheet) -> tuple[Answers, str | None, Sequence[str]]:
    """The answers, the server that they are about, and what in them belongs to no question.

    Raises `AnswersError`.
    """
    try:
        document = read(data)
    except YamlError as error:
        raise AnswersError(str(error)) from None
    value: Any = document.value if document.value is not None else {}
    if not isinstance(value, dict):
        raise AnswersError("line 1: answers are written as `task:`, below it `question: answer`")
    server = value.get("server")
    known = {task.id: {question.id for question in task.questions} for task in sheet.tasks}
    answers: Answers = {}
    remarks = []
    for task, given in value.items():
        if task == "server":
            continue
        line = document.line((task,))
        if task not in known or not isinstance(given, dict):
            remarks.append(f"line {line}: {task[:50]!r} is no task with answers below it")
            continue
        for question, answer in given.items():
            if question not in known[task]:
                line = document.line((task, question))
                remarks.append(f"line {line}: {task} asks no question {question[:50]!r}")
            elif isinstance(answer, str) or _is_texts(answer):
                answers.setdefault(task, {})[question] = answer
            else:
                line = document.line((task, question))
                remarks.append(f"line {line}: {task}.{question} is neither a text nor a list")
    return answers, server if isinstance(server, str) else None, remarks


def _is_texts(answer: object) -> bool:
    return isinstance(answer, list) and all(isinstance(item, str) for item in answer)
