"""Whole runs on stores that fail, and on a real S3 protocol: nothing is lost or doubled."""

from __future__ import annotations

import multiprocessing
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any
from unittest import mock

import fsspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from graphorch_ray import (
    CheckpointConflictError,
    CheckpointData,
    CheckpointError,
    GraphExecutor,
    RetryPolicy,
    failpoints,
)
from graphorch_ray.checkpoint.store import Store
from tests.chaos import sweep
from tests.chaos.test_kill_sweep import EXPECTED, Step, steps
from tests.checkpoint.test_faulty_store import ANY_FAULT, Expecting
from tests.s3_server import AWS, BUCKET, S3Server

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(300)]

PLACES = ["dispatch", "outcome", "barrier", "blob", "manifest", "prune", "claim"]
CRASHES = st.lists(
    st.tuples(
        st.sampled_from([f"{place}.{when}" for place in PLACES for when in ("before", "after")]),
        st.integers(1, 4),
    ),
    max_size=4,
)


class Crash(BaseException):
    """Ends a driver where it stands, as far as an exception can."""


def crash_at(crashes: list[tuple[str, int]]) -> Any:
    """A hook that breaks the driver at the next place of a list."""
    name, times = crashes.pop(0) if crashes else ("", 0)
    left = [times]

    def hook(reached: str) -> None:
        if reached == name:
            left[0] -= 1
            if left[0] == 0:
                raise Crash(name)

    return failpoints.hook(hook)


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(ANY_FAULT, max_size=150),
    CRASHES,
    st.sampled_from(["superstep", "node"]),
    st.sampled_from(["async", "sync"]),
)
def test_whole_runs_on_a_store_that_fails(
    schedule: list[str | None], crashes: list[tuple[str, int]], granularity: str, durability: str
) -> None:
    """A driver that breaks, by the store or by itself, is followed by another, to the end.

    What was committed when it broke never runs again; all that is injected is counted.
    """
    root = f"/{secrets.token_hex(8)}"
    expecting = Expecting(schedule)
    expecting.start()
    how: Any = {"checkpoint_granularity": granularity, "checkpoint_durability": durability}

    def faulty_store(url: str, **options: Any) -> Store:
        retry = RetryPolicy(2, 0.1)
        return Store(url, fs=expecting.fs, retry=retry, sleep=lambda _: None, **options)

    def committed() -> int:
        try:
            found = Store(root, fs=fsspec.filesystem("memory")).newest_line()
            newest = found.newest() if found is not None else None
        except CheckpointError:
            return 0
        return newest.superstep if newest is not None else 0

    with (
        tempfile.TemporaryDirectory() as folder,
        mock.patch("graphorch_ray.checkpoint.places.Store", faulty_store),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        ledger = Path(folder) / "ledger"
        broken: list[tuple[int, int]] = []
        final = None
        for _ in range(200):
            begun = committed() > 0
            try:
                with crash_at(crashes):
                    final = go(root, ledger, how, begun=begun)
                break
            except (Crash, CheckpointError, FileNotFoundError):
                broken.append((committed(), len(steps(ledger))))
        assert f"FINAL {final}" == EXPECTED
        done = steps(ledger)
        for superstep, length in broken:
            assert [step for step in done[length:] if step[0] < superstep] == []
        assert set(done) == WHOLE
    assert expecting.fs.injected == expecting.due


def go(root: str, ledger: Path, how: Any, *, begun: bool) -> Any:
    """Go on where anything was committed; what hides it for a moment is no reason to begin anew."""
    if not begun:
        return sweep.go("inline", root, str(ledger), how, 0.0)
    graph = sweep.build(str(ledger))
    return GraphExecutor.resume(root, graph, backend="inline", **how).run()


def undisturbed() -> set[Step]:
    with tempfile.TemporaryDirectory() as folder:
        sweep.go("inline", f"{folder}/runs", f"{folder}/ledger", {}, 0.0)
        return set(steps(Path(folder) / "ledger"))


WHOLE: set[Step] = set()


@pytest.fixture(autouse=True, scope="module")
def whole() -> None:
    WHOLE.update(undisturbed())


# --- S3 -------------------------------------------------------------------------------------------


def environment(server: S3Server) -> dict[str, str]:
    return {**os.environ, **AWS, "AWS_ENDPOINT_URL": server.options["endpoint_url"]}


def driver(server: S3Server, url: str, ledger: Path, failpoint: str = "") -> tuple[int, str]:
    """Run, or go on, in a process of its own; gives its exit code and what it said last."""
    done = subprocess.run(
        [
            *(sys.executable, "-W", "ignore", "-m", "tests.chaos.sweep"),
            *("inline", url, str(ledger), "superstep", "async", "0.01"),
        ],
        env={**environment(server), failpoints.VARIABLE: failpoint},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode in (0, -signal.SIGKILL), done.stderr[-3000:]
    return done.returncode, "".join(done.stdout.splitlines()[-1:])


@pytest.mark.parametrize("failpoint", ["manifest.after:6", "blob.after:2", "prune.before:4"])
def test_a_run_on_s3_is_killed_and_goes_on_in_another_process(
    s3: S3Server, tmp_path: Path, failpoint: str
) -> None:
    url = f"s3://{BUCKET}/{secrets.token_hex(8)}"
    ledger = tmp_path / "ledger"
    assert driver(s3, url, ledger, failpoint)[0] == -signal.SIGKILL
    committed = CheckpointData.load(url, storage_options=s3.options).superstep
    assert committed >= 1
    length = len(steps(ledger))
    assert driver(s3, url, ledger) == (0, EXPECTED)
    assert [step for step in steps(ledger, length) if step[0] < committed] == []
    assert set(steps(ledger)) == WHOLE


def race(url: str, ledger: str, options: Any, start: Any, out: Any) -> None:
    """In a process of its own: load, wait for the others, go on."""
    warnings.simplefilter("ignore")
    graph = sweep.build(ledger, pause=0.01)
    executor = GraphExecutor.resume(url, graph, backend="inline", storage_options=options)
    start.wait(60)
    try:
        out.put(f"FINAL {executor.run()}")
    except CheckpointConflictError as error:
        out.put(f"CONFLICT {error}")


def test_of_four_that_resume_on_s3_at_once_one_wins(s3: S3Server, tmp_path: Path) -> None:
    url = f"s3://{BUCKET}/{secrets.token_hex(8)}"
    ledger = tmp_path / "ledger"
    assert driver(s3, url, ledger, "manifest.after:5")[0] == -signal.SIGKILL
    with mock.patch.dict(os.environ, AWS):
        context = multiprocessing.get_context("spawn")
        start, out = context.Barrier(4), context.Queue()
        racers = [
            context.Process(target=race, args=(url, str(ledger), s3.options, start, out))
            for _ in range(4)
        ]
        for racer in racers:
            racer.start()
        answers = sorted(out.get(timeout=100) for _ in racers)
        for racer in racers:
            racer.join(30)
    assert [answer.split()[0] for answer in answers] == ["CONFLICT"] * 3 + ["FINAL"]
    assert answers[-1] == EXPECTED
    line = Store(url, storage_options=s3.options).line("000001")
    ended = [m for _, m in line.manifests() if m is not None and m.kind == "end"]
    assert len(ended) == 1
