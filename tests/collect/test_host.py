from __future__ import annotations

import json
import os
import re
import socket
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from hoodsnap.bundle import Answer
from hoodsnap.collect import host as module
from hoodsnap.collect.configuration import NovaConf, read_nova_conf
from hoodsnap.collect.host import ask_host, nova_host_name
from hoodsnap.collect.recorder import Recorder, RefusedError
from hoodsnap.collect.trusted.service import Found, RunningService
from hoodsnap.keep.nova_conf import Configuration

SECRET = "c0rrect-h0rse"  # noqa: S105 (it is planted, to be looked for)


def conf_of(options: Configuration, nova: RunningService | None = None) -> NovaConf:
    found = Found("nova-compute", (nova,) if nova else (), ())
    return NovaConf(options, found, files=("/etc/nova/nova.conf",))


def asked(conf: Configuration | NovaConf, nova: RunningService | None = None) -> dict[str, Answer]:
    recorder = Recorder("here")
    ask_host(recorder, conf if isinstance(conf, NovaConf) else conf_of(conf, nova))
    return {answer.query: answer for answer in recorder.answers}


def value(answer: Answer) -> Any:
    assert answer.error is None, answer.error
    return answer.value


def test_a_host_without_nova_answers_everything_else() -> None:
    answers = asked({"DEFAULT": {"state_path": "/nowhere"}})

    absent = answers["cat /nowhere/compute_id"].error
    assert absent is not None
    assert absent.kind == "absent"
    assert value(answers["hostname"]) == socket.gethostname()
    assert value(answers["uname -a"]).startswith("Linux ")
    assert value(answers["id"]).startswith(f"uid={os.getuid()}(")
    assert "NAME=" in value(answers["cat /etc/os-release"])
    assert value(answers["readlink /proc/self/ns/*"])["mnt"] == os.readlink("/proc/self/ns/mnt")
    assert re.fullmatch(r"[+-]\d{4} \w+", value(answers["date '+%z %Z'"]))
    assert answers["/etc/nova/nova.conf"].value == {"DEFAULT": {"state_path": "/nowhere"}}


def test_kernel_files_are_kept_verbatim() -> None:
    answers = asked({})

    boot_id = Path("/proc/sys/kernel/random/boot_id").read_text()
    assert value(answers["/proc/sys/kernel/random/boot_id"]) == boot_id
    assert value(answers["/proc/meminfo"]).startswith("MemTotal:")
    assert " / " in value(answers["/proc/self/mountinfo"])
    assert float(value(answers["/proc/uptime"]).split()[0]) > 0
    kernel = {answer.query for answer in answers.values() if answer.layer == "kernel"}
    assert kernel == {
        "/proc/sys/kernel/random/boot_id",
        "/proc/meminfo",
        "/proc/self/mountinfo",
        "/proc/uptime",
        "/proc/stat",
        "/proc/loadavg",
        "/proc/version",
        "/proc/cpuinfo",
        "/proc/sys/kernel/pid_max",
        "/proc/sys/kernel/osrelease",
        "/proc/sys/fs/aio-nr",
        "/proc/sys/fs/aio-max-nr",
    }


def test_the_time_is_read_together_with_the_monotonic_clocks() -> None:
    now = value(asked({})["date --utc"])

    read = datetime.fromisoformat(now["utc"])
    assert abs((datetime.now(UTC) - read).total_seconds()) < 30
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z", now["utc"])
    assert now["boottime"] >= now["monotonic"] > 0


def test_the_reason_for_an_unread_configuration_is_recorded() -> None:
    refused = RefusedError("denied", "not followed: /etc/nova/nova.conf belongs to uid 4242")
    nothing = Found("nova-compute", (), ())
    half = NovaConf({"DEFAULT": {"a": "b"}}, nothing, (("/etc/nova/nova.conf", refused),), ("x",))

    for conf, kind in ((NovaConf({}, nothing), "absent"), (half, "denied")):
        error = asked(conf)["/etc/nova/nova.conf"].error
        assert error is not None
        assert error.kind == kind
    assert asked({})["/etc/nova/nova.conf"].value == {}
    recorded = asked(half)["ls -ld /etc/nova/nova.conf"].error
    assert recorded is not None
    assert recorded.message == str(refused)


def test_no_secret_of_the_configuration_is_recorded() -> None:
    configuration = {
        "DEFAULT": {"host": "compute-1", "transport_url": f"rabbit://a:{SECRET}@b"},
        "database": {"connection": f"mysql://nova:{SECRET}@db/nova"},
        "libvirt": {"rbd_secret_uuid": SECRET, "virt_type": "kvm"},
        "keystone_authtoken": {"password": SECRET},
    }
    answers = asked(configuration)

    assert SECRET not in json.dumps([answer.as_json() for answer in answers.values()])
    assert answers["/etc/nova/nova.conf"].value == {
        "DEFAULT": {"host": "compute-1"},
        "libvirt": {"virt_type": "kvm"},
    }


