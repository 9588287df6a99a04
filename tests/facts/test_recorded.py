"""Facts of a real host: its layers agree, and damaged answers never make the reader fail."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hoodsnap.bundle import Answer, parse
from hoodsnap.facts.domain.domain import Domain
from hoodsnap.facts.fact import Fact, UnheardError
from hoodsnap.facts.process.monitor import Monitor
from hoodsnap.facts.process.process import Process

LAYERS = ("libvirt", "kernel", "qemu")


@cache
def answers(recorded: bytes) -> tuple[Answer, ...]:
    by_layer = parse(recorded).by_layer
    return tuple(answer for layer in LAYERS for answer in by_layer.get(layer, ()))


def facts(said: Iterable[Answer]) -> list[Fact]:
    layers: dict[str, list[Answer]] = {layer: [] for layer in LAYERS}
    for answer in said:
        layers[answer.layer].append(answer)
    return [
        *Domain.read_all(layers["libvirt"]).values(),
        *Process.read_all(layers["kernel"]).values(),
        *Monitor.read_all(layers["qemu"]).values(),
    ]


def heard(fact: Fact) -> dict[str, object]:
    """Return all fields that can be read. Exceptions other than `UnheardError` are raised."""
    found: dict[str, object] = {}
    for field in fact.places:
        try:
            found[field] = getattr(fact, field)
        except UnheardError:
            continue
    return found


def test_libvirt_and_the_kernel_agree_on_every_running_guest(recorded: bytes) -> None:
    read = facts(answers(recorded))
    processes = {
        fact.uuid: fact for fact in read if isinstance(fact, Process) and not fact.is_probe
    }
    running = [fact for fact in read if isinstance(fact, Domain) and fact.id is not None]

    assert len(running) > 3
    for domain in running:
        process = processes[domain.uuid]
        assert domain.name == process.name
        assert domain.memory_kib == process.memory_kib
        assert (domain.vcpus, domain.current_vcpus) == (process.max_vcpus, process.vcpus)
        assert domain.machine == process.machine
        assert domain.smbios == process.smbios
        assert sorted(domain.macs) == sorted(process.macs)
        # Devices that were attached later are not on the command line.
        chains = {disk.source: disk.backing for disk in domain.disks}
        for drive in process.disks:
            below = [(node.source, node.format) for node in drive.backing or ()]
            assert below == [(image.source, image.format) for image in chains[drive.source] or ()]


def test_every_field_of_every_running_guest_can_be_read(recorded: bytes) -> None:
    for fact in facts(answers(recorded)):
        if isinstance(fact, Domain) and fact.id is not None:
            assert set(heard(fact)) == set(fact.places)


anything = st.recursive(
    st.none()
    | st.booleans()
    | st.floats()
    | st.integers()
    | st.just(10**400)
    | st.text(max_size=9),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=5,
)


def damaged(data: st.DataObject, value: Any) -> Any:
    """Return the value with one place in it changed."""
    kind = data.draw(st.integers(0, 3))
    if isinstance(value, str) and value and kind:
        start = data.draw(st.integers(0, len(value)))
        cut = data.draw(st.integers(0, 40))
        return value[:start] + data.draw(st.text(max_size=5)) + value[start + cut :]
    if isinstance(value, dict) and value and kind:
        key = data.draw(st.sampled_from(sorted(value)))
        return value | {key: damaged(data, value[key])}
    if isinstance(value, list) and value and kind:
        at = data.draw(st.integers(0, len(value) - 1))
        return [*value[:at], damaged(data, value[at]), *value[at + 1 :]]
    return data.draw(anything)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_damaged_answers_never_make_the_reader_fail(recorded: bytes, data: st.DataObject) -> None:
    good = answers(recorded)
    subjects = sorted({answer.subject for answer in good if answer.subject is not None})
    subject = data.draw(st.sampled_from(subjects))
    # One guest's answers and the lists: enough to damage, few enough to read often.
    said = [answer for answer in good if answer.subject in (None, subject)]
    hurt = data.draw(st.sets(st.integers(0, len(said) - 1), max_size=4))
    for at in hurt:
        if said[at].error is None:
            value = damaged(data, said[at].value)
            said[at] = said[at].model_copy(update={"value": value})

    for fact in facts(said):
        heard(fact)
