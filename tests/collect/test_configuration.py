from __future__ import annotations

import io
import json
import os
import random
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.collect.conftest import until

from hoodsnap.collect.configuration import NovaConf, read_nova_conf
from hoodsnap.collect.oslo_config import LONGEST, first_error, parse, substituted
from hoodsnap.collect.trusted.service import service
from hoodsnap.keep.nova_conf import Configuration, kept

PROGRAM = "nova-unittest"
"""A name that no service has, so that the services running on this host don't matter."""

words = st.from_regex(r"[a-z][a-z0-9_]{0,15}", fullmatch=True)
values = st.text(st.sampled_from("az09=:#;[]$%{}()é中,.-/\\\"'"), min_size=1, max_size=8).filter(
    lambda value: value[0] not in "\"'"
)
options = st.dictionaries(words, values, min_size=1, max_size=4)


def parsed(text: str) -> Configuration:
    return parse(io.StringIO(text))


@pytest.fixture
def host(tmp_path: Path) -> Callable[[str, str], Path]:
    def write(path: str, text: str) -> Path:
        file = tmp_path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        return tmp_path

    return write


def test_options_are_read_as_oslo_config_reads_them() -> None:
    text = """
early = 1
[DEFAULT]
# host = commented
; host = too
host=compute-1
my_ip : 10.0.0.1
empty =
quoted = " with spaces "
single = 'a=b'
twice = first
twice = last
url = http://a:1/?b=c
[Libvirt]
cpu_models = one,
    two,
\tthree

[default]
host = another section
"""
    assert parsed(text) == {
        "DEFAULT": {
            "early": "1",
            "host": "compute-1",
            "my_ip": "10.0.0.1",
            "empty": "",
            "quoted": " with spaces ",
            "single": "a=b",
            "twice": "last",
            "url": "http://a:1/?b=c",
        },
        "libvirt": {"cpu_models": "one,\ntwo,\nthree"},
        "default": {"host": "another section"},
    }


@given(st.dictionaries(words, options, min_size=1, max_size=4))
def test_any_written_configuration_is_read_back(configuration: Configuration) -> None:
    lines = []
    for section, options in configuration.items():
        lines += [f"[{section}]", *(f"{option} = {value}" for option, value in options.items())]

    assert parsed("\n".join(lines)) == configuration


@given(st.text())
def test_any_text_can_be_read(text: str) -> None:
    kept(substituted(parsed(text)))


def test_any_file_is_parsed_as_oslo_config_parses_it() -> None:
    oslo = """
import io, json, sys
from oslo_config.cfg import ConfigParser
from oslo_config.iniparser import BaseParser, ParseError
found = []
for text in json.load(sys.stdin):
    normalized = {}
    parser = ConfigParser("file", {})
    parser._add_normalized(normalized)
    try:
        BaseParser.parse(parser, io.StringIO(text).readlines())
    except ParseError:
        found.append(None)
    else:
        found.append({s: {o: v[-1] for o, v in os.items()} for s, os in normalized.items() if os})
json.dump(found, sys.stdout)
"""
    dice = random.Random(2013)  # noqa: S311 (nothing here is secret)
    starts = [
        "[DEFAULT]",
        "[Libvirt]",
        "a = ",
        "a=",
        "b : ",
        "c_d: ",
        "  ",
        "\t",
        "# ",
        ";",
        "",
        "",
    ]
    ends = [
        "",
        "1",
        "'",
        '"',
        "'x'",
        '"x" y',
        "x = y",
        "a:b",
        "#x",
        "$a",
        " é ",
        "\\",
        "[",
        "]",
        "=",
    ]

    def line() -> str:
        return dice.choice(starts) + dice.choice(ends) * dice.randrange(2) + dice.choice(ends)

    texts = ["[x]\na = 0\n" + "\n".join(line() for _ in range(4)) for _ in range(5000)]
    command = ["sh", "-c", 'exec /usr/bin/python3 -c "$0"', oslo]  # the distribution's own
    done = subprocess.run(command, input=json.dumps(texts), text=True, capture_output=True)
    if done.returncode != 0:
        pytest.skip("the distribution has no oslo.config")
    expected = json.loads(done.stdout)

    accepted = [
        (text, want) for text, want in zip(texts, expected, strict=True) if want is not None
    ]
    for text, want in zip(texts, expected, strict=True):
        assert (first_error(text.splitlines(keepends=True)) is None) == (want is not None), text
    assert len(accepted) > 1000
    for text, want in accepted:
        assert parsed(text) == want, text


