"""What the report's file holds, without a browser."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from graphorch_ray.model import GraphBuilder, ProcessingNode, pass_through
from graphorch_ray.telemetry.report import write_report
from graphorch_ray.telemetry.report.page import SCRIPTS

from .traces import RUNS, Plan, Simulation, Span, failed_run, small_run, wide_run, with_own_spans

VOID = {"meta", "input", "link", "br"}


class Page(HTMLParser):
    """Reads a page; complains of elements that are not closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {}
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
            self.texts.setdefault(tag, []).append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        for tag in set(self.open):
            self.texts[tag][-1] += data


def report(spans: list[Span], tmp_path: Path, **options: Any) -> str:
    path = write_report(spans, tmp_path / "run.html", **options)
    assert path == tmp_path / "run.html"
    return path.read_text(encoding="utf-8")


def data_of(text: str) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.S)
    assert found
    value: dict[str, Any] = json.loads(found[1])
    return value


@pytest.mark.parametrize("name", RUNS)
def test_the_page_is_well_formed_and_ids_are_unique(name: str, tmp_path: Path) -> None:
    page = Page(report(RUNS[name](), tmp_path))
    ids = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
    assert len(ids) == len(set(ids))


def test_the_page_needs_nothing_but_itself(tmp_path: Path) -> None:
    text = report(small_run(), tmp_path)
    page = Page(text)
    for tag, attrs in page.tags:
        assert tag not in ("link", "img", "iframe", "object")
        assert not {"src", "srcset", "style", "onclick", "onload"} & set(attrs)
        assert (attrs.get("href") or "#").startswith("#")
    assert not re.findall(r"https?://(?!www\.w3\.org/2000/svg)", text)
    assert "@import" not in text


def test_the_policy_admits_the_pages_own_scripts_and_styles_alone(tmp_path: Path) -> None:
    text = report(small_run(), tmp_path)
    policy = next(
        a["content"] or "" for t, a in Page(text).tags if t == "meta" and "http-equiv" in a
    )
    assert policy.startswith("default-src 'none'")
    assert "unsafe" not in policy
    scripts = re.findall(r"<script>(.*?)</script>", text, re.S)
    styles = re.findall(r"<style>(.*?)</style>", text, re.S)
    assert len(scripts) == len(SCRIPTS)
    for code in (*scripts, *styles):
        digest = base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in policy


HOSTILE = [
    "</script><script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "<!--<script>",
    "a\x00b\u202etxt\u2028\ud800",
    "${name} $policy {{x}}",
]


@pytest.mark.parametrize("hostile", HOSTILE)
def test_hostile_text_from_a_trace_stays_text(hostile: str, tmp_path: Path) -> None:
    text = report(failed_run(hostile, f"{hostile}: {hostile}\nsecond line"), tmp_path)
    page = Page(text)
    harmless = Page(report(failed_run("parse"), tmp_path))
    assert [tag for tag, _ in page.tags] == [tag for tag, _ in harmless.tags]
    assert hostile in data_of(text)["nodes"]


def test_tables_say_what_ran(tmp_path: Path) -> None:
    text = report(small_run(), tmp_path)
    rows = re.findall(r'<tr data-node="(\w+)"', text)
    assert rows == [
        "start",
        "plan",
        "search",
        "read",
        "collect",
        "write",
        "plain_write",
        "critic",
        "end",
    ]
    row = re.search(r'<tr data-node="search".*?</tr>', text, re.S)
    assert row
    values = re.findall(r'data-value="([^"]*)"', row[0])
    assert values[:4] == ["3", "4", "1", "1"]
    assert text.count("<td>saved</td>") == 3
    assert ">s3://runs/demo<" in text


def test_the_drawing_carries_counts_and_pales_what_did_not_run(tmp_path: Path) -> None:
    text = report(small_run(), tmp_path)
    assert re.search(r'go-is-unused" data-node="unused"', text)
    assert re.search(r'data-node="plan"[^>]*aria-label="plan · 3\u00a0\u00d7 · ', text)
    assert ">2\u00a0\u00d7</text>" in text  # back to plan twice
    assert "good_enough?" in text
    failed = report(failed_run(), tmp_path)
    assert re.search(r'go-is-failed" data-node="parse"', failed)
    assert re.search(r'data-node="parse"[^>]*aria-label="parse · 1\u00a0\u00d7 · 3 failed', failed)
    assert re.search(r'go-is-unused" data-node="merge"', failed)


