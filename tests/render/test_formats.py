"""Formats for programs: JSON with its schema, JSON lines, SARIF, JUnit, Prometheus, Nagios."""

from __future__ import annotations

import json
import re
import subprocess
import xml.etree.ElementTree as ET
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from junitparser import Failure, JUnitXml, Skipped
from prometheus_client.parser import text_string_to_metric_families
from tests.command import hoodsnap
from tests.conftest import FAULTS, RecordedHost, healthy_report, sample

from hoodsnap.bundle import load
from hoodsnap.checks import CATALOG
from hoodsnap.evidence import Severity
from hoodsnap.findings.analysis import Report, analyze
from hoodsnap.render import json as report_json
from hoodsnap.render import junit, nagios, ndjson, prometheus, sarif
from hoodsnap.render.nagios import LONGEST, NagiosStatus

EVERY_FAULT = sorted(path.name.removesuffix(".json.zst") for path in FAULTS.glob("*.json.zst"))
HOSTILE = 'x"y|z<b>&`]]>\\{}$(id)\u202e\n--all'
"""A server name with the characters that one of the formats gives a meaning."""


@cache
def report_on(fault: str) -> Report:
    return analyze(load(FAULTS / f"{fault}.json.zst"))


@pytest.fixture
def destroyed() -> Report:
    return report_on("virsh-destroy")


@pytest.fixture
def hostile(host: RecordedHost) -> Report:
    """A broken server whose name is hostile in every format."""
    host.row("instances", host.uuid("vm-plain"), display_name=HOSTILE)
    domain = host.domain("vm-plain")
    host.set("libvirt", f"virsh domstate --reason {domain}", {"state": 5, "reason": 3})
    report = host.report()
    assert report.findings
    return report


def strict(schema: Any) -> Any:
    """Forbid fields that the schema does not list: a consumer may meet new ones, we may not."""
    if isinstance(schema, dict):
        closed = {name: strict(part) for name, part in schema.items()}
        if "properties" in closed and "type" in closed:
            closed["additionalProperties"] = False
        return closed
    return [*map(strict, schema)] if isinstance(schema, list) else schema


@cache
def validator() -> jsonschema.Draft202012Validator:
    text = (files("hoodsnap.render") / "report.schema.json").read_text()
    jsonschema.Draft202012Validator.check_schema(json.loads(text))
    return jsonschema.Draft202012Validator(strict(json.loads(text)))


@pytest.mark.parametrize("fault", sample(EVERY_FAULT, 25))
def test_the_json_report_has_the_shape_of_its_schema(fault: str) -> None:
    report = report_on(fault)

    validator().validate(json.loads(report_json.render(report, report.cloud.guests)))


def test_the_schema_rejects_another_format(destroyed: Report) -> None:
    document = json.loads(report_json.render(destroyed, destroyed.cloud.guests))
    document["findings"][0]["next"] = "a text, as in format 2"

    with pytest.raises(jsonschema.ValidationError):
        validator().validate(document)


def test_json_has_the_commands_with_the_values_of_the_server(destroyed: Report) -> None:
    [finding] = json.loads(report_json.render(destroyed, destroyed.cloud.guests))["findings"]
    commands = [one for step in finding["next"] for one in step["commands"]]
    start = f"openstack server start {finding['guest']}"

    assert finding["server"] == "vm-plain"
    assert {"command": start, "changes": True, "placeholders": {}} in commands
    assert commands[0]["command"].startswith("virsh domstate --reason instance-")
    assert not commands[0]["changes"]
    assert finding["location"]["query"].startswith("SELECT")


def test_json_lines_are_the_findings_and_a_summary(destroyed: Report) -> None:
    lines = list(map(json.loads, ndjson.render(destroyed, destroyed.cloud.guests)))

    assert [line["kind"] for line in lines] == ["finding", "summary"]
    assert lines[0]["check"] == "active-but-domain-off"
    assert (lines[-1]["errors"], lines[-1]["warnings"], lines[-1]["notes"]) == (1, 0, 0)


def test_json_lines_name_the_layers_that_did_not_answer() -> None:
    report = report_on("db-down")
    lines = list(map(json.loads, ndjson.render(report, report.cloud.guests)))

    assert {one["layer"] for one in lines if one["kind"] == "not_collected"} >= {"nova", "nova-db"}


