"""The report in a real browser: no error, by mouse, by keyboard, light and dark."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from graphorch_ray.telemetry.report import write_report

from .traces import RUNS, Span, failed_run, small_run, wide_run, with_own_spans

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")
FLAGS = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture
def show(browser: Any, tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """Open the report of some spans; at the end no page may have complained of anything."""
    said: list[str] = []
    pages: list[Any] = []

    def opened(spans: list[Span], **options: Any) -> Any:
        path = write_report(spans, tmp_path / f"run{len(pages)}.html")
        page = browser.new_page(viewport={"width": 1280, "height": 900}, **options)
        pages.append(page)
        page.on("console", lambda message: said.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda r: said.append(r.url) if r.url != path.as_uri() else None)
        page.goto(path.as_uri())
        return page

    yield opened
    for page in pages:
        page.close()
    assert said == []


def column(page: Any, table: str, number: int) -> list[str]:
    cells = page.locator(f"#{table}-table tbody tr > :nth-child({number})")
    return [text.strip() for text in cells.all_text_contents()]


def view(page: Any) -> tuple[float, float]:
    window = page.evaluate("[graphorchReport.timeline.from, graphorchReport.timeline.to]")
    return window[0], window[1]


def dark_pixels(page: Any, canvas: str) -> int:
    """Count pixels that differ from the canvas's first one: what is drawn."""
    drawn: int = page.evaluate(
        """async (selector) => {
            await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
            const canvas = document.querySelector(selector);
            const pen = canvas.getContext("2d");
            const { data } = pen.getImageData(0, 0, canvas.width, canvas.height);
            let count = 0;
            for (let at = 4; at < data.length; at += 4) {
                if (data[at] !== data[0] || data[at + 2] !== data[2]) count++;
            }
            return count;
        }""",
        canvas,
    )
    return drawn


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", RUNS)
def test_every_run_opens_without_an_error(show: Callable[..., Any], name: str, scheme: str) -> None:
    page = show(RUNS[name](), color_scheme=scheme)
    assert (
        page.locator("h1")
        .inner_text()
        .startswith({"small": "research", "wide": "wide", "failed": "crawl"}[name])
    )
    assert dark_pixels(page, "#rows canvas") > 2000
    assert dark_pixels(page, "#slots") > 2000
    links = page.locator("nav a").all()
    assert len(links) >= 5
    for link in links:
        assert page.locator(link.get_attribute("href")).count() == 1


def test_a_trace_cut_short_and_an_empty_run_open_too(show: Callable[..., Any]) -> None:
    cut = [s for s in small_run() if s["attributes"]["graphorch.span"] != "run"]
    assert "No end recorded" in show(cut).locator("h1").inner_text()
    empty = show([s for s in small_run() if s["attributes"]["graphorch.span"] == "run"])
    assert empty.evaluate("graphorchReport.timeline.count") == 0


def test_hostile_text_runs_nothing(show: Callable[..., Any]) -> None:
    hostile = "</script><img src=x onerror=document.title='hit'>"
    page = show(failed_run(hostile, f"{hostile}: {hostile}"))
    assert page.title() == "Run of crawl"
    assert page.locator("img").count() == 0
    assert page.locator("#nodes-table").get_by_text(hostile, exact=True).count() == 1


def test_the_policy_stops_what_is_not_the_pages_own(browser: Any, tmp_path: Path) -> None:
    path = write_report(small_run(), tmp_path / "run.html")
    path.write_text(path.read_text().replace("</main>", "<script>window.hit = 1</script></main>"))
    page = browser.new_page()
    page.goto(path.as_uri())
    assert page.evaluate("window.hit") is None
    assert page.evaluate("graphorchReport.timeline.count") == 24
    page.close()


# --- tables -------------------------------------------------------------------------------------


