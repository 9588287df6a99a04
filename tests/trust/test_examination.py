"""Examination of a bundle: its fingerprint, signature and challenge."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from tests.command import hoodsnap
from tests.conftest import HEALTHY, RecordedHost, healthy
from typer.testing import CliRunner

from hoodsnap.bundle import Answer, Bundle, load, save
from hoodsnap.cli import program
from hoodsnap.collect.host import answer_challenge
from hoodsnap.collect.recorder import Recorder
from hoodsnap.collect.visit import Wishes
from hoodsnap.trust.challenge import doubts
from hoodsnap.trust.fingerprint import (
    LAYER,
    SIGNATURE,
    fingerprint,
    fingerprinted,
    recorded,
    signed,
    verify,
)
from hoodsnap.trust.signature import sign, signer

needs_ssh = pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="needs ssh-keygen")


@pytest.fixture
def host() -> RecordedHost:
    """The healthy recording, without its fingerprint and other answers of hoodsnap itself."""
    bundle = healthy()
    answers = [answer for answer in bundle.answers if answer.layer != LAYER]
    return RecordedHost(bundle.with_answers(answers))


@pytest.fixture
def written(host: RecordedHost, tmp_path: Path) -> Path:
    """The recording as `collect` writes it."""
    save(fingerprinted(host.bundle), tmp_path / "written.json.gz")
    return tmp_path / "written.json.gz"


def key(path: Path) -> Path:
    command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", str(path)]
    subprocess.run(command, check=True)
    return path


@pytest.fixture
def alice(tmp_path: Path) -> Path:
    return key(tmp_path / "alice")


@pytest.fixture
def allowed(alice: Path, tmp_path: Path) -> Path:
    """A file that allows alice to sign."""
    public = alice.with_suffix(".pub").read_text()
    (tmp_path / "allowed").write_text(f"alice@example.org {public}")
    return tmp_path / "allowed"


def save_signed(bundle: Bundle, with_key: Path, path: Path) -> Path:
    bundle = fingerprinted(bundle)
    save(signed(bundle, sign(fingerprint(bundle), with_key)), path)
    return path


def test_an_intact_bundle_ends_with_0(written: Path, host: RecordedHost) -> None:
    done = hoodsnap("verify", written)

    count = len(host.bundle.answers)
    head = f"{written}: intact\n  {count} answers, {fingerprint(host.bundle)}\n"
    assert (done.returncode, done.stdout.decode()) == (0, head)


def test_a_changed_bundle_ends_with_1_and_names_the_answer(
    written: Path, host: RecordedHost, tmp_path: Path
) -> None:
    host.bundle = load(written)
    query = f"/proc/{host.pid('vm-plain')}/cmdline"
    host.edit("kernel", query, "-smp\x001,", "-smp\x002,")
    save(host.bundle, tmp_path / "forged.json")
    done = hoodsnap("verify", tmp_path / "forged.json")

    assert done.returncode == 1
    first, _, *rest = done.stdout.decode().splitlines()
    assert first == f"{tmp_path}/forged.json: changed since it was written"
    assert rest == [f"  changed: kernel: {query}"]


def test_a_bundle_without_a_fingerprint_ends_with_3(host: RecordedHost, tmp_path: Path) -> None:
    save(host.bundle, tmp_path / "old.json")
    done = hoodsnap("verify", tmp_path / "old.json")

    assert done.returncode == 3
    assert b"can't be verified: it has no fingerprint" in done.stdout


def test_several_bundles_are_examined_and_the_worst_one_counts(
    written: Path, tmp_path: Path
) -> None:
    (tmp_path / "cut.json").write_bytes(b'{"format":1,')
    done = hoodsnap("verify", "--format", "json", written, tmp_path / "cut.json")

    assert done.returncode == 3
    assert b"cut.json can't be read: it is truncated" in done.stderr
    [found] = json.loads(done.stdout)["bundles"]
    assert (found["bundle"], found["intact"], found["altered"]) == (str(written), True, [])


@needs_ssh
def test_a_signature_of_an_allowed_signer(
    host: RecordedHost, alice: Path, allowed: Path, tmp_path: Path
) -> None:
    path = save_signed(host.bundle, alice, tmp_path / "signed.json.zst")
    done = hoodsnap("verify", "--allowed-signers", allowed, path)

    assert done.returncode == 0
    assert done.stdout.decode().splitlines()[0] == f"{path}: intact"
    assert "  signed by alice@example.org" in done.stdout.decode().splitlines()


@needs_ssh
def test_a_signature_stays_valid_if_the_bundle_is_compressed_again(
    host: RecordedHost, alice: Path, allowed: Path, tmp_path: Path
) -> None:
    path = save_signed(host.bundle, alice, tmp_path / "signed.json.zst")
    save(load(path), tmp_path / "other.json.gz")

    assert (
        hoodsnap("verify", "--allowed-signers", allowed, tmp_path / "other.json.gz").returncode == 0
    )


@needs_ssh
def test_a_bundle_that_is_not_signed(written: Path, allowed: Path) -> None:
    done = hoodsnap("verify", "--allowed-signers", allowed, written)

    assert done.returncode == 1
    assert done.stdout.decode().splitlines()[2:] == ["  it is not signed"]


@needs_ssh
def test_a_signature_by_another_signer(host: RecordedHost, allowed: Path, tmp_path: Path) -> None:
    path = save_signed(host.bundle, key(tmp_path / "mallory"), tmp_path / "signed.json")
    done = hoodsnap("verify", "--allowed-signers", allowed, path)

    assert done.returncode == 1
    assert f"its signer is not listed in {allowed}" in done.stdout.decode()


@needs_ssh
def test_a_signature_that_was_taken_from_another_bundle(
    host: RecordedHost, alice: Path, allowed: Path, tmp_path: Path
) -> None:
    good = load(save_signed(host.bundle, alice, tmp_path / "signed.json"))
    host.drop(lambda answer: answer.query != "virsh capabilities")
    made_up = fingerprinted(host.bundle)
    save(made_up.with_answers([*made_up.answers, good.answers[-1]]), tmp_path / "forged.json")
    done = hoodsnap("verify", "--allowed-signers", allowed, tmp_path / "forged.json")

    assert done.returncode == 1
    assert "its signature is for another bundle or another purpose" in str(done.stdout)


@needs_ssh
def test_a_signature_that_was_made_for_another_purpose(
    host: RecordedHost, alice: Path, allowed: Path, tmp_path: Path
) -> None:
    bundle = fingerprinted(host.bundle)
    command = ["ssh-keygen", "-Y", "sign", "-f", str(alice), "-n", "git"]
    text = f"{fingerprint(bundle)}\n"
    made = subprocess.run(command, input=text, capture_output=True, text=True, check=True).stdout
    save(signed(bundle, made), tmp_path / "signed.json")

    assert (
        hoodsnap("verify", "--allowed-signers", allowed, tmp_path / "signed.json").returncode == 1
    )


@needs_ssh
def test_a_signature_can_be_checked_by_hand(
    host: RecordedHost, alice: Path, allowed: Path, tmp_path: Path
) -> None:
    bundle = load(save_signed(host.bundle, alice, tmp_path / "signed.json"))
    (tmp_path / "sig").write_text(bundle.answers[-1].value)
    command = ["ssh-keygen", "-Y", "verify", "-f", str(allowed), "-I", "alice@example.org"]
    command += ["-n", "hoodsnap", "-s", str(tmp_path / "sig")]
    line = f"{verify(bundle).fingerprint}\n"

    assert subprocess.run(command, input=line, text=True, capture_output=True).returncode == 0


@pytest.mark.parametrize("signature", [None, 7, "", "no signature", "\ud800", "x" * 100_000])
@needs_ssh
def test_a_signature_that_can_not_be_read(
    host: RecordedHost, allowed: Path, tmp_path: Path, signature: object
) -> None:
    bundle = signed(fingerprinted(host.bundle), signature)  # type: ignore[arg-type]  # a stranger's
    save(bundle, tmp_path / "odd.json")

    assert hoodsnap("verify", "--allowed-signers", allowed, tmp_path / "odd.json").returncode == 1


def test_without_ssh_keygen_signatures_can_not_be_checked(
    host: RecordedHost, tmp_path: Path
) -> None:
    (tmp_path / "allowed").write_text("")
    save(signed(fingerprinted(host.bundle), "anything"), tmp_path / "signed.json")
    arguments = ("verify", "--allowed-signers", tmp_path / "allowed", tmp_path / "signed.json")
    done = hoodsnap(*arguments, PATH=str(tmp_path))

    assert done.returncode == 3
    assert done.stderr == b"hoodsnap: signatures can't be checked: ssh-keygen is not installed\n"


def test_a_missing_file_of_signers_is_a_usage_error(written: Path) -> None:
    done = hoodsnap("verify", "--allowed-signers", "/nowhere", written)

    assert (done.returncode, done.stdout) == (2, b"")


def test_a_missing_key_is_a_usage_error_before_anything_is_collected() -> None:
    done = hoodsnap("collect", "--sign", "/nowhere", "-o", "/nowhere/bundle.json")

    assert done.returncode == 2
    assert done.stderr == b"hoodsnap: can't sign with /nowhere: no such file\n"


def test_without_ssh_keygen_nothing_is_collected_for_signing(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("")
    done = hoodsnap("collect", "--sign", tmp_path / "key", PATH=str(tmp_path))

    assert done.returncode == 3
    assert done.stderr == b"hoodsnap: the bundle can't be signed: ssh-keygen is not installed\n"


class RecordedVisit:
    """A visit that returns the recorded host at once."""

    def __init__(self, wishes: Wishes, phase: object) -> None:
        self.wishes = wishes
        self.recorder = Recorder("vm")

    def run(self) -> None: ...

    def bundle(self) -> Bundle:
        text = self.wishes.challenge
        return healthy() if text is None else challenged(healthy(), text)


@pytest.fixture
def collected(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., tuple[int, Path]]:
    """Return a function that runs `hoodsnap collect`; it returns exit status and output path."""
    monkeypatch.setattr("hoodsnap.collect.visit.Visit", RecordedVisit)

    def collect(*options: str | Path) -> tuple[int, Path]:
        path = tmp_path / "collected.json.gz"
        done = CliRunner().invoke(program(), ["collect", "-o", str(path), *map(str, options)])
        return done.exit_code, path

    return collect


def test_every_collected_bundle_has_a_fingerprint(
    collected: Callable[..., tuple[int, Path]],
) -> None:
    status, path = collected()

    assert status == 0
    assert verify(load(path)).intact


@needs_ssh
def test_collect_signs_a_bundle_and_answers_a_challenge(
    collected: Callable[..., tuple[int, Path]], alice: Path, allowed: Path
) -> None:
    status, path = collected("--sign", alice, "--challenge", "winter-7")

    assert status == 0
    bundle = load(path)
    assert verify(bundle).intact
    assert list(doubts(bundle, "winter-7", None, bundle.ended)) == []
    assert signer(fingerprint(bundle), bundle.answers[-1].value, allowed) == "alice@example.org"


@needs_ssh
def test_a_bundle_that_can_not_be_signed_is_kept(
    collected: Callable[..., tuple[int, Path]], tmp_path: Path
) -> None:
    (tmp_path / "nonsense").write_text("no key\n")
    status, path = collected("--sign", tmp_path / "nonsense")

    assert status == 3
    assert verify(load(path)).intact
    assert recorded(load(path), SIGNATURE) is None


def challenged(bundle: Bundle, text: str = "winter-7") -> Bundle:
    """Return the recording with an answer to a challenge."""
    recorder = Recorder(bundle.answers[0].host)
    answer_challenge(recorder, text)
    [answer] = recorder.answers
    boots = next(iter(bundle.asked("kernel", "/proc/sys/kernel/random/boot_id")))
    clock = {"boot_id": boots.value.strip(), "utc": bundle.started.isoformat()}
    raw = answer.model_dump(exclude={"error", "value"}) | {"at": bundle.started}
    return bundle.with_answers([Answer(**raw, value={**answer.value, **clock}), *bundle.answers])


def test_a_challenge_has_the_text_the_boot_and_the_clock() -> None:
    recorder = Recorder("vm")
    answer_challenge(recorder, "winter-7")
    [answer] = recorder.answers

    assert (answer.layer, answer.query) == ("hoodsnap", "hoodsnap challenge")
    assert answer.value["challenge"] == "winter-7"
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    assert answer.value["boot_id"] == boot
    assert {"utc", "monotonic", "boottime"} < set(answer.value)


def test_a_challenge_that_was_answered(host: RecordedHost) -> None:
    bundle = challenged(host.bundle)
    now = bundle.ended + timedelta(minutes=10)

    assert list(doubts(bundle, "winter-7", timedelta(minutes=15), now)) == []
    assert list(doubts(bundle, "winter-7", None, now + timedelta(days=99))) == []


def test_the_fingerprint_covers_the_challenge(host: RecordedHost) -> None:
    bundle = fingerprinted(challenged(host.bundle))
    first, *rest = bundle.answers
    other = first.model_copy(update={"value": {**first.value, "challenge": "summer-8"}})

    assert verify(bundle).intact
    verdict = verify(bundle.with_answers([other, *rest]))
    assert verdict.altered == ("changed: hoodsnap: hoodsnap challenge",)


def test_another_challenge(host: RecordedHost) -> None:
    bundle = challenged(host.bundle)

    assert list(doubts(bundle, "summer-8", None, bundle.ended)) == [
        "it answers a different challenge"
    ]


def test_no_challenge_and_several(host: RecordedHost) -> None:
    none, twice = host.bundle, challenged(challenged(host.bundle))

    assert list(doubts(none, "winter-7", None, none.ended)) == ["it answers no challenge"]
    assert list(doubts(twice, "winter-7", None, none.ended)) == ["it answers several challenges"]


def test_a_challenge_inserted_into_a_bundle_of_another_boot(host: RecordedHost) -> None:
    host.bundle = challenged(host.bundle)
    host.set("kernel", "/proc/sys/kernel/random/boot_id", "0b7a6f5e\n")

    assert list(doubts(host.bundle, "winter-7", None, host.bundle.ended)) == [
        "the challenge and the other answers are from different boots of the host"
    ]


@pytest.mark.parametrize("utc", ["2026-01-01T00:00:00.000000000Z", "noon", None, 7])
def test_a_challenge_inserted_into_an_older_bundle(host: RecordedHost, utc: object) -> None:
    first, *rest = challenged(host.bundle).answers
    late = first.model_copy(update={"value": {**first.value, "utc": utc}})
    bundle = host.bundle.with_answers([late, *rest])

    assert list(doubts(bundle, "winter-7", None, bundle.ended)) == [
        "the challenge's timestamp lies outside the time of collection"
    ]


def test_a_bundle_that_is_too_old_or_from_the_future(host: RecordedHost) -> None:
    bundle = challenged(host.bundle)
    within, ended = timedelta(minutes=15), f"{bundle.ended:%Y-%m-%d %H:%M}"

    assert list(doubts(bundle, "winter-7", within, bundle.ended + timedelta(minutes=16))) == [
        f"its collection ended at {ended} UTC, which is too long ago"
    ]
    assert list(doubts(bundle, "winter-7", within, bundle.started - timedelta(hours=1))) == [
        f"its collection ended at {ended} UTC, which is in the future"
    ]


def test_verify_asks_for_the_challenge(tmp_path: Path) -> None:
    then = datetime(2020, 1, 1, tzinfo=UTC)
    value = {"challenge": "winter-7", "utc": then.isoformat()}
    about = {"layer": LAYER, "host": "vm", "at": then, "took": 0.0}
    answer = Answer(**about, query="hoodsnap challenge", value=value)
    bundle = Bundle(tool="hoodsnap 0.1.0", started=then, ended=then, answers=(answer,))
    path = tmp_path / "b.json"
    save(fingerprinted(bundle), path)

    assert hoodsnap("verify", "--challenge", "winter-7", path).returncode == 0
    done = hoodsnap("verify", "--challenge", "summer-8", path)
    assert (done.returncode, done.stdout.decode().splitlines()[0]) == (
        1,
        f"{path}: intact, with doubts",
    )
    done = hoodsnap("verify", "--challenge", "winter-7", "--within", "60", path)
    assert done.stdout.decode().splitlines()[2:] == [
        "  its collection ended at 2020-01-01 00:00 UTC, which is too long ago"
    ]


def test_within_needs_a_challenge() -> None:
    assert hoodsnap("verify", "--within", "5", HEALTHY).returncode == 2