def test_sarif_has_a_rule_text_and_a_message_for_each_finding(destroyed: Report) -> None:
    guests = destroyed.cloud.guests
    [run] = json.loads(sarif.render(destroyed, guests, CATALOG, ["/a b/x.json"]))["runs"]
    [result] = run["results"]
    rule = run["tool"]["driver"]["rules"][result["ruleIndex"]]

    assert rule["id"] == result["ruleId"] == "active-but-domain-off"
    assert rule["shortDescription"]["text"] == destroyed.findings[0].check.message
    assert result["message"]["text"] == f"{destroyed.findings[0].title}."
    [location] = result["locations"]
    assert location["physicalLocation"]["artifactLocation"]["uri"] == "a%20b/x.json"
    [logical] = location["logicalLocations"]
    assert logical["name"] == "vm-plain"
    assert result["level"] == "error"
    assert len(result["relatedLocations"]) >= 2


def test_sarif_says_which_layers_did_not_answer() -> None:
    report = report_on("db-down")
    silent = [one.title for one in report.uncollected]
    [run] = json.loads(sarif.render(report, report.cloud.guests, CATALOG, (), silent))["runs"]
    told = [one["message"]["text"] for one in run["invocations"][0]["toolExecutionNotifications"]]

    assert "Not collected: nova database." in told


def test_sarif_keeps_the_fingerprint_when_only_times_and_pids_change() -> None:
    def fingerprints(report: Report) -> list[str]:
        document = json.loads(sarif.render(report, report.cloud.guests, CATALOG))
        return [one["partialFingerprints"]["evidence/v1"] for one in document["runs"][0]["results"]]

    [one] = fingerprints(report_on("virsh-destroy"))
    [other] = fingerprints(report_on("qemu-kill9"))
    assert one.split(":")[1] != other.split(":")[1]  # destroyed is not crashed
    assert fingerprints(report_on("virsh-destroy")) == [one]


@pytest.mark.parametrize("fault", sample(EVERY_FAULT, 15))
def test_sarif_stays_within_the_limits_of_an_upload(fault: str) -> None:
    report = report_on(fault)
    [run] = json.loads(sarif.render(report, report.cloud.guests, CATALOG))["runs"]
    driver = run["tool"]["driver"]

    assert len({rule["id"] for rule in driver["rules"]}) == len(driver["rules"])
    for rule in driver["rules"]:
        assert len(rule["name"]) <= 255
        assert len(rule["shortDescription"]["text"]) <= 1024
        assert len(rule["properties"]["tags"]) <= 20
    for result in run["results"]:
        assert 1 <= len(result["locations"]) <= 1000
        assert len(result["relatedLocations"]) <= 1000
        assert driver["rules"][result["ruleIndex"]]["id"] == result["ruleId"]
        assert not Path(
            result["locations"][0]["physicalLocation"]["artifactLocation"]["uri"]
        ).is_absolute()


def test_junit_fails_the_server_and_passes_the_others(destroyed: Report) -> None:
    guests = destroyed.cloud.guests
    document = JUnitXml.fromstring(junit.render(destroyed, guests, Severity.WARNING))
    cases = {case.name: case for suite in document for case in suite}
    failed = {name: case.result for name, case in cases.items() if case.result}

    assert cases.keys() >= {guest.name for guest in guests}
    assert [*failed] == ["vm-plain"]
    [failure] = failed["vm-plain"]
    assert isinstance(failure, Failure)
    assert failure.type == "active-but-domain-off"
    assert "virsh domstate --reason instance-" in failure.text
    assert document.failures == 1


def test_junit_never_passes_what_a_silent_layer_left_undecided() -> None:
    report = report_on("db-down")
    guests = report.cloud.guests
    document = JUnitXml.fromstring(junit.render(report, guests, Severity.WARNING))
    results = [case.result for suite in document for case in suite]

    assert len(results) > len(guests)
    assert all(any(isinstance(one, (Skipped, Failure)) for one in each) for each in results)


