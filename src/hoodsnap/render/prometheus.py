"""Findings as metrics, for the textfile collector of Prometheus' node exporter."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from hoodsnap import __version__
from hoodsnap.evidence import Severity
from hoodsnap.facts.cloud.guest import Guest
from hoodsnap.facts.layer import LAYERS, Scope
from hoodsnap.findings.analysis import Report
from hoodsnap.findings.finding import Finding
from hoodsnap.printable import clean, cut

MOST = 1000
"""Findings with a series of their own; the worst come first. All findings are counted."""

LONGEST = 255
"""Characters of a label: nova's own limit of a name. Each series repeats them."""


def render(report: Report, guests: Iterable[Guest]) -> str:
    """Return the metrics in Prometheus' text format. Labels hold names, never evidence."""
    from prometheus_client import CollectorRegistry, Gauge, generate_latest

    shown = tuple(guests)
    found = report.about(shown)
    registry = CollectorRegistry()

    def gauge(name: str, help: str, labels: Sequence[str] = ()) -> Gauge:
        return Gauge(f"hoodsnap_{name}", help, labels, registry=registry)

    each = gauge(
        "finding",
        "1 for each finding that is not accepted.",
        ("check", "severity", "host", "server", "server_id"),
    )
    for finding in found[:MOST]:
        each.labels(*_labels(finding)).set(1)
    counted = gauge("findings", "Number of findings.", ("host", "severity"))
    counts = Counter((finding.host or "", finding.severity) for finding in found)
    names = dict.fromkeys(["", *(host.name for host in report.cloud.hosts)])
    for name in {**names, **dict.fromkeys(host for host, _ in counts)}:
        for severity in Severity:
            counted.labels(_label(name), severity.word).set(counts[name, severity])
    on = Counter(guest.host.name if guest.host else "" for guest in shown)
    total = gauge("guests", "Number of guests.", ("host",))
    collected = gauge(
        "layer_collected",
        "1 if the layer of the host was collected, 0 if it did not answer or was not asked.",
        ("host", "layer"),
    )
    for host in report.cloud.hosts:
        total.labels(_label(host.name)).set(on[host.name])
        for layer in LAYERS.values():
            asked = report.cloud.bundle.by_layer.get(layer.id, ())
            of_host = (one for one in asked if layer.scope is Scope.CLOUD or one.host == host.name)
            answered = any(one.error is None for one in of_host)
            collected.labels(_label(host.name), layer.id).set(answered)
    last = gauge("collected_timestamp_seconds", "Time at which the collection ended.")
    last.set(round(report.cloud.bundle.ended.timestamp()))
    gauge("build_info", "Version that judged the bundle.", ("version",)).labels(__version__).set(1)
    return generate_latest(registry).decode()


def _labels(finding: Finding) -> tuple[str, ...]:
    guest = finding.guest
    return (
        finding.check.name,
        finding.severity.word,
        _label(finding.host or ""),
        _label(guest.name) if guest is not None else "",
        _label(guest.uuid) if guest is not None else "",
    )


def _label(text: str) -> str:
    return cut(clean(text), LONGEST)