def test_options_may_refer_to_other_options() -> None:
    configuration = substituted(
        {
            "DEFAULT": {
                "my_ip": "10.0.0.1",
                "state_path": "/srv/nova",
                "instances_path": "$state_path/instances",
                "deeper": "${instances_path}/x",
                "unset": "$nobody/$nobody.knows",
                "price": "5$$ or \\$my_ip",
                "self": "$self",
                "ping": "$pong",
                "pong": "$ping",
            },
            "vnc": {"server_listen": "$my_ip", "listen_again": "$server_listen", "of": "$x.y"},
            "x": {"y": "z", "my_ip": "nearer", "which": "$my_ip ${DEFAULT.my_ip}"},
        }
    )

    assert configuration["DEFAULT"] == {
        "my_ip": "10.0.0.1",
        "state_path": "/srv/nova",
        "instances_path": "/srv/nova/instances",
        "deeper": "/srv/nova/instances/x",
        "unset": "$nobody/$nobody.knows",
        "price": "5$ or $my_ip",
        "self": "$self",
        "ping": "$ping",
        "pong": "$pong",
    }
    assert configuration["vnc"] == {
        "server_listen": "10.0.0.1",
        "listen_again": "10.0.0.1",
        "of": "z",
    }
    assert configuration["x"]["which"] == "nearer 10.0.0.1"


def test_later_files_override_earlier_ones(host: Callable[[str, str], Path]) -> None:
    host("usr/share/nova/nova-dist.conf", "[DEFAULT]\na = dist\nb = dist\nc = dist\nd = dist\n")
    host("etc/nova/nova.conf", "[DEFAULT]\nb = main\nc = main\nd = main\n[libvirt]\ne = main\n")
    host(f"etc/nova/{PROGRAM}.conf", "[DEFAULT]\nc = own\nd = own\n")
    host("etc/nova/nova.conf.d/10.conf", "[DEFAULT]\nd = 10\n")
    root = host("etc/nova/nova.conf.d/20.conf", "[DEFAULT]\nd = 20\n")

    assert read_nova_conf(PROGRAM, root).options == {
        "DEFAULT": {"a": "dist", "b": "main", "c": "own", "d": "20"},
        "libvirt": {"e": "main"},
    }


@pytest.mark.parametrize(
    "path",
    [
        f"etc/kolla/{PROGRAM}/nova.conf",
        "var/lib/config-data/puppet-generated/nova_libvirt/etc/nova/nova.conf",
    ],
)
def test_the_file_of_a_containerized_nova_is_found(
    path: str, host: Callable[[str, str], Path]
) -> None:
    assert read_nova_conf(PROGRAM, host(path, "[DEFAULT]\nhost = a\n")).options == {
        "DEFAULT": {"host": "a"}
    }


def test_without_files_there_are_no_options(tmp_path: Path) -> None:
    assert read_nova_conf(PROGRAM, tmp_path).options == {}


@contextmanager
def running(folder: Path, *arguments: str) -> Iterator[int]:
    program = folder / PROGRAM
    program.write_text("import time\ntime.sleep(60)\n")
    process = subprocess.Popen([sys.executable, str(program), *arguments])
    try:
        until(lambda: service(PROGRAM))
        yield process.pid
    finally:
        process.kill()
        process.wait()


def test_files_are_taken_from_the_running_services_arguments(
    closed: Path,
) -> None:
    (closed / "first.conf").write_text("[DEFAULT]\na = first\nb = first\nc = first\n")
    (closed / "second.conf").write_text("[DEFAULT]\nb = second\nc = second\n")
    (closed / "folder").mkdir()
    (closed / "folder/1.conf").write_text("[DEFAULT]\nc = folder\n")
    (closed / "folder/ignored.txt").write_text("[DEFAULT]\nd = no\n")
    arguments = [
        "--config-file",
        f"{closed}/first.conf",
        f"--config-file={closed}/second.conf",
        "--config-dir",
        f"{closed}/folder",
    ]
    with running(closed, *arguments) as pid:
        found = service(PROGRAM)
        conf = read_nova_conf(PROGRAM)

    assert found is not None
    assert found.pid == pid
    assert found.program == closed / PROGRAM
    assert found.arguments == tuple(arguments)
    assert conf.refused == ()
    assert conf.options == {"DEFAULT": {"a": "first", "b": "second", "c": "folder"}}
    assert service(PROGRAM) is None


