import json

from tests.census.recordings import recording
from tests.census.swaps import _of_leaves, exchanged, things

from hoodsnap.facts.cloud.guest import Guest


def _running() -> list[Guest]:
    return [guest for guest in recording("healthy").judge.report.cloud.guests if guest.runs]


def test_two_texts_change_places_in_one_layer() -> None:
    bundle = recording("healthy").bundle
    one, other = (guest.uuid for guest in _running()[:2])

    def positions(layer: str, uuid: str, of: object) -> list[int]:
        return [
            json.dumps(answer.value).find(uuid)
            for answer in of.by_layer[layer]  # type: ignore[attr-defined]
        ]

    swapped = exchanged(bundle, "libvirt", one, other)

    assert positions("libvirt", one, swapped) == positions("libvirt", other, bundle)
    assert positions("nova", one, swapped) == positions("nova", one, bundle)


def test_the_things_of_a_guest_are_its_own() -> None:
    [one, other, *_] = [things(guest) for guest in _running()]

    assert {"UUID", "name", "domain name", "port", "MAC address", "tap", "disk file"} <= one.keys()
    assert all(not {*one[name]} & {*other[name]} for name in one.keys() & other.keys())


def test_rows_that_differ_in_nothing_else_are_the_same_when_swapped() -> None:
    found = {(one.swap[1], one.swap[2]) for one in _of_leaves("healthy", _running())}
    assert ("SELECT nova.instance_id_mappings", "[uuid]") not in found
    # A process' open files are rows of another list than another process' are.
    assert ("ls -lL /proc/PID/fd", "[].path") in found
    assert ("SELECT nova.virtual_interfaces", "[instance_uuid]") in found
