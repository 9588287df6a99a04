"""libvirt's own protocol, answered from a recording."""

from __future__ import annotations

import struct
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.conftest import RecordedHost, healthy

from hoodsnap.replay.libvirtd import connection, xdr
from hoodsnap.replay.libvirtd.libvirtd import Libvirtd
from hoodsnap.replay.libvirtd.procedure import PROCEDURES, QEMU, REMOTE, WRITES, procedure
from hoodsnap.replay.recording import Recording, hosts

ALL = 273
STATE, XML, INFO, BY_NAME, DESTROY, DOMSTATS, MONITOR = 212, 14, 16, 23, 12, 344, 1


class Client:
    """Speaks the protocol without a socket."""

    def __init__(self, host: RecordedHost) -> None:
        (name,) = hosts(host.bundle)
        self.recording = Recording(host.bundle, name)
        self.daemon = Libvirtd(self.recording)

    def call(self, number: int, payload: bytes = b"", program: int = REMOTE) -> xdr.Reader:
        """Return the result of a call; raise `ValueError` with the text of an error."""
        header = struct.pack(">IIiIII", program, 1, number, 0, 7, 0)
        reply = self.daemon.reply(header + payload)
        assert int.from_bytes(reply[:4], "big") == len(reply)
        back = struct.unpack_from(">IIiIII", reply, 4)
        assert back[:5] == (program, 1, number, 1, 7)
        result = xdr.Reader(reply[28:])
        if back[5]:
            result.int(), result.int()
            raise ValueError(result.optional_string())
        return result

    def domain(self, host: RecordedHost, name: str) -> bytes:
        domain = host.guest(name).domain
        assert domain is not None
        number = -1 if domain.id is None else domain.id
        return xdr.string(domain.name) + UUID(domain.uuid).bytes + xdr.int_(number)


@pytest.fixture
def client(host: RecordedHost) -> Client:
    return Client(host)


def test_all_recorded_domains_are_listed(client: Client, host: RecordedHost) -> None:
    listed = host.last("libvirt", "virsh list --all").value

    reply = client.call(ALL, xdr.int_(1) + xdr.uint(0))

    found = [(reply.string(), reply.uuid(), reply.int()) for _ in range(reply.uint())]
    assert found == [(row["name"], row["uuid"], row["id"] or -1) for row in listed]


def test_only_active_domains_are_listed_on_request(client: Client, host: RecordedHost) -> None:
    listed = host.last("libvirt", "virsh list --all").value

    reply = client.call(ALL, xdr.int_(1) + xdr.uint(1))

    assert reply.uint() == sum(row["id"] is not None for row in listed)


@pytest.mark.parametrize("flags", [0, 2])
def test_a_document_is_the_recorded_text(client: Client, host: RecordedHost, flags: int) -> None:
    name = host.domain("vm-plain")
    option = "--inactive " if flags else ""

    text = client.call(XML, client.domain(host, "vm-plain") + xdr.uint(flags)).string()

    assert text == host.last("libvirt", f"virsh dumpxml {option}{name}").value


def test_a_domain_that_is_shut_off_has_a_single_document(
    client: Client, host: RecordedHost
) -> None:
    name = host.domain("vm-stopped")

    text = client.call(XML, client.domain(host, "vm-stopped") + xdr.uint(0)).string()

    assert text == host.last("libvirt", f"virsh dumpxml --inactive {name}").value


def test_a_document_with_secrets_was_not_recorded(client: Client, host: RecordedHost) -> None:
    with pytest.raises(ValueError, match="flags 0x1 was not recorded"):
        client.call(XML, client.domain(host, "vm-plain") + xdr.uint(1))


def test_a_state_has_its_reason(client: Client, host: RecordedHost) -> None:
    reply = client.call(STATE, client.domain(host, "vm-paused") + xdr.uint(0))

    assert (reply.int(), reply.int()) == (3, 1)  # paused by a user


def test_info_has_the_recorded_numbers(client: Client, host: RecordedHost) -> None:
    recorded = host.last("libvirt", f"virsh dominfo {host.domain('vm-duo')}").value

    reply = client.call(INFO, client.domain(host, "vm-duo"))

    assert reply.uint() == 1
    assert int.from_bytes(reply.opaque(8), "big") == recorded["max_memory_kib"]
    reply.opaque(8)
    assert reply.uint() == 2