def test_a_click_on_a_heading_sorts_and_a_second_one_turns_it_around(
    show: Callable[..., Any],
) -> None:
    page = show(small_run())
    head = page.locator("#nodes-table th", has_text="Attempts")
    assert head.get_attribute("aria-sort") == "none"
    head.locator("button").click()
    assert head.get_attribute("aria-sort") == "descending"
    counts = [int(text) for text in column(page, "nodes", 4)]
    assert counts == sorted(counts, reverse=True)
    head.locator("button").click()
    assert head.get_attribute("aria-sort") == "ascending"
    assert [int(text) for text in column(page, "nodes", 4)] == counts[::-1]
    page.locator("#nodes-table th button", has_text="Node").click()
    assert column(page, "nodes", 1) == sorted(column(page, "nodes", 1))
    assert head.get_attribute("aria-sort") == "none"


def test_headings_sort_by_keyboard_and_by_value_not_by_text(show: Callable[..., Any]) -> None:
    page = show(small_run())
    page.locator("#nodes-table").get_by_role("button", name="p95", exact=True).focus()
    page.keyboard.press("Enter")
    cells = page.locator("#nodes-table tbody tr > :nth-child(8)")
    values = [float(cell.get_attribute("data-value")) for cell in cells.all()]
    assert values == sorted(values, reverse=True)
    texts = column(page, "nodes", 8)
    assert any("ms" in text for text in texts)
    assert any("µs" in text for text in texts)
    page.keyboard.press("Space")
    assert column(page, "nodes", 8) == texts[::-1]


def test_a_node_is_found_by_name(show: Callable[..., Any]) -> None:
    page = show(wide_run(300))
    page.get_by_label("Find a node").fill("work_012")
    assert page.locator("#nodes-table tbody tr:visible").count() == 10
    assert page.locator("#found").inner_text() == "10 of 303 nodes"


# --- timeline -----------------------------------------------------------------------------------


def test_the_timeline_zooms_by_button_wheel_and_key(show: Callable[..., Any]) -> None:
    page = show(small_run())
    full = view(page)
    assert full[0] == 0
    page.get_by_role("button", name="Zoom in").click()
    near = view(page)
    assert near[1] - near[0] == pytest.approx(0.6 * full[1])
    page.get_by_role("button", name="Whole run").click()
    assert view(page) == full
    rows = page.locator("#rows")
    rows.focus()
    page.keyboard.press("+")
    assert view(page) == near
    page.keyboard.press("ArrowRight")
    assert view(page)[0] > near[0]
    page.keyboard.press("End")
    assert view(page)[1] == full[1]
    page.keyboard.press("Home")
    assert view(page)[0] == 0
    page.keyboard.press("0")
    assert view(page) == full
    rows.scroll_into_view_if_needed()
    box = rows.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 40)
    page.keyboard.down("Control")
    page.mouse.wheel(0, -400)
    page.keyboard.up("Control")
    page.wait_for_function(f"graphorchReport.timeline.to < {full[1]}")
    assert view(page)[1] - view(page)[0] < full[1]


def test_the_timeline_moves_under_the_mouse(show: Callable[..., Any]) -> None:
    page = show(small_run())
    page.evaluate("graphorchReport.timeline.zoom(0.25)")
    before = view(page)
    page.locator("#rows").scroll_into_view_if_needed()
    box = page.locator("#rows").bounding_box()
    page.mouse.move(box["x"] + 600, box["y"] + 40)
    page.mouse.down()
    page.mouse.move(box["x"] + 500, box["y"] + 40, steps=4)
    page.mouse.up()
    assert view(page)[0] > before[0]
    assert view(page)[1] - view(page)[0] == pytest.approx(before[1] - before[0])


def test_zoom_never_leaves_the_run(show: Callable[..., Any]) -> None:
    page = show(small_run())
    page.locator("#rows").focus()
    for key in ["-", "ArrowLeft", *["+"] * 60, *["ArrowRight"] * 5, *["-"] * 80]:
        page.keyboard.press(key)
        start, end = view(page)
        assert 0 <= start < end <= page.evaluate("graphorchReport.timeline.full")


