"""README and docs are true: their programs run, their pictures are drawn, their names exist."""

from __future__ import annotations

import ast
import io
import re
import runpy
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import pytest

import graphorch_ray

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.M | re.S)
LINK = re.compile(r"\[[^\]]+\]\(([^)\s]+)\)")


def blocks(page: Path, language: str) -> list[str]:
    return [code for kind, code in BLOCK.findall(page.read_text("utf-8")) if kind == language]


def programs() -> list[Any]:
    return [
        pytest.param(code, id=f"{page.name}-{number}")
        for page in PAGES
        for number, code in enumerate(blocks(page, "python"))
    ]


def run(code: str, folder: Path) -> tuple[dict[str, Any], str]:
    """Run a program as pasted into a file; gives its variables and what it printed."""
    path = folder / "pasted.py"
    path.write_text(code, encoding="utf-8")
    out = io.StringIO()
    with redirect_stdout(out):
        variables = runpy.run_path(str(path), run_name="__main__")
    return variables, out.getvalue()


@pytest.mark.parametrize("code", programs())
def test_every_program_in_the_documents_runs(
    code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    if ".submit(" in code:
        request.getfixturevalue("ray_session")
    monkeypatch.setenv("GRAPHORCH_BACKEND", "inline")
    monkeypatch.chdir(tmp_path)  # some write files
    _, printed = run(code, tmp_path)
    assert printed


def test_the_quickstart_prints_what_the_readme_says_on_both_backends(
    backend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRAPHORCH_BACKEND", backend)
    readme = ROOT / "README.md"
    variables, printed = run(blocks(readme, "python")[0], tmp_path)
    assert printed == blocks(readme, "text")[0]
    assert variables["executor"].backend == backend


def test_the_picture_in_the_readme_is_the_quickstarts_graph(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRAPHORCH_BACKEND", "inline")
    readme = ROOT / "README.md"
    variables, _ = run(blocks(readme, "python")[0], tmp_path)
    (picture,) = blocks(readme, "mermaid")
    assert picture.rstrip("\n") == variables["graph"].to_mermaid()


def test_the_fallback_in_the_readme_steps_in(tmp_path: Path) -> None:
    _, printed = run(blocks(ROOT / "README.md", "python")[1], tmp_path)
    assert printed.startswith("State(['20.5, an hour ago'])\nNodeSummary(")
    assert "attempts=3" in printed
    assert "fallbacks=1" in printed


def test_what_placement_says_it_prints_is_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRAPHORCH_BACKEND", "inline")
    page = ROOT / "docs" / "placement.md"
    (program,) = blocks(page, "python")
    _, printed = run(program, tmp_path)
    assert f"prints `{printed.strip()}`" in page.read_text("utf-8")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_in_the_documents_leads_somewhere(page: Path) -> None:
    for target in LINK.findall(page.read_text("utf-8")):
        if "://" in target:
            continue
        name, _, anchor = target.partition("#")
        file = (page.parent / name).resolve() if name else page
        assert file.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.+)$", file.read_text("utf-8"), re.M)
            slugs = {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}
            assert anchor in slugs, target


def test_every_test_that_the_guarantees_name_exists() -> None:
    text = (ROOT / "docs" / "guarantees.md").read_text("utf-8")
    named = set(re.findall(r"`(test_\w+)`", text))
    existing = {
        node.name
        for path in (ROOT / "tests").rglob("test_*.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    assert named
    assert sorted(named - existing) == []


def test_every_promise_names_a_test() -> None:
    text = (ROOT / "docs" / "guarantees.md").read_text("utf-8")
    promises = text.partition("## Promised")[2].partition("## Not promised")[0]
    rows = [line for line in promises.splitlines() if line.startswith("| ")]
    rows = [row for row in rows if not row.startswith("| promise ")]
    assert rows
    assert [row for row in rows if "`test_" not in row] == []


def test_every_name_in_the_import_table_is_there() -> None:
    text = (ROOT / "docs" / "coming-from-graphorchestrator.md").read_text("utf-8")
    rows = re.findall(r"^\| `graphorchestrator\.[^|]+\| (.+) \|$", text, re.M)
    names = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    assert len(names) > 30
    assert sorted(names - set(graphorch_ray.__all__)) == []


def test_every_option_of_a_node_is_in_the_table() -> None:
    text = (ROOT / "docs" / "placement.md").read_text("utf-8")
    table = text.partition("## What a node may ask for")[2].partition("## Time-outs")[0]
    for option in graphorch_ray.NodeOptions.__dataclass_fields__:
        assert f"`{option}" in table, option
