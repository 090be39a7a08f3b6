"""The page of the documentation that shows what was measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .measuring import Result
from .plots import as_svg
from .reporting import goal_rows, rows

HOW = """\
Each work is done by graphorch_ray and by others, each as its own documentation recommends. In a
round every contender does the work once, one after another, and each round begins with another
one. A ratio is taken within a round; the tables give the median of the rounds, and in brackets the
smallest and the largest. Every contender runs once before, and all must give the same answer.
Nothing is measured in one round and compared with another.

Below 1, a ratio says that graphorch_ray took less time. Bars are on a logarithmic scale, with a
line from the fastest to the slowest round.

`make bench` installs the others into `.venv-bench`, does it all on your machine and writes this
page. `make bench ARGS="--only W2 W4 --rounds 5"` does some of it and prints tables. Every value is
in `benchmarks/results.json` beside this page. Prefect's server is local, and nothing is sent
anywhere. Who takes longer than two minutes for one work is left out there (`--limit`).
GraphOrchestrator needs Python 3.12: `make PYTHON=python3.12 bench`, with no `.venv` there yet.

Works C1 to C4 and W12 are about checkpoints. Their files lie where temporary files do: `TMPDIR`
chooses the disk.

`make bench ARGS="--from-json A.json B.json --page docs/benchmarks.md"` makes one page of several
runs."""

SCALING = """\
`python -m benchmarks.scaling` fits a model of what a node costs the driver, and says where one
driver saturates; its `--help` lists the assumptions. With `--check` it compares what it predicts
with a simulated cluster. It said:"""

SMALL = """\
**Numbers of small sizes are provisional** (the table of goals says which; they are from an earlier
`--quick` run, on a machine that was very busy with other things). They show that every contender
runs and that answers agree. They say little about speed: at these sizes most of the time is fixed
cost, and the goals are for the full sizes."""


def as_page(
    results: Sequence[Result],
    facts: Mapping[str, Any],
    folder: str,
    bounds: str | None = None,
    scaling: str | None = None,
) -> str:
    """The page as Markdown.

    Args:
        results: what was measured.
        facts: about the machine and the run.
        folder: where the drawings lie, as seen from the page.
        bounds: what bounds the goals that are missed.
        scaling: what `benchmarks.scaling` said.
    """
    parts = ["# Benchmarks", HOW]
    if any(result.small for result in results):
        parts.append(SMALL)
    parts += [_about(facts), "## Goals", _goals(results)]
    if bounds is not None:
        parts.append(bounds.rstrip())
    for result in results:
        parts.append(f"## {result.key}: {result.title}")
        if as_svg(result):
            parts.append(f"![{result.key}: {result.title}]({folder}/{result.key}.svg)")
        parts.append(_table(rows(result)))
        if result.note:
            parts.append(result.note)
        if result.left_out:
            missing = [f"- {name}: {_cell(why)}" for name, why in result.left_out.items()]
            parts.append("Left out:\n\n" + "\n".join(missing))
    if scaling is not None:
        parts += ["## Scaling", SCALING, f"```\n{scaling.rstrip()}\n```"]
    return "\n\n".join(parts) + "\n"


def write_page(results: Sequence[Result], facts: Mapping[str, Any], page: Path) -> None:
    """Write the page, and its drawings into a folder beside it that has the page's name.

    What bounds the goals, and what `benchmarks.scaling` said, is taken from `bounds.md` and
    `scaling.txt` in that folder, where they are there.
    """
    folder = page.with_suffix("")
    folder.mkdir(parents=True, exist_ok=True)
    for result in results:
        if drawing := as_svg(result):
            (folder / f"{result.key}.svg").write_text(drawing)
    notes = [folder / "bounds.md", folder / "scaling.txt"]
    texts = [note.read_text() if note.exists() else None for note in notes]
    page.write_text(as_page(results, facts, folder.name, *texts))


def _about(facts: Mapping[str, Any]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in facts["versions"].items())
    return (
        f"Taken {facts['began'][:10]} in up to {facts['rounds']} rounds, with Python "
        f"{facts['python']} on {facts['system']}, {facts['cores']} cores, {facts['memory_gb']} GB. "
        f"Load (processes that ran or waited for a core, over a minute): {facts['load_at_begin']} "
        f"at the beginning, {facts.get('load_at_end', '?')} at the end. Versions: {versions}."
    )


def _goals(results: Sequence[Result]) -> str:
    table = [["work", "goal", "reached", "met"]]
    for result in results:
        table += [[result.key, *line] for line in goal_rows(result)]
    return _table(table)


def _table(table: Sequence[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(map(_cell, line))} |" for line in table]
    return "\n".join([lines[0], f"|{'---|' * len(table[0])}", *lines[1:]])


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