def test_attempts_are_walked_by_key_and_told_to_screen_readers(show: Callable[..., Any]) -> None:
    page = show(small_run())
    detail = page.locator("#detail")
    assert detail.get_attribute("aria-live") == "polite"
    page.locator("#rows").focus()
    told = []
    for _ in range(24):
        page.keyboard.press("n")
        told.append(detail.inner_text())
    assert told[0].startswith("start ok")
    assert sum("timed out" in text for text in told) == 1
    assert sum("lost with its worker" in text for text in told) == 1
    assert sum("stands in for write" in text for text in told) == 1
    assert sum("on the critical path" in text for text in told) == 20
    assert len(set(told)) == 24
    page.keyboard.press("p")
    assert detail.inner_text() == told[-2]


def test_a_click_on_a_bar_shows_its_attempt(show: Callable[..., Any]) -> None:
    page = show(failed_run())
    page.locator("#rows").scroll_into_view_if_needed()
    spot = page.evaluate(
        """async () => {
            await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
            const view = graphorchReport.timeline;
            const failed = (i) => view.outcome(i) === "failed";
            const row = view.rows.find((r) => r.tracks[0].some(failed));
            const index = row.tracks[0].find(failed);
            const middle = (view.all.started[index] + view.all.ended[index]) / 2;
            return [view.xOf(middle), 26 + row.y + row.height / 2];
        }"""
    )
    box = page.locator("#rows canvas").bounding_box()
    page.mouse.click(box["x"] + spot[0], box["y"] + spot[1])
    assert "parse failed" in page.locator("#detail").inner_text()
    assert "ValueError: a page was empty" in page.locator("#detail").inner_text()


def test_an_attempt_shows_the_spans_that_its_code_made(show: Callable[..., Any]) -> None:
    page = show(with_own_spans(failed_run(), pairs=20), color_scheme="dark")
    page.locator("#rows").focus()
    page.locator("#only-trouble").check()
    page.locator("#rows").focus()
    page.keyboard.press("n")
    assert "40 spans of its own code, below" in page.locator("#detail").inner_text()
    rows = page.locator("#inside li")
    assert rows.count() == 30
    assert page.locator("#inside .hint").inner_text() == "and 10 more"
    outer, inner = rows.nth(0), rows.nth(1)
    assert outer.locator(".error-text").inner_text() == "no <route> to host"
    assert inner.locator(".error-text").count() == 0
    boxes = [row.locator(".name").bounding_box() for row in (outer, inner)]
    tracks = [row.locator(".track").bounding_box() for row in (outer, inner)]
    marks = [row.locator(".track span").bounding_box() for row in (outer, inner)]
    assert boxes[0]["x"] == boxes[1]["x"]
    assert inner.locator(".name").evaluate("e => getComputedStyle(e).paddingInlineStart") != "0px"
    for track, mark in zip(tracks, marks, strict=True):
        assert (
            track["x"] <= mark["x"] <= mark["x"] + mark["width"] <= track["x"] + track["width"] + 1
        )
    assert marks[0]["x"] < marks[1]["x"]
    assert page.evaluate(CONTRAST) == []
    page.locator("#nodes-table .pick").first.click()
    assert page.locator("#inside li").count() == 0


def shown_attempts(page: Any) -> int:
    count: int = page.evaluate(
        "graphorchReport.timeline.rows.reduce((sum, row) =>"
        " sum + row.tracks.reduce((all, track) => all + track.length, 0), 0)"
    )
    return count


def test_rows_are_workers_or_nodes_and_can_be_filtered(show: Callable[..., Any]) -> None:
    page = show(small_run())
    labels = "graphorchReport.timeline.rows.map((row) => row.label)"
    assert page.evaluate(labels)[0] == "driver"
    assert shown_attempts(page) == 24
    page.get_by_label("nodes", exact=True).check()
    assert page.evaluate(labels)[:2] == ["start", "plan"]
    page.get_by_label("only the critical path").check()
    assert shown_attempts(page) == 20
    page.get_by_label("only what failed").check()
    assert shown_attempts(page) == 3
    page.get_by_label("only the critical path").uncheck()
    assert shown_attempts(page) == 4  # the lost worker was not on it
    page.get_by_label("only what failed").uncheck()
    assert shown_attempts(page) == 24


