"""What telemetry costs where nobody asked for it, told by calls and not by seconds."""

from __future__ import annotations

import cProfile
import gc
import pstats
from pathlib import Path

import pytest

import graphorch_ray
from graphorch_ray import GraphExecutor, ProcessingNode, State, node_action, telemetry
from graphorch_ray.telemetry import progress
from graphorch_ray.telemetry.counts import Counts
from tests.runtime.nodes import star

PACKAGE = Path(graphorch_ray.__file__).parent
KEPT_ALWAYS = {"hub.py", "summary.py", "counts.py", "broadcast.py"}
"""Modules of telemetry that count what a run does, for its summary."""

CALLS_KEPT = 12
"""Calls into these for each execution, at most."""

SHARE_KEPT = 0.05
"""Their part of the time that the run's thread takes on the inline backend, nodes that do nothing,
at most; a profiler makes short calls look longer than they are."""


@node_action
async def nothing(state: State) -> State:
    return state


class Calls:
    """What was called in the thread of a run."""

    def __init__(self, width: int, **options: bool) -> None:
        graph = star(*(ProcessingNode(f"n{i}", nothing) for i in range(width)))
        executor = GraphExecutor(graph, State([1]), max_workers=width, backend="inline")
        profile = cProfile.Profile()
        gc.collect()
        gc.disable()  # it would be charged to whoever happens to allocate
        try:
            profile.runcall(executor.run, **options)
        finally:
            gc.enable()
        assert executor.summary.nodes["join"].executions == 1
        self.executions = sum(node.executions for node in executor.summary.nodes.values())
        self._stats = pstats.Stats(profile).stats  # type: ignore[attr-defined]

    def into(self, *folders: str, but: frozenset[str] | set[str] = frozenset()) -> dict[str, int]:
        """Calls by function, of the modules in these folders of the package or of others."""
        return {
            f"{Path(file).name}:{function}": calls
            for (file, _, function), (_, calls, *_) in self._stats.items()
            if any(folder in file for folder in folders) and Path(file).name not in but
        }

    def share(self, names: set[str]) -> float:
        """The part of all own time that is spent in these modules of telemetry."""
        own = {key: times[2] for key, times in self._stats.items()}
        folder = str(PACKAGE / "telemetry")
        kept = sum(
            t for (f, *_), t in own.items() if f.startswith(folder) and Path(f).name in names
        )
        return kept / sum(own.values())


TELEMETRY = str(PACKAGE / "telemetry")
TRACING = str(PACKAGE / "runtime" / "tracing.py")


@pytest.fixture(scope="module")
def many() -> Calls:
    telemetry.shutdown()
    Calls(2)  # what is done once in a process
    return Calls(2_000)


def test_with_telemetry_off_its_code_runs_no_more_often_for_2000_executions_than_for_20(
    many: Calls,
) -> None:
    few = Calls(20)
    assert many.executions == 2_003
    places = (TELEMETRY, TRACING, "opentelemetry")
    calls = many.into(*places, but=KEPT_ALWAYS)
    assert calls == few.into(*places, but=KEPT_ALWAYS)
    assert len(calls) <= 12, calls  # functions that ask, once a run, whether somebody listens
    made = [name for name in calls if name.startswith(("span", "attempt_span", "outlet", "event"))]
    assert made == []


def test_what_is_always_counted_is_little(many: Calls) -> None:
    calls = many.into(TELEMETRY)
    assert sum(calls.values()) <= CALLS_KEPT * many.executions + 40, calls
    assert many.share(KEPT_ALWAYS) < SHARE_KEPT


def test_the_live_display_costs_the_run_nothing_for_each_execution(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Nowhere:
        def draw(self, counts: Counts) -> None:
            pass

        close = draw

    monkeypatch.setattr(progress, "_suitable", Nowhere)
    without, shown = Calls(500), Calls(500, progress=True)
    assert without.into("progress.py") == {}
    calls = shown.into("progress.py")
    assert calls["progress.py:close"] == 1
    assert sum(calls.values()) <= 10
    assert shown.into(TELEMETRY, but={"progress.py"}) == {
        **without.into(TELEMETRY),
        "hub.py:show_progress": 1,
    }