def test_junit_fails_nothing_below_the_limit(destroyed: Report) -> None:
    document = JUnitXml.fromstring(junit.render(destroyed, destroyed.cloud.guests, None))

    assert document.failures == 0
    assert "active-but-domain-off" in junit.render(destroyed, destroyed.cloud.guests, None)


def test_prometheus_counts_zero_too(destroyed: Report) -> None:
    text = prometheus.render(destroyed, destroyed.cloud.guests)
    samples = {
        (one.name, tuple(sorted(one.labels.items()))): one.value
        for family in text_string_to_metric_families(text)
        for one in family.samples
    }

    assert samples["hoodsnap_findings", (("host", "vm"), ("severity", "error"))] == 1
    assert samples["hoodsnap_findings", (("host", "vm"), ("severity", "warning"))] == 0
    assert samples["hoodsnap_layer_collected", (("host", "vm"), ("layer", "nova-db"))] == 1
    assert samples["hoodsnap_layer_collected", (("host", "vm"), ("layer", "qemu"))] == 0
    ended = destroyed.cloud.bundle.ended.timestamp()
    assert abs(samples["hoodsnap_collected_timestamp_seconds", ()] - ended) <= 1
    assert [dict(labels)["server"] for name, labels in samples if name == "hoodsnap_finding"] == [
        "vm-plain"
    ]


def test_nagios_has_the_status_of_a_plugin(destroyed: Report) -> None:
    text, status = nagios.render(destroyed, destroyed.cloud.guests, Severity.WARNING)

    assert status is NagiosStatus.CRITICAL
    first = text.splitlines()[0]
    assert first == (
        "HOODSNAP CRITICAL - 1 error: vm-plain active-but-domain-off"
        " | errors=1 warnings=0 notes=0 unheard=0 guests=15"
    )
    assert nagios.render(destroyed, destroyed.cloud.guests, None)[1] is NagiosStatus.OK


def test_nagios_is_unknown_where_layers_did_not_answer() -> None:
    healthy = healthy_report()
    text, status = nagios.render(healthy, healthy.cloud.guests, Severity.WARNING, ["nova API"])

    assert status is NagiosStatus.UNKNOWN
    assert text.startswith("HOODSNAP UNKNOWN - ")
    assert "not collected: nova API |" in text
    assert nagios.render(healthy, healthy.cloud.guests, Severity.WARNING)[1] is NagiosStatus.OK


def test_nagios_fits_into_what_nrpe_transfers(host: RecordedHost) -> None:
    for guest in healthy_report().cloud.guests:
        if guest.domain is not None and guest.domain_name is not None and guest.process is not None:
            host.set(
                "libvirt", f"virsh domstate --reason {guest.domain_name}", {"state": 3, "reason": 1}
            )
    report = host.report()
    assert report.findings
    text, _ = nagios.render(report, report.cloud.guests, Severity.WARNING)

    assert len(text.encode()) <= LONGEST
    assert text.endswith("\n")


def test_a_hostile_name_stays_text_in_every_format(hostile: Report) -> None:
    guests = hostile.cloud.guests
    found = hostile.findings[0]
    assert found.guest is not None
    assert found.guest.name == HOSTILE

    document = JUnitXml.fromstring(junit.render(hostile, guests, Severity.WARNING))
    assert sum(1 for suite in document for _ in suite) == len(guests) + 2
    ET.fromstring(junit.render(hostile, guests, Severity.WARNING))  # noqa: S314 (our own output)
    text = prometheus.render(hostile, guests)
    assert len([*text_string_to_metric_families(text)]) == 6
    output, _ = nagios.render(hostile, guests, Severity.WARNING)
    assert output.count("|") == 1
    assert output.splitlines()[0].startswith("HOODSNAP CRITICAL")
    for line in ndjson.render(hostile, guests):
        assert line.isascii()
        json.loads(line)
    [run] = json.loads(sarif.render(hostile, guests, CATALOG, ["-/../x\n.json"]))["runs"]
    for result in run["results"]:
        assert "\u202e" not in json.dumps(result, ensure_ascii=False)
        assert "<b>" not in re.sub(
            r"`[^`]*`|^    .*$", "", result["message"]["markdown"], flags=re.M
        )