def test_a_process_that_reads_the_program_is_not_the_service(tmp_path: Path) -> None:
    (tmp_path / PROGRAM).write_text("")
    watcher = subprocess.Popen(["tail", "-f", str(tmp_path / PROGRAM)])
    try:
        assert service(PROGRAM) is None
    finally:
        watcher.kill()
        watcher.wait()


def test_references_to_unrecorded_options_are_not_expanded() -> None:
    secret = "c0rrect-h0rse"  # noqa: S105 (it is planted, to be looked for)
    configuration = substituted(
        {
            "DEFAULT": {
                "my_ip": "$auth",
                "auth": secret,
                "host": "${my_ip}",
                "transport_url": "rabbit://${auth}",
            },
            "keystone_authtoken": {"password": secret},
            "vnc": {"server_listen": "${keystone_authtoken.password}"},
            "database": {"connection": "mysql://nova:${keystone_authtoken.password}@db/nova"},
        }
    )

    assert kept(configuration) == {
        "DEFAULT": {"host": "$auth", "my_ip": "$auth"},
        "vnc": {"server_listen": "${keystone_authtoken.password}"},
    }
    # Options that are never recorded are expanded, as nova expands them.
    assert configuration["database"]["connection"] == f"mysql://nova:{secret}@db/nova"
    assert configuration["DEFAULT"]["transport_url"] == f"rabbit://{secret}"


def test_a_file_that_others_can_write_to_is_not_used(
    host: Callable[[str, str], Path],
) -> None:
    host("etc/nova/nova.conf", "[DEFAULT]\nhost = theirs\n")
    root = host(f"etc/nova/{PROGRAM}.conf", "[DEFAULT]\nmy_ip = ours\n")
    (root / "etc/nova/nova.conf").chmod(0o666)

    conf = read_nova_conf(PROGRAM, root)

    assert conf.options == {"DEFAULT": {"my_ip": "ours"}}
    [(path, refusal)] = conf.refused
    assert path == "/etc/nova/nova.conf"
    assert refusal.kind == "denied"
    # An option that is unset in one half of the configuration may be set in the other.
    assert conf.unread is refusal


def test_a_folder_that_others_can_write_to_is_not_used(
    host: Callable[[str, str], Path],
) -> None:
    root = host("etc/nova/nova.conf", "[DEFAULT]\nhost = ours\n")
    host("etc/nova/nova.conf.d/9.conf", "[DEFAULT]\nhost = theirs\n")
    (root / "etc/nova/nova.conf.d").chmod(0o1777)

    conf = read_nova_conf(PROGRAM, root)

    assert conf.options == {"DEFAULT": {"host": "ours"}}
    assert [path for path, _ in conf.refused] == ["/etc/nova/nova.conf.d"]


@pytest.mark.parametrize("endless", ["/dev/zero", "fifo", "large"])
def test_endless_files_are_not_read(endless: str, host: Callable[[str, str], Path]) -> None:
    root = host("etc/nova/nova.conf.d/1.conf", "[DEFAULT]\nhost = ours\n")
    file = root / "etc/nova/nova.conf"
    if endless == "fifo":
        os.mkfifo(file, 0o600)
    elif endless == "large":
        with file.open("wb") as large:
            large.truncate(1 << 40)
    elif os.geteuid() == 0:
        os.mknod(file, 0o600 | stat.S_IFCHR, os.makedev(1, 5))
    else:
        pytest.skip("only root can make a device")

    conf = read_nova_conf(PROGRAM, root)

    assert conf.options == {"DEFAULT": {"host": "ours"}}
    assert [path for path, _ in conf.refused] == ["/etc/nova/nova.conf"]


def test_the_reason_for_a_configuration_that_was_not_read_is_given() -> None:
    late, broken = NovaConf.nothing(TimeoutError()), NovaConf.nothing(OSError("no such process"))

    assert [str(conf.unread) for conf in (late, broken)] == [
        "nova.conf was not read: reading it took too long",
        "nova.conf was not read: no such process",
    ]


@pytest.mark.parametrize("last", ["", "x"])
def test_nested_references_do_not_exhaust_memory(last: str) -> None:
    options = {f"a{number}": f"$a{number + 1}" * 10 for number in range(12)} | {"a12": last}

    found = substituted({"DEFAULT": {**options, "state_path": "/srv", "host": "$state_path"}})

    assert sum(map(len, found["DEFAULT"].values())) < 8 * LONGEST
