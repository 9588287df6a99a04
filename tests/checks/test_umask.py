"""The umask of nova-compute, with which it makes the folders of guests."""

from __future__ import annotations

import pytest
from tests.conftest import RecordedHost
from tests.daemons import alter


@pytest.mark.parametrize("umask", ["0077", "0027", "0011"])
def test_new_folders_closed(served: RecordedHost, umask: str) -> None:
    alter(served, "nova-compute", pid=98, umask=umask)

    [finding] = served.report().findings
    assert (finding.check.name, finding.severity.word) == ("new-folders-closed", "warning")
    assert finding.title == (
        f"nova-compute on vm (process 98) has umask {umask[1:]}: the next server that it makes does"
        " not start"
    )


@pytest.mark.parametrize("umask", ["0022", "0002", "0000", "0026"])
def test_others_may_pass_through_new_folders(served: RecordedHost, umask: str) -> None:
    alter(served, "nova-compute", umask=umask)

    assert served.headlines() == []


@pytest.mark.parametrize("umask", [None, "999", 22, "", "00000022"])
def test_a_umask_that_was_not_collected_is_not_judged(served: RecordedHost, umask: object) -> None:
    alter(served, "nova-compute", umask=umask)

    assert served.headlines() == []
    assert "the umask of nova-compute was not collected" in {
        skip.reason for skip in served.report().skips
    }
