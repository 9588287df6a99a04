"""The page in a real browser (make test-page): it is fast, it is safe, and everybody can use it."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any
from uuid import NAMESPACE_DNS, uuid5

import pytest
from tests.conftest import ROOT, healthy
from tests.render.html.test_page import hostile, rendered

from hoodsnap.bundle import Bundle, dump, load, merge, parse
from hoodsnap.facts.uuids import UUID

pytestmark = pytest.mark.page

DESTROYED = ROOT / "fixtures/faults/virsh-destroy.json.zst"
SPLIT = sorted((ROOT / "fixtures/two-hosts").glob("split-brain.*"))

Open = Callable[..., Any]


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    assert chromium is not None, "Chromium is missing: apt-get install chromium"
    with sync_playwright() as playwright:
        # Root has no user namespaces of its own in a container, and only pages of ours are opened.
        launched = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield launched
        launched.close()


@pytest.fixture
def visit(browser: Any, tmp_path: Path) -> Iterator[Open]:
    """Open a document in the browser. Whatever the page reports as an error fails the test."""
    trouble: list[str] = []
    left: list[str] = []
    contexts = []

    def opened(document: str, place: str = "", **options: Any) -> Any:
        file = tmp_path / "report.html"
        file.write_text(document)
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}} | options)
        contexts.append(context)
        tab = context.new_page()
        tab.on("console", lambda message: trouble.append(message.text))
        tab.on("pageerror", lambda error: trouble.append(str(error)))
        tab.on("dialog", lambda dialog: trouble.append(dialog.message))
        tab.on("request", lambda request: left.append(request.url))
        tab.goto(f"file://{file}{place}")
        return tab

    yield opened
    for context in contexts:
        context.close()
    assert trouble == []
    assert [url for url in left if not url.startswith("file:")] == []


@pytest.fixture(scope="module")
def destroyed() -> str:
    return rendered(load(DESTROYED))


def copies(bundle: Bundle, count: int) -> Bundle:
    """Return the hosts of a recording `count` times, each time with other names and UUIDs."""
    parts = [bundle]
    for number in range(1, count):
        another = partial(_another, number)
        text = UUID.sub(another, dump(bundle).decode())
        text = re.sub(r'(\\?")vm(\\?")', rf"\g<1>vm{number}\g<2>", text)
        text = text.replace("= 'vm'", f"= 'vm{number}'").replace("host=vm ", f"host=vm{number} ")
        parts.append(parse(re.sub(r"\bvm-(?=[a-z])", f"c{number}-vm-", text).encode()))
    return merge(parts)


def _another(number: int, found: re.Match[str]) -> str:
    return str(uuid5(NAMESPACE_DNS, f"{number}{found[0]}"))


def test_a_server_is_found_opened_and_explained(visit: Open, destroyed: str) -> None:
    tab = visit(destroyed)

    tab.fill("#search", "plain")
    assert tab.inner_text("#count") == "1 of 15 servers"
    tab.press("#search", "Enter")
    tab.wait_for_selector("#server h1")

    assert "vm-plain" in tab.inner_text("#server h1")
    assert tab.locator("article.finding:visible").count() == 1
    assert tab.locator("#overview:visible").count() == 0
    broken = tab.locator(".row .link.broken")
    assert broken.count() == 1
    assert "shut off (destroyed)" in tab.inner_text(".breaks")
    assert tab.locator(".picture svg g").count() > 6


def test_the_list_is_filtered_by_verdict_and_state(visit: Open, destroyed: str) -> None:
    tab = visit(destroyed)

    tab.select_option("#by-verdict", "error")
    assert tab.locator("#list li:visible a .name").all_inner_texts() == ["vm-plain\n(error)"]
    tab.select_option("#by-verdict", "")
    tab.select_option("#by-state", "SHUTOFF")
    assert tab.locator("#list li:visible a .name").all_inner_texts() == ["vm-stopped\n(agrees)"]


def test_a_box_opens_the_recorded_answer(visit: Open, destroyed: str) -> None:
    tab = visit(destroyed, "#server-0")
    tab.click(".row button:has-text('libvirt')")
    tab.wait_for_selector("#answer-text mark")

    assert tab.inner_text("#answer-query") == "virsh domstate --reason instance-00000001"
    assert json.loads(tab.inner_text("#answer-text")) == {"state": 5, "reason": 2}
    assert tab.inner_text("#answer-text mark") == "state"
    tab.click("#answer-others button:has-text('virsh dominfo')")
    assert json.loads(tab.inner_text("#answer-text"))["max_memory_kib"] == 65536
    tab.keyboard.press("Escape")
    assert not tab.is_visible("#answer")


def test_evidence_opens_the_recorded_answer(visit: Open, destroyed: str) -> None:
    tab = visit(destroyed)
    tab.click("article button[data-answer] >> nth=0")
    tab.wait_for_selector("#answer-text mark")

    assert tab.inner_text("#answer-text mark >> nth=0") == "active"


def test_a_command_is_copied_without_its_prompt(visit: Open, destroyed: str) -> None:
    tab = visit(destroyed, permissions=["clipboard-read", "clipboard-write"])
    tab.click("article [data-copy] >> nth=0")
    tab.wait_for_selector("article [data-copy]:has-text('Copied')")

    copied = tab.evaluate("navigator.clipboard.readText()")
    assert copied == "virsh domstate --reason instance-00000001"


def test_it_is_used_by_keyboard_alone(visit: Open, destroyed: str) -> None:
    tab = visit(destroyed)
    focused = "document.activeElement.textContent.trim()"

    tab.keyboard.press("Tab")
    assert tab.evaluate(focused) == "Skip to the report"
    assert tab.locator(".skip").bounding_box()["x"] >= 0
    tab.focus("#search")
    tab.keyboard.press("ArrowDown")
    assert tab.evaluate(focused).startswith("✗vm-plain")
    tab.keyboard.press("ArrowDown")
    assert "vm-verify" in tab.evaluate(focused)
    tab.keyboard.press("Home")
    tab.keyboard.press("ArrowDown")
    tab.keyboard.press("Enter")
    tab.wait_for_selector("#server h1")
    tab.focus(".row button >> nth=0")
    tab.keyboard.press("ArrowRight")
    assert tab.evaluate(focused).startswith("nova database")
    tab.keyboard.press("Enter")
    tab.wait_for_selector("#answer[open]")
    tab.keyboard.press("Escape")
    assert tab.evaluate(focused).startswith("nova database")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 400])
@pytest.mark.parametrize("place", ["", "#server-0", "answer"])
def test_nobody_is_shut_out(
    visit: Open, destroyed: str, scheme: str, width: int, place: str
) -> None:
    # axe-core is a script of its own, which the page's policy would refuse.
    tab = visit(
        destroyed,
        "#server-0" if place == "answer" else place,
        color_scheme=scheme,
        viewport={"width": width, "height": 900},
        bypass_csp=True,
    )
    if place:
        tab.wait_for_selector("#server h1")
    if place == "answer":
        tab.click(".row button >> nth=1")
        tab.wait_for_selector("#answer-text mark")

    assert faults(tab) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("file", ["faults/db-down", "faults/port-disabled", "monitors"])
def test_every_color_can_be_read(visit: Open, scheme: str, file: str) -> None:
    document = rendered(load(ROOT / f"fixtures/{file}.json.zst"))
    for place in ("", "#server-0"):
        tab = visit(document, place, color_scheme=scheme, bypass_csp=True)
        if place:
            tab.wait_for_selector("#server h1")

        assert faults(tab) == []


def faults(tab: Any) -> list[object]:
    """Return what axe-core finds on a page, whatever its impact."""
    from axe_playwright_python.sync_playwright import Axe

    found = Axe().run(tab).response["violations"]
    return [
        (one["id"], one["impact"], node["target"], node.get("failureSummary"))
        for one in found
        for node in one["nodes"]
    ]


@pytest.mark.parametrize("width", [400, 700, 1280, 1920])
@pytest.mark.parametrize("place", ["", "#server-0"])
def test_nothing_is_wider_than_the_window(
    visit: Open, destroyed: str, width: int, place: str
) -> None:
    tab = visit(destroyed, place, viewport={"width": width, "height": 900})
    tab.wait_for_selector("#server h1" if place else "#overview")

    assert tab.evaluate("document.documentElement.scrollWidth") <= width


def test_text_of_a_bundle_is_never_obeyed(visit: Open) -> None:
    document = rendered(hostile())
    tab = visit(document)
    links = tab.locator("#list a[href^='#server-']")

    for number in range(links.count()):
        tab.evaluate(f"location.hash = '#server-{number}'")
        tab.wait_for_selector("#server h1")
        for button in tab.locator(".row button").all():
            button.click()
            tab.keyboard.press("Escape")

    assert tab.evaluate("document.images.length") == 0
    assert tab.evaluate("document.scripts.length") == 4
    assert tab.locator("text=<img src=x onerror=alert(1)>{{7*7}}").count() > 0


def test_a_script_that_is_not_the_pages_own_does_not_run(
    browser: Any, destroyed: str, tmp_path: Path
) -> None:
    foreign = (
        "<script>document.title = 'script'</script><p onclick=\"document.title = 'click'\">p</p>"
    )
    file = tmp_path / "report.html"
    file.write_text(destroyed.replace("</body>", f"{foreign}</body>"))
    refused: list[str] = []
    tab = browser.new_page()
    tab.on("console", lambda message: refused.append(message.text))
    tab.goto(f"file://{file}")
    tab.click("body > p >> nth=-1")

    assert "hoodsnap" in tab.title()
    assert len(refused) == 2
    assert all("Content Security Policy" in text for text in refused)
    tab.close()


def test_the_overview_and_the_findings_are_read_without_javascript(
    visit: Open, destroyed: str
) -> None:
    tab = visit(destroyed, java_script_enabled=False)
    text = tab.inner_text("body")

    assert "1 error in 1 of 15 servers" in text
    assert "virsh domstate --reason instance-00000001" in text
    assert "Without JavaScript" in text
    assert "Show answer" not in text
    assert not tab.is_visible("#search")


def test_paper_gets_the_findings_and_the_pictures(visit: Open, destroyed: str) -> None:
    tab = visit(destroyed)
    tab.wait_for_timeout(1500)  # the script prepares for print when the page is idle
    tab.emulate_media(media="print")
    tab.evaluate("window.dispatchEvent(new Event('beforeprint'))")

    assert tab.locator(".printed-server .row:visible").count() == 1
    assert tab.locator("article.finding:visible").count() == 1
    assert tab.locator("nav:visible, .copy:visible").count() == 0
    assert tab.locator("details:not([open])").count() == 0
    tab.evaluate("window.dispatchEvent(new Event('afterprint'))")
    assert tab.locator(".printed-server").count() == 0


def test_two_hosts_have_their_own_halves_of_a_server(visit: Open) -> None:
    tab = visit(rendered(merge(map(load, SPLIT))))
    halves = tab.locator("#list a:has-text('pair-split') .sub").all_inner_texts()

    assert sorted(halves) == ["ACTIVE · compute2", "ACTIVE · vm"]


def test_500_servers_open_at_once(visit: Open) -> None:
    document = rendered(copies(load(DESTROYED), 36))
    assert len(document.encode()) < 5_000_000

    tab = visit(document)
    tab.wait_for_selector("html.scripted")
    metrics = tab.context.new_cdp_session(tab)
    metrics.send("Performance.enable")
    spent = {one["name"]: one["value"] for one in metrics.send("Performance.getMetrics")["metrics"]}

    assert tab.inner_text("#count") == "540 servers"
    # Seconds of CPU in the tab's process, which a busy machine doesn't change.
    assert 0 < spent["ProcessTime"] < 1


def test_the_healthy_cloud_is_calm(visit: Open) -> None:
    tab = visit(rendered(healthy()))

    assert tab.inner_text("h1").endswith("the collected layers agree")
    assert tab.locator("article").count() == 0