@pytest.mark.parametrize("format", ["ndjson", "sarif", "junit", "prometheus", "json", "line"])
def test_the_command_writes_each_format_to_a_file(format: str, tmp_path: Path) -> None:
    out = tmp_path / "found"
    fault = FAULTS / "virsh-destroy.json.zst"
    printed = hoodsnap("check", fault, "--format", format)
    written = hoodsnap("check", fault, "--format", format, "--output", out)

    assert printed.returncode == written.returncode == 1
    assert written.stdout == b""
    assert out.read_bytes() == printed.stdout
    assert printed.stdout


def test_the_command_ends_with_the_status_of_a_plugin() -> None:
    done = hoodsnap("check", FAULTS / "virsh-destroy.json.zst", "--format", "nagios")
    silent = hoodsnap("check", FAULTS / "db-down.json.zst", "--format", "nagios")

    assert (done.returncode, silent.returncode) == (2, 3)
    assert silent.stdout.startswith(b"HOODSNAP UNKNOWN - ")


def test_a_bundle_that_cannot_be_read_is_unknown_to_a_monitor(tmp_path: Path) -> None:
    done = hoodsnap("check", tmp_path / "none.json", "--format", "nagios")

    assert done.returncode == 3
    assert done.stdout.startswith(b"HOODSNAP UNKNOWN - ")


def test_an_output_file_must_be_writable(tmp_path: Path) -> None:
    fault = FAULTS / "virsh-destroy.json.zst"
    done = hoodsnap("check", fault, "-f", "sarif", "-o", tmp_path / "no" / "x.sarif")

    assert done.returncode == 3
    assert b"can't be written" in done.stderr


def test_the_input_is_not_overwritten(tmp_path: Path) -> None:
    copy = tmp_path / "bundle.json.zst"
    copy.write_bytes((FAULTS / "virsh-destroy.json.zst").read_bytes())
    before = copy.read_bytes()

    assert hoodsnap("check", copy, "-o", copy).returncode == 2
    assert copy.read_bytes() == before


@pytest.mark.tools
def test_the_validator_of_sarif_accepts_the_log(tmp_path: Path, hostile: Report) -> None:
    """Microsoft's validator with its rules for GitHub; `make test-tools` installs it."""
    tool = Path("build/tools/node_modules/@microsoft/sarif-multitool-linux/Sarif.Multitool")
    for name, report in (("fault", report_on("attachment-twice")), ("hostile", hostile),
                         ("silent", report_on("db-down"))):  # fmt: skip
        log = tmp_path / f"{name}.sarif"
        silent = [one.title for one in report.uncollected]
        log.write_text(sarif.render(report, report.cloud.guests, CATALOG, ["a.json"], silent))
        out = tmp_path / f"{name}.out.sarif"
        subprocess.run(
            [tool.resolve(), "validate", log, "--rule-kind", "Sarif;Gh", "--level", "Error;Warning",
             "--output", out, "--log", "ForceOverwrite"],
            check=False, cwd=tmp_path, env={"DOTNET_SYSTEM_GLOBALIZATION_INVARIANT": "1", "HOME": str(tmp_path)},
            capture_output=True,
        )  # fmt: skip
        results = json.loads(out.read_text(encoding="utf-8-sig"))["runs"][0]["results"]
        errors = [one for one in results if one.get("level", "warning") == "error"]
        assert errors == [], name


@pytest.mark.parametrize("char", ["x", "\U0001f4a3"])
def test_an_endless_name_stays_within_what_readers_take(host: RecordedHost, char: str) -> None:
    host.row("instances", host.uuid("vm-plain"), display_name=char * 500_000)
    host.set("libvirt", f"virsh domstate --reason {host.domain('vm-plain')}", {"state": 5})
    report = host.report()
    guests = report.cloud.guests

    text, _ = nagios.render(report, guests, Severity.WARNING, [char * 9_000] * 7)
    assert len(text.encode()) <= LONGEST
    assert text.splitlines()[0].endswith(f"unheard=7 guests={len(guests)}")
    assert len(prometheus.render(report, guests)) < 50_000
    assert len(junit.render(report, guests, Severity.WARNING)) < 200_000
    assert len(sarif.render(report, guests, CATALOG)) < 2_000_000