@pytest.mark.parametrize(
    ("folder", "entry", "version"),
    [
        ("lib/python3/dist-packages", "nova-26.2.2.egg-info", "26.2.2"),
        ("lib/python3.9/site-packages", "nova-25.3.1.dev2-py3.9.egg-info", "25.3.1.dev2"),
        ("lib/python3.12/site-packages", "nova-31.0.0.dist-info", "31.0.0"),
        ("lib/python3.12/site-packages", "nova-client-18.0.dist-info", None),
        ("lib", "nova-1.dist-info", None),
    ],
)
def test_the_version_of_nova_is_read_from_its_prefix(
    folder: str, entry: str, version: str | None, tmp_path: Path
) -> None:
    (tmp_path / "opt/venv" / folder / entry).mkdir(parents=True)
    nova = RunningService(1, tmp_path, Path("/opt/venv/bin/nova-compute"), ())

    assert asked({}, nova)["nova-compute --version"].value == version


def test_the_compute_id_is_read_in_the_root_of_nova_compute(tmp_path: Path) -> None:
    (tmp_path / "srv").mkdir()
    (tmp_path / "srv/compute_id").write_text("5d0bd2e5-9d3c-4bd8-8ee5-7b0d5ac0d1d5\n")
    nova = RunningService(1, tmp_path, Path("/usr/bin/nova-compute"), ())

    answers = asked({"DEFAULT": {"state_path": "/srv"}}, nova)

    assert value(answers["cat /srv/compute_id"]) == "5d0bd2e5-9d3c-4bd8-8ee5-7b0d5ac0d1d5\n"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can own what libvirt reads")
def test_only_harmless_options_of_libvirt_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "etc/libvirt"
    folder.mkdir(parents=True)
    (folder / "qemu.conf").write_text(
        f'# user = "nobody"\nuser = "+64055"\ndynamic_ownership=0 # not ours\nvnc_listen = "10.0.0.1"\n'
        f'vnc_password = "{SECRET}"\nspice_password = "{SECRET}"\nmigrate_tls_x509_secret_uuid = "{SECRET}"\n'
    )
    daemon = RunningService(1, tmp_path, Path("/usr/sbin/virtqemud"), ())
    running = {"virtqemud": (daemon,)}
    monkeypatch.setattr(module, "find", lambda name: Found(name, running.get(name, ()), ()))

    answers = asked({})

    assert value(answers["/etc/libvirt/qemu.conf"]) == {
        "user": "+64055", "dynamic_ownership": "0", "vnc_listen": "10.0.0.1",
    }  # fmt: skip
    absent = answers["/etc/libvirt/virtlogd.conf"].error
    assert absent is not None
    assert absent.kind == "absent"
    assert SECRET not in json.dumps([answer.as_json() for answer in answers.values()])


def test_nova_conf_may_rename_the_host() -> None:
    assert nova_host_name({"DEFAULT": {"host": "cell1-compute-7"}}) == "cell1-compute-7"
    assert nova_host_name({}) == socket.gethostname()


def test_a_compute_id_that_is_not_a_uuid_is_not_kept(tmp_path: Path) -> None:
    (tmp_path / "srv").mkdir()
    (tmp_path / "srv/compute_id").write_text(f"{SECRET}\n")
    nova = RunningService(1, tmp_path, Path("/usr/bin/nova-compute"), ())

    answers = asked({"DEFAULT": {"state_path": "/srv"}}, nova)

    assert answers["cat /srv/compute_id"].error is not None
    assert SECRET not in json.dumps([answer.as_json() for answer in answers.values()])


@pytest.mark.lab
def test_the_lab_answers_everything() -> None:
    conf = read_nova_conf()
    configuration = conf.options
    answers = asked(conf)

    failed = [answer.query for answer in answers.values() if answer.error]
    # Other tests may be running a libvirtd under another account.
    failed = [query for query in failed if not query.startswith("ps -fp ")]
    assert failed == ["cat /var/lib/nova/compute_id"]  # nova writes it since 2023.1
    kept = value(answers["/etc/nova/nova.conf"])
    assert kept["libvirt"] == {"images_type": "qcow2", "virt_type": "qemu"}
    assert configuration["database"]["connection"].startswith("mysql+pymysql://")
    assert "hoodlab" not in json.dumps(kept)
    printed = subprocess.check_output(["/usr/bin/nova-compute", "--version"], text=True)
    assert value(answers["nova-compute --version"]) == printed.strip()
    versions = [query for query in answers if query.startswith("dpkg-query -W ")]
    assert re.search(r"^nova-compute\t\S+$", value(answers[versions[0]]), re.MULTILINE)
    assert value(answers["qemu-system-x86_64 --version"]).startswith("QEMU emulator version ")
    assert value(answers["libvirtd --version"]).startswith("libvirtd (libvirt) ")