def test_an_unknown_name_is_not_found(client: Client) -> None:
    with pytest.raises(ValueError, match="no domain with matching name 'instance-ffffffff'"):
        client.call(BY_NAME, xdr.string("instance-ffffffff"))


def test_nothing_can_be_changed(client: Client, host: RecordedHost) -> None:
    with pytest.raises(ValueError, match="destroy can't change a recording"):
        client.call(DESTROY, client.domain(host, "vm-plain"))

    assert ("libvirt", "destroy can't change a recording") in client.recording.missed


def test_no_procedure_that_writes_is_answered() -> None:
    assert not {number for program, number in PROCEDURES if program == REMOTE} & WRITES.keys()


def test_a_call_that_was_not_recorded_is_named(client: Client) -> None:
    with pytest.raises(ValueError, match="domstats was not recorded"):
        client.call(DOMSTATS, xdr.uint(0) * 3)
    with pytest.raises(ValueError, match="libvirt's call 0x20008086/9999 was not recorded"):
        client.call(9999)


def test_a_query_that_failed_is_not_an_answer(host: RecordedHost) -> None:
    host.silence("libvirt", "denied")

    with pytest.raises(ValueError, match="virsh list --all failed when it was recorded: no answer"):
        Client(host).call(ALL, xdr.int_(1) + xdr.uint(0))


def test_nova_metadata_is_shown_as_libvirt_shows_it(client: Client, host: RecordedHost) -> None:
    uri = "http://openstack.org/xmlns/libvirt/nova/1.1"
    asked = xdr.int_(2) + xdr.optional_string(uri) + xdr.uint(0)

    text = client.call(265, client.domain(host, "vm-plain") + asked).string()

    assert text.startswith('<instance>\n  <package version="')
    assert text.endswith("\n</instance>")
    assert "<nova:" not in text


def test_a_monitor_answers_a_recorded_command(monitored: RecordedHost) -> None:
    client = Client(monitored)
    domain = next(row for row in monitored.last("libvirt", "virsh list --all").value if row["id"])
    encoded = xdr.string(domain["name"]) + UUID(domain["uuid"]).bytes + xdr.int_(domain["id"])

    asked = xdr.string('{"execute": "query-uuid", "id": 5}') + xdr.uint(0)
    reply = client.call(MONITOR, encoded + asked, QEMU).string()
    quit_ = client.call(MONITOR, encoded + xdr.string('{"execute": "quit"}') + xdr.uint(0), QEMU)

    assert reply == f'{{"return":{{"UUID":"{domain["uuid"]}"}},"id":5}}'
    assert "hoodsnap: quit was not recorded" in quit_.string()


@given(
    number=st.sampled_from(sorted(number for _, number in PROCEDURES)),
    payload=st.binary(max_size=64),
)
def test_no_message_breaks_the_stand_in(number: int, payload: bytes) -> None:
    (name,) = hosts(healthy())
    daemon = Libvirtd(Recording(healthy(), name))

    reply = daemon.reply(struct.pack(">IIiIII", REMOTE, 1, number, 0, 1, 0) + payload)

    assert struct.unpack_from(">IIiIII", reply, 4)[5] in (0, 1)


def test_two_functions_can_t_answer_one_call() -> None:
    with pytest.raises(ValueError, match="two functions answer 0x20008086/1"):
        procedure(1)(connection.connect_open)


def test_a_keepalive_ping_gets_a_pong(client: Client) -> None:
    ping = struct.pack(">IIiIII", 0x6B656570, 1, 1, 2, 0, 0)

    assert client.daemon.reply(ping)[4:] == struct.pack(">IIiIII", 0x6B656570, 1, 2, 2, 0, 0)


def test_a_message_that_is_not_a_call_gets_no_reply(client: Client) -> None:
    for kind in (1, 2, 3):
        assert client.daemon.reply(struct.pack(">IIiIII", REMOTE, 1, ALL, kind, 1, 0)) == b""


def test_a_number_that_does_not_fit_is_not_truncated() -> None:
    for number in (1 << 31, -(1 << 31) - 1):
        with pytest.raises(struct.error):
            xdr.int_(number)
    with pytest.raises(struct.error):
        xdr.uint(-1)
