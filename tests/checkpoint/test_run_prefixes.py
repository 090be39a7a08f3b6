"""A run that ends after any of its writes goes on from there, and comes to the same end."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from graphorch_ray import CheckpointData, GraphExecutor, State
from graphorch_ray.checkpoint.place import PatientFiles
from tests.chaos import sweep


@pytest.fixture
def prefixes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Copies of ``tmp_path/runs`` as it was after each file that was written or deleted."""
    taken: list[Path] = []
    own = tmp_path / "runs"

    def copy(files: PatientFiles) -> None:
        if files.url == str(own):
            taken.append(tmp_path / f"prefix{len(taken)}")
            shutil.copytree(own, taken[-1])

    def copied(name: str) -> Callable[..., Any]:
        original = getattr(PatientFiles, name)

        def call(self: PatientFiles, *arguments: Any) -> Any:
            answer = original(self, *arguments)
            copy(self)
            return answer

        return call

    delete = PatientFiles.delete

    def one_by_one(self: PatientFiles, names: Iterable[str]) -> None:
        for name in names:
            delete(self, [name])
            copy(self)

    for name in ("create", "put"):
        monkeypatch.setattr(PatientFiles, name, copied(name))
    monkeypatch.setattr(PatientFiles, "delete", one_by_one)
    return taken


@pytest.mark.parametrize("granularity", ["superstep", "node"])
def test_every_prefix_of_a_runs_writes_comes_to_the_same_end(
    tmp_path: Path, prefixes: list[Path], granularity: Any
) -> None:
    """Header and first values, every checkpoint, every file that is pruned."""
    ledger = tmp_path / "ledger"
    graph = sweep.build(str(ledger))

    def begin(place: Path) -> GraphExecutor:
        return GraphExecutor(
            graph,
            State([1, b"i" * 70_000]),
            checkpoint_path=str(place),
            checkpoint_every=1,
            backend="inline",
            checkpoint_granularity=granularity,
            keep_last=2,
        )

    def done() -> list[tuple[int, str, str]]:
        lines = ledger.read_text().splitlines() if ledger.exists() else []
        fields = [line.split() for line in lines]
        return [(int(superstep), node, role) for superstep, node, role, _ in fields]

    final = begin(tmp_path / "runs").run()
    whole = set(done())
    found = list(prefixes)
    assert len(found) > 30
    newest: list[int] = []
    for place in found:
        ledger.unlink(missing_ok=True)
        try:
            newest.append(CheckpointData.load(place).superstep)
            again = GraphExecutor.resume(str(place), graph, backend="inline")
        except FileNotFoundError:
            newest.append(-1)
            again = begin(place)
        assert again.run() == final, place
        committed = {step for step in whole if step[0] < newest[-1]}
        assert set(done()).isdisjoint(committed), place
        assert len(done()) == len(set(done())), place
    assert newest == sorted(newest), "no write ever takes a run back"
    assert newest[0] == -1
    assert set(range(newest[-1] + 1)) <= set(newest)
