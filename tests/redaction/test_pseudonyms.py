"""Pseudonyms: relations between originals stay, and different originals stay different."""

from __future__ import annotations

import ipaddress
import stat
import uuid
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hoodsnap.redaction.pseudonyms import Pseudonyms, key

PSEUDONYMS = Pseudonyms(b"k" * 32)

uuids = st.uuids().map(str)
fours = st.integers(0, 2**32 - 1).map(ipaddress.IPv4Address)
sixes = st.integers(0, 2**128 - 1).map(ipaddress.IPv6Address)


def common(one: int, other: int, size: int) -> int:
    """Return the number of leading bits that two addresses have in common."""
    return size - (one ^ other).bit_length()


@given(uuids)
def test_a_uuid_becomes_a_uuid_of_its_version(text: str) -> None:
    made = uuid.UUID(PSEUDONYMS.uuid(text))

    assert (made.version, made.variant) == (uuid.UUID(text).version, uuid.UUID(text).variant)


@given(uuids, st.integers(8, 36))
def test_the_beginning_of_a_uuid_becomes_the_beginning(text: str, length: int) -> None:
    assert PSEUDONYMS.uuid(text).startswith(PSEUDONYMS.uuid(text[:length]))


@given(uuids)
def test_a_uuid_has_one_pseudonym_in_all_spellings(text: str) -> None:
    made = PSEUDONYMS.uuid(text)

    assert PSEUDONYMS.uuid(text.replace("-", "")) == made.replace("-", "")
    assert PSEUDONYMS.uuid(text.upper()) == made.upper()


@given(st.sets(uuids, min_size=2))
def test_different_uuids_stay_different(texts: set[str]) -> None:
    assert len({PSEUDONYMS.uuid(text) for text in texts}) == len(texts)


def test_the_nil_uuid_is_kept() -> None:
    # nova's cell0 has this UUID in every cloud.
    zeros = "00000000-0000-0000-0000-000000000000"

    assert PSEUDONYMS.uuid(zeros) == zeros


def test_a_tap_has_its_guest_s_mac_but_for_the_first_byte() -> None:
    guest, tap = PSEUDONYMS.mac("fa:16:3e:12:34:56"), PSEUDONYMS.mac("fe:16:3e:12:34:56")

    assert guest.startswith("fa:16:3e:")
    assert guest != "fa:16:3e:12:34:56"
    assert tap == "fe" + guest[2:]


def test_different_macs_of_a_vendor_stay_different() -> None:
    macs = {
        f"fa:16:3e:{n >> 16:02x}:{n >> 8 & 255:02x}:{n & 255:02x}" for n in range(0, 2**24, 4999)
    }

    assert len({PSEUDONYMS.mac(mac) for mac in macs}) == len(macs)


@pytest.mark.parametrize(
    "mac", ["00:00:00:00:00:00", "ff:ff:ff:ff:ff:ff", "33:33:00:00:00:01", "01:80:c2:00:00:00"]
)
def test_a_mac_that_identifies_nobody_is_kept(mac: str) -> None:
    assert PSEUDONYMS.mac(mac) == mac


@given(fours, fours)
def test_two_addresses_share_as_long_a_prefix_as_before(
    one: ipaddress.IPv4Address, other: ipaddress.IPv4Address
) -> None:
    made = [int(ipaddress.IPv4Address(PSEUDONYMS.address(str(its)))) for its in (one, other)]

    assert common(made[0], made[1], 32) == common(int(one), int(other), 32)


@given(sixes.filter(lambda its: int(its) >> 24 & 0xFFFF != 0xFFFE), st.integers(0, 127))
def test_ipv6_too(one: ipaddress.IPv6Address, bit: int) -> None:
    other = ipaddress.IPv6Address(int(one) ^ 1 << bit)
    if int(other) >> 24 & 0xFFFF == 0xFFFE:
        return
    made = [int(ipaddress.IPv6Address(PSEUDONYMS.address(str(its)))) for its in (one, other)]

    assert common(made[0], made[1], 128) == common(int(one), int(other), 128)


