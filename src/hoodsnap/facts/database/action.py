"""Rows of `instance_actions` and `instance_actions_events`: what was requested of an instance, and
the steps in which nova carried it out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import ClassVar

from hoodsnap.bundle import Answer
from hoodsnap.facts.clock import moment
from hoodsnap.facts.fact import Fact, integer, text
from hoodsnap.facts.layer import NOVA_DB, Layer


@dataclass(frozen=True, eq=False, kw_only=True)
class ActionStep(Fact):
    """One row of `instance_actions_events`: a part of an action, carried out by one service."""

    layer: ClassVar[Layer] = NOVA_DB
    noun: ClassVar[str] = "step"
    raw: Mapping[str, object]
    database: str

    def where(self, name: str) -> tuple[Answer | None, str]:
        """Return the answer and the place in it, which starts with the row's id."""
        answer, place = super().where(name)
        row = f"{self.database}.instance_actions_events[id={self.raw.get('id')}]"
        return answer, f"{row}.{place}"

    @property
    def event(self) -> str | None:
        """Name of the step: `compute_stop_instance`."""
        return text(self.raw, "event")

    @property
    def result(self) -> str | None:
        """`Success` or `Error`; None while the step has not ended."""
        return text(self.raw, "result")

    @property
    def host(self) -> str | None:
        """Host of the service that carried the step out (Train and later)."""
        return text(self.raw, "host")

    @property
    def start_time(self) -> str | None:
        """Time at which the step began, UTC."""
        return text(self.raw, "start_time")

    @property
    def finish_time(self) -> str | None:
        """Time at which the step ended, UTC; None while it has not ended."""
        return text(self.raw, "finish_time")


@dataclass(frozen=True, eq=False, kw_only=True)
class InstanceAction(Fact):
    """One row of `instance_actions`, with its steps."""

    layer: ClassVar[Layer] = NOVA_DB
    noun: ClassVar[str] = "action"
    raw: Mapping[str, object]
    database: str
    steps: tuple[ActionStep, ...] | None = None
    """Its steps in the order of their ids; None if they were not collected."""

    def where(self, name: str) -> tuple[Answer | None, str]:
        """Return the answer and the place in it, which starts with the row's id."""
        answer, place = super().where(name)
        return answer, f"{self.database}.instance_actions[id={self.raw.get('id')}].{place}"

    @property
    def id(self) -> int | None:
        """Primary key of the row."""
        return integer(self.raw, "id")

    @property
    def action(self) -> str | None:
        """What was requested: `stop`, `resize`, `live-migration` …"""
        return text(self.raw, "action")

    @property
    def request_id(self) -> str | None:
        """Id of the request, by which the logs of all services can be searched."""
        return text(self.raw, "request_id")

    @property
    def user_id(self) -> str | None:
        """Id of the user who requested it."""
        return text(self.raw, "user_id")

    @property
    def project_id(self) -> str | None:
        """Id of the project on whose behalf it was requested."""
        return text(self.raw, "project_id")

    @property
    def start_time(self) -> str | None:
        """Time of the request, UTC."""
        return text(self.raw, "start_time")

    @property
    def message(self) -> str | None:
        """`Error` if a step of it failed; None otherwise."""
        return text(self.raw, "message")

    @property
    def failed_step(self) -> ActionStep | None:
        """The last step that failed; None if no step did, or the steps were not collected."""
        failed = [step for step in self.steps or () if step.result == "Error"]
        return failed[-1] if failed else None

    @property
    def ended_at(self) -> datetime | None:
        """Time at which the last of its steps ended; None if it has no steps, one of them has not
        ended, or they were not collected."""
        times = [moment(step.finish_time) for step in self.steps or ()]
        known = [time for time in times if time is not None]
        return max(known) if known and len(known) == len(times) else None
