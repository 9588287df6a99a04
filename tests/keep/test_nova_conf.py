from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hoodsnap.keep.nova_conf import KEPT, kept
from hoodsnap.keep.secret import WITHHELD

words = st.from_regex(r"[a-z][a-z0-9_]{0,15}", fullmatch=True)


@given(
    st.one_of(st.sampled_from(sorted(KEPT)), words),
    st.one_of(st.sampled_from(sorted({name for names in KEPT.values() for name in names})), words),
)
def test_options_outside_of_the_list_are_not_kept(section: str, option: str) -> None:
    found = kept({section: {option: "c0rrect-h0rse"}})

    assert ("c0rrect-h0rse" in str(found)) == (option in KEPT.get(section, ()))


SECRETIVE = {"password", "connection", "url", "secret", "token", "key", "auth", "credentials"}


def test_no_option_in_the_list_is_named_like_a_secret() -> None:
    names = {option for options in KEPT.values() for option in options}

    assert [name for name in names if SECRETIVE & set(name.split("_"))] == ["connection_uri"]


def test_credentials_in_a_kept_option_are_withheld() -> None:
    found = kept(
        {
            "libvirt": {
                "connection_uri": "qemu+tcp://nova:p@ss/word@compute-1/system",
                "live_migration_uri": "qemu+ssh://nova@%s/system",
            },
            "DEFAULT": {"my_ip": "10.0.0.1\ntransport_url = rabbit://a:b@c"},
        }
    )

    assert found == {
        "DEFAULT": {"my_ip": WITHHELD},
        "libvirt": {
            "connection_uri": f"qemu+tcp://nova:{WITHHELD}@compute-1/system",
            "live_migration_uri": "qemu+ssh://nova@%s/system",
        },
    }


@pytest.mark.parametrize(
    ("value", "kept_value"),
    [
        ("qemu+unix:///system?socket=/run/x", "qemu+unix:///system?socket=/run/x"),
        ("qemu:///system?token=c0rrect-h0rse", f"qemu:///system?token={WITHHELD}"),
        ("qemu+ssh://h/system?keyfile=/k&command=c", "qemu+ssh://h/system?keyfile={0}&command={0}"),
        ("qemu+tcp://c0rrect-h0rse@h/system", f"qemu+tcp://{WITHHELD}@h/system"),
        ("qemu+tcp://nova:what?c0rrect-h0rse@h/system", f"qemu+tcp://nova:{WITHHELD}@h/system"),
        ("qemu:///system#c0rrect-h0rse", "qemu:///system"),
        ("qemu:///system?c0rrect-h0rse", f"qemu:///system?{WITHHELD}"),
    ],
)
def test_only_known_users_and_parameters_of_a_uri_are_kept(value: str, kept_value: str) -> None:
    found = kept({"libvirt": {"connection_uri": value}})

    assert found == {"libvirt": {"connection_uri": kept_value.replace("{0}", WITHHELD)}}