@pytest.mark.parametrize(
    "network", ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7"]
)
@given(data=st.data())
def test_a_private_address_stays_private(network: str, data: st.DataObject) -> None:
    inside = ipaddress.ip_network(network)
    last = inside.num_addresses - 1
    address = inside[data.draw(st.integers(0, last))]

    assert ipaddress.ip_address(PSEUDONYMS.address(str(address))) in inside


@given(fours)
def test_a_public_address_stays_public(address: ipaddress.IPv4Address) -> None:
    made = ipaddress.IPv4Address(PSEUDONYMS.address(str(address)))

    for private in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "127.0.0.0/8"):
        network = ipaddress.ip_network(private)
        assert (made in network) == (address in network)


@pytest.mark.parametrize(
    "text",
    [
        "127.0.0.1",
        "0.0.0.1",
        "255.255.255.0",
        "169.254.169.254",
        "224.0.0.5",
        "::1",
        "::",
        "ff02::1",
    ],
)
def test_an_address_that_identifies_nobody_is_kept(text: str) -> None:
    assert PSEUDONYMS.address(text) == text


def test_the_order_in_a_subnet_is_kept() -> None:
    made = [PSEUDONYMS.address(f"10.1.2.{last}") for last in range(256)]

    assert [int(its.rpartition(".")[2]) for its in made] == list(range(256))
    assert made[0] != "10.1.2.0"


@pytest.mark.parametrize("network", ["10.20.0.0/16", "10.20.0.0/24", "fd12:3456::/32"])
def test_a_network_still_contains_its_addresses(network: str) -> None:
    made = ipaddress.ip_network(PSEUDONYMS.address(network))  # raises if there are host bits

    for number in (1, 2, 77):
        address = str(ipaddress.ip_network(network)[number])
        assert ipaddress.ip_address(PSEUDONYMS.address(address)) in made


def test_an_address_derived_from_a_mac_stays_derived_from_it() -> None:
    made = PSEUDONYMS.mac("fa:16:3e:12:34:56").split(":")

    assert ipaddress.ip_address(PSEUDONYMS.address("fe80::f816:3eff:fe12:3456")) == (
        ipaddress.ip_address(f"fe80::f816:3eff:fe{made[3]}:{made[4]}{made[5]}")
    )


def test_a_long_host_name_begins_with_the_short_one() -> None:
    short, long = PSEUDONYMS.host("compute7"), PSEUDONYMS.host("compute7.example.com")

    assert long == f"{short}.{PSEUDONYMS.name('example')}.com"


def test_hosts_of_one_domain_stay_in_one() -> None:
    one, other = PSEUDONYMS.host("a7.dc2.acme.org"), PSEUDONYMS.host("b7.dc3.acme.org")

    assert one.split(".")[1:] != other.split(".")[1:]
    assert one.split(".")[2:] == other.split(".")[2:] == [PSEUDONYMS.name("acme"), "org"]


def test_another_key_gives_other_pseudonyms() -> None:
    other = Pseudonyms(b"o" * 32)

    assert PSEUDONYMS.name("web") != other.name("web")
    assert PSEUDONYMS.uuid(str(uuid.UUID(int=7, version=4))) != other.uuid(
        str(uuid.UUID(int=7, version=4))
    )
    assert PSEUDONYMS.address("10.20.30.40") != other.address("10.20.30.40")


def test_a_key_is_created_once_and_only_for_its_owner(tmp_path: Path) -> None:
    made = key(tmp_path / "key")

    assert key(tmp_path / "key") == made
    assert len(made) == 32
    assert stat.S_IMODE((tmp_path / "key").stat().st_mode) == 0o600


def test_without_a_file_every_key_is_new() -> None:
    assert key(None) != key(None)


def test_a_file_without_a_key_is_refused(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("password\n")
    (tmp_path / "key").chmod(0o600)

    with pytest.raises(ValueError, match="does not hold a key"):
        key(tmp_path / "key")