def test_no_two_bars_of_a_track_overlap(show: Callable[..., Any]) -> None:
    page = show(wide_run(200, slots=8))
    for by in ("worker", "node"):
        overlaps = page.evaluate(
            """(by) => {
                const view = graphorchReport.timeline;
                view.show({ by });
                let count = 0;
                for (const row of view.rows) for (const track of row.tracks) {
                    for (let at = 1; at < track.length; at++) {
                        const begins = firstDrawn(view.all, track[at], by);
                        if (begins < view.all.ended[track[at - 1]]) count++;
                    }
                }
                return count;
            }""",
            by,
        )
        assert overlaps == 0
        assert shown_attempts(page) == 206


def test_a_box_of_the_graph_shows_its_node_by_click_and_by_key(show: Callable[..., Any]) -> None:
    page = show(small_run())
    box = page.locator('.go-box[data-node="search"]')
    box.click()
    assert box.get_attribute("aria-pressed") == "true"
    assert shown_attempts(page) == 4
    assert "only search: 4 attempts" in page.locator("#detail").inner_text()
    page.get_by_role("button", name="Show all nodes").click()
    assert shown_attempts(page) == 24
    first = page.locator('.go-box[tabindex="0"]')
    assert first.count() == 1
    first.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    pressed = page.locator('.go-box[aria-pressed="true"]')
    assert pressed.count() == 1
    assert pressed.get_attribute("tabindex") == "0"


def test_a_wide_drawing_scrolls_or_is_fitted_to_the_page(show: Callable[..., Any]) -> None:
    page = show(wide_run(300))
    width = "document.querySelector('.picture svg').getBoundingClientRect().width"
    room = page.evaluate("document.querySelector('.picture').clientWidth")
    assert page.evaluate(width) > room
    page.get_by_label("fit to the width of the page").check()
    assert page.evaluate(width) <= room
    assert not show(small_run()).get_by_label("fit to the width of the page").is_visible()


def test_a_node_of_the_table_is_shown_too(show: Callable[..., Any]) -> None:
    page = show(small_run())
    page.locator("#nodes-table .pick", has_text="write").first.click()
    assert page.locator("#nodes-table tr.chosen").get_attribute("data-node") == "write"
    assert shown_attempts(page) == 5  # its fallback's among them


@pytest.mark.parametrize(
    ("width", "supersteps", "most"),
    [(1000, 5, 100), pytest.param(1000, 50, 400, marks=pytest.mark.chaos)],
)
def test_many_attempts_are_drawn_fast(
    show: Callable[..., Any], width: int, supersteps: int, most: float
) -> None:
    page = show(wide_run(width, slots=64, supersteps=supersteps))
    assert page.evaluate("graphorchReport.timeline.count") > width * supersteps
    took = page.evaluate(
        """() => {
            const view = graphorchReport.timeline;
            const times = [];
            for (const share of [1, 0.1, 0.02]) for (const by of ["worker", "node"]) {
                view.show({ by });
                view.look(0, view.full * share);
                view.draw();
                const began = performance.now();
                for (let frame = 0; frame < 5; frame++) view.draw();
                times.push((performance.now() - began) / 5);
            }
            return times;
        }"""
    )
    assert max(took) < most  # milliseconds for a frame; a tenth of that on an idle core


# --- for everyone -------------------------------------------------------------------------------