def test_the_graph_is_taken_from_the_caller_the_trace_or_what_ran(tmp_path: Path) -> None:
    builder = GraphBuilder("given")
    builder.add_node(ProcessingNode("a", pass_through))
    builder.add_node(ProcessingNode("only given", pass_through))
    for source, sink in (
        ("start", "a"),
        ("start", "only given"),
        ("a", "end"),
        ("only given", "end"),
    ):
        builder.add_concrete_edge(source, sink)
    simulation = Simulation()
    simulation.superstep([Plan("start")], [("start", "a", "")])
    simulation.superstep([Plan("a")], [("a", "end", "r"), ("a", "b", "r")])
    spans = simulation.finish()
    given = report(spans, tmp_path, graph=builder.build_graph())
    assert 'data-node="only given"' in given
    seen = report(spans, tmp_path)
    assert 'data-node="only given"' not in seen
    assert 'data-node="a / r"' in seen
    assert 'data-node="b"' in seen


def test_a_failed_run_says_so_first_and_opens_its_traceback(tmp_path: Path) -> None:
    text = report(failed_run(), tmp_path)
    assert "Execution failed at node &#x27;parse&#x27;: ValueError: a page was empty" in text
    assert text.index('id="errors"') < text.index('id="graph"')
    assert "<details open>" in text
    assert "return page[0]" in text
    finished = report(small_run(), tmp_path)
    assert finished.index('id="errors"') > finished.index('id="timeline"')


def test_time_before_the_first_superstep_is_told_apart(tmp_path: Path) -> None:
    simulation = Simulation()
    simulation.now += 5
    simulation.superstep([Plan("start")])
    assert re.search(
        r"<b>5.02 s</b> before the first superstep", report(simulation.finish(), tmp_path)
    )


def test_what_there_was_none_of_has_no_section(tmp_path: Path) -> None:
    simulation = Simulation()
    simulation.superstep([Plan("start")])
    text = report(simulation.finish(), tmp_path)
    assert 'id="errors"' not in text
    assert 'id="checkpoints"' not in text
    assert 'id="spans"' not in text


def test_a_run_without_supersteps_and_one_without_an_end_have_a_page(tmp_path: Path) -> None:
    assert "Nothing was recorded" not in report(Simulation().finish("cancelled"), tmp_path)
    unfinished = [s for s in small_run() if s["attributes"]["graphorch.span"] != "run"]
    assert "The trace ends before the run did" in report(unfinished, tmp_path)


def test_spans_of_node_code_have_a_table_and_go_to_the_script(tmp_path: Path) -> None:
    text = report(with_own_spans(failed_run(), pairs=20), tmp_path)
    table = text[text.index('id="spans-table"') :]
    assert '<th scope="row" class="wide">GET /pages</th>' in table
    assert "start, fetch, page_0, page_1, parse, page_2 and 3 more nodes" in table
    data = data_of(text)
    attempts = len(data["attempts"]["node"])
    assert data["spanNames"] == ["GET /pages", "connect"]
    assert len(data["spans"]["attempt"]) == 30 * attempts
    assert data["spansHidden"] == {str(number): 10 for number in range(attempts)}


def test_names_of_spans_beyond_number_do_not_fill_the_page(tmp_path: Path) -> None:
    spans = with_own_spans(failed_run(), pairs=20)
    for number, span in enumerate(span for span in spans if span["name"] == "connect"):
        span["name"] = f"job {number}"
    assert "21 more names with less time are not shown" in report(spans, tmp_path)


def test_thousands_of_attempts_stay_a_file_that_opens(tmp_path: Path) -> None:
    text = report(wide_run(1000, supersteps=5), tmp_path)
    assert len(data_of(text)["attempts"]["node"]) == 5058
    assert len(text) < 2_500_000
    assert text.count("<article") == 1


def test_the_same_trace_gives_the_same_page(tmp_path: Path) -> None:
    assert report(small_run(), tmp_path) == report(small_run(), tmp_path)
