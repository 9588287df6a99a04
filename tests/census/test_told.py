import pytest
from tests.census.told import identities


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ("FA:16:3E:00:00:01", {"fa:16:3e:00:00:01"}),
        ("/var/lib/nova/instances/a/disk", {"/var/lib/nova/instances/a/disk"}),
        ("10.20.0.7/24", {"10.20.0.7"}),
        ("instance-00000001", {"instance-00000001"}),
        ("net:[4026531833]", {"net:[4026531833]"}),
        ("52:54:00:00:00:01 10.20.0.7 *", {"52:54:00:00:00:01", "10.20.0.7"}),
    ],
)
def test_an_identity_is_found_by_its_form(value: str, found: set[str]) -> None:
    assert found <= set(identities(value))


LINK = "http://127.0.0.1:8774/v2.1/servers/018ef94c-d60a-43e2-8ef2-d07abd6be462"


@pytest.mark.parametrize(
    "value",
    ["x86_64", "qcow2", "127.0.0.1", "active", "12345", "2026-11-25 18:33:42", LINK, 4, None],
)
def test_a_word_a_number_a_time_and_a_link_identify_nothing(value: object) -> None:
    assert set(identities(value)) == set()
