"""One of the two bundles, with what is looked up for each of its servers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any

from hoodsnap.diff.files import files_of_guests
from hoodsnap.facts.cloud.guest import Guest
from hoodsnap.findings.analysis import Report
from hoodsnap.trust.plausible.processes import Qemu
from hoodsnap.trust.plausible.visit import HostAnswers


@dataclass(frozen=True, eq=False)
class Side:
    """One of the two bundles, analyzed."""

    report: Report

    @cached_property
    def _starts(self) -> Mapping[tuple[str, int], datetime]:
        found = {}
        for host in self.report.cloud.hosts:
            visit = HostAnswers(host.bundle, host.name)
            for pid, process in host.processes.own.items():
                try:
                    stat = process.said.get("stat")
                    start = Qemu(visit, str(pid), stat).start if stat is not None else None
                except (OverflowError, ValueError):  # a number that no kernel shows
                    continue
                if start is not None:
                    found[host.name, pid] = start
        return found

    def start(self, guest: Guest) -> datetime | None:
        """Return when a guest's process started, by the host's clock; None if unknown."""
        if guest.host is None or guest.process is None:
            return None
        return self._starts.get((guest.host.name, guest.process.pid))

    @cached_property
    def _files(self) -> Mapping[str, Mapping[str, dict[str, Any]]]:
        return {host.name: files_of_guests(host) for host in self.report.cloud.hosts}

    def files(self, guest: Guest) -> dict[str, Any]:
        """Return path → mode and owner of the files in a guest's folders."""
        if guest.host is None:
            return {}
        return self._files.get(guest.host.name, {}).get(guest.uuid, {})