CONTRAST = """() => {
    const parsed = (text) => text.match(/[\\d.]+/g).map(Number);
    const light = ([r, g, b]) => {
        const [x, y, z] = [r, g, b].map((c) => c / 255)
            .map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
        return 0.2126 * x + 0.7152 * y + 0.0722 * z;
    };
    const behind = (element) => {
        for (let at = element; at; at = at.parentElement) {
            const colour = parsed(getComputedStyle(at).backgroundColor);
            if (colour.length === 3 || colour[3] === 1) return colour;
        }
        return [255, 255, 255];
    };
    const poor = [];
    for (const element of document.querySelectorAll("body *")) {
        if (element.closest("svg, script, .skip, .hidden")) continue;
        const own = [...element.childNodes].some((n) => n.nodeType === 3 && n.data.trim());
        if (!own || !element.checkVisibility()) continue;
        const one = light(parsed(getComputedStyle(element).color));
        const other = light(behind(element));
        const ratio = (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
        if (ratio < 4.5) poor.push(`${element.outerHTML.slice(0, 60)} ${ratio}`);
    }
    return poor;
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("run", [small_run, failed_run])
def test_all_text_stands_out(
    show: Callable[..., Any], run: Callable[[], list[Span]], scheme: str
) -> None:
    page = show(run(), color_scheme=scheme)
    assert page.evaluate(CONTRAST) == []


def test_bars_stand_out_from_the_paper_and_text_from_bars(show: Callable[..., Any]) -> None:
    for scheme in ("light", "dark"):
        page = show(small_run(), color_scheme=scheme)
        ratios = page.evaluate(
            """() => {
                const pen = document.createElement("canvas").getContext("2d");
                const light = (colour) => {
                    pen.fillStyle = colour;
                    const parts = [1, 3, 5]
                        .map((at) => parseInt(pen.fillStyle.slice(at, at + 2), 16) / 255)
                        .map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
                    return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2];
                };
                const ratio = (one, other) => {
                    const [low, high] = [light(one), light(other)].sort((a, b) => a - b);
                    return (high + 0.05) / (low + 0.05);
                };
                const c = readColours();
                return {
                    text: ratio(c.text, c.ok),
                    bars: ["ok", "failed", "timeout", "infrastructure", "cancelled"]
                        .map((name) => ratio(c[name], c.paper)),
                };
            }"""
        )
        assert ratios["text"] >= 4.5
        assert min(ratios["bars"]) >= 2.7  # each also has a pattern, an edge or a label of its own


def test_everything_has_a_name_and_a_role(show: Callable[..., Any]) -> None:
    page = show(small_run())
    nameless = page.evaluate(
        """() => [...document.querySelectorAll("button, input, a, section, [role], [tabindex]")]
            .filter((e) => e.getAttribute("role") !== "status")
            .filter((e) => !(
                e.getAttribute("aria-label") || e.getAttribute("aria-labelledby")
                || e.textContent.trim() || (e.labels && e.labels.length)
            )).map((e) => e.outerHTML.slice(0, 80))"""
    )
    assert nameless == []
    assert page.locator("html").get_attribute("lang") == "en"
    assert page.locator("h1").count() == 1
    levels = [
        int(tag[1])
        for tag in page.evaluate("[...document.querySelectorAll('h1,h2,h3')].map((h) => h.tagName)")
    ]
    assert all(after - before <= 1 for before, after in pairwise(levels))
    for table in page.locator("table").all():
        assert table.locator("caption").count() == 1
        assert table.locator("thead th:not([scope=col])").count() == 0
    for reference in page.locator("[aria-labelledby], [aria-describedby]").all():
        names = reference.get_attribute("aria-labelledby") or ""
        for name in f"{names} {reference.get_attribute('aria-describedby') or ''}".split():
            assert page.locator(f"#{name}").count() == 1


def test_the_keyboard_reaches_everything_and_is_never_caught(show: Callable[..., Any]) -> None:
    page = show(small_run())
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    reached = []
    for _ in range(120):
        page.keyboard.press("Tab")
        reached.append(
            page.evaluate(
                "document.activeElement.id || document.activeElement.getAttribute('class') || ''"
            )
        )
        if page.evaluate("document.activeElement === document.body"):
            break
    assert {"rows", "find", "only-critical", "pick", "sort"} <= set(reached)
    assert any(str(name).startswith("picture") for name in reached)


def test_it_prints_dark_on_white_even_from_a_dark_screen(show: Callable[..., Any]) -> None:
    page = show(small_run(), color_scheme="dark")
    page.emulate_media(media="print", color_scheme="dark")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.evaluate("getComputedStyle(document.body).color") == "rgb(23, 32, 43)"
    paper = "getComputedStyle(document.querySelector('.go-paper')).fill"
    assert page.evaluate(paper) == "rgb(255, 255, 255)"
    assert not page.locator("nav").is_visible()
    assert page.pdf()[:5] == b"%PDF-"


def test_a_narrow_screen_needs_no_sideways_scrolling(show: Callable[..., Any]) -> None:
    page = show(small_run())
    page.set_viewport_size({"width": 380, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= 380
