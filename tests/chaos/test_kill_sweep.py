"""The driver is killed everywhere it can be, and a new process goes on: nothing lost or doubled.

Killed with SIGKILL at every failpoint, and at random instants; a driver that goes on may be killed
too. What nodes did is in a ledger outside.
"""

from __future__ import annotations

import collections
import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from graphorch_ray import CheckpointData, failpoints
from tests.chaos import sweep

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(900)]

EXPECTED = "FINAL State([71, 36, 14, 1, 'instead'])"
Step = tuple[int, str, str]


def in_child(
    folder: Path,
    settings: dict[str, str],
    *,
    failpoint: str = "",
    kill_after: float | None = None,
    pause: float = 0.0,
    count_into: Path | None = None,
) -> int:
    """Run the program in a fork of this process; gives its exit code (-9: killed)."""

    def program() -> None:
        if failpoint:
            failpoints._hook = failpoints.killer(failpoint)
        reached: collections.Counter[str] = collections.Counter()
        if count_into is not None:
            failpoints._hook = lambda name: reached.update([name])
        final = sweep.go("inline", str(folder / "runs"), str(folder / "ledger"), settings, pause)
        (folder / "final").write_text(f"FINAL {final}")
        if count_into is not None:
            count_into.write_text(json.dumps(reached))
        os._exit(0)

    child = multiprocessing.get_context("fork").Process(target=program)
    child.start()
    if kill_after is not None:
        timer = threading.Timer(kill_after, child.kill)  # nothing where it has ended
        timer.start()
    child.join(60)
    assert child.exitcode is not None, "it hangs"
    if kill_after is not None:
        timer.cancel()
    return child.exitcode


def steps(ledger: Path, start: int = 0) -> list[Step]:
    """What is in the ledger, from a line on."""
    if not ledger.exists():
        return []
    found = [line.split() for line in ledger.read_text().splitlines()[start:]]
    return [(int(superstep), node, role) for superstep, node, role, _ in found]


def committed(folder: Path) -> int:
    """The superstep that comes next in the newest checkpoint; 0 without any."""
    try:
        return CheckpointData.load(str(folder / "runs")).superstep
    except FileNotFoundError:
        return 0


def check_ledger(folder: Path, kills: list[tuple[int, int]], whole: set[Step]) -> None:
    """Nothing is missing, and no superstep ran again that was committed at a kill.

    `kills` has, for each, the superstep that was next then, and the ledger's length.
    """
    assert (folder / "final").read_text() == EXPECTED
    ledger = folder / "ledger"
    assert set(steps(ledger)) == whole
    for superstep, length in kills:
        again = [step for step in steps(ledger, length) if step[0] < superstep]
        assert again == [], f"committed before superstep {superstep}, and run again"


def finish(
    folder: Path, settings: dict[str, str], kills: list[tuple[int, int]], *, pause: float = 0.0
) -> None:
    kills.append((committed(folder), len(steps(folder / "ledger"))))
    assert in_child(folder, settings, pause=pause) == 0


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> set[Step]:
    """What an undisturbed run does."""
    folder = tmp_path_factory.mktemp("whole")
    assert in_child(folder, {}) == 0
    assert (folder / "final").read_text() == EXPECTED
    done = steps(folder / "ledger")
    assert len(done) == len(set(done)), "an undisturbed run does nothing twice"
    return set(done)


@pytest.mark.parametrize(("granularity", "durability"), [("superstep", "async"), ("node", "sync")])
def test_driver_killed_at_every_failpoint(
    tmp_path: Path, whole: set[Step], granularity: str, durability: str
) -> None:
    """Spec section 3: before and after each dispatch, outcome, barrier, blob, manifest, prune."""
    settings = {"checkpoint_granularity": granularity, "checkpoint_durability": durability}
    counts_file = tmp_path / "counts"
    (tmp_path / "first").mkdir()
    assert in_child(tmp_path / "first", settings, count_into=counts_file) == 0
    counts: dict[str, int] = json.loads(counts_file.read_text())
    places = ("dispatch", "outcome", "barrier", "blob", "manifest", "prune")
    assert {f"{place}.{when}" for place in places for when in ("before", "after")} <= set(counts)
    killed = 0
    for name, times in counts.items():
        for number in range(1, times + 1):
            folder = tmp_path / f"{name}-{number}"
            folder.mkdir()
            if in_child(folder, settings, failpoint=f"{name}:{number}") != -signal.SIGKILL:
                continue  # how outcomes are grouped, and so how many there are, is up to time
            killed += 1
            kills: list[tuple[int, int]] = []
            finish(folder, settings, kills)
            check_ledger(folder, kills, whole)
    assert killed > 0.8 * sum(counts.values())


def test_driver_killed_while_it_recovers(tmp_path: Path, whole: set[Step]) -> None:
    """A second crash, at every place that a recovery comes by."""
    killed = 0
    names = ("claim.before", "claim.after", "dispatch.before", "outcome.after", "manifest.before")
    for number, name in enumerate([*names, "manifest.after", "prune.before", "blob.before"]):
        for first in (2, 4):
            folder = tmp_path / f"{number}-{first}"
            folder.mkdir()
            assert in_child(folder, {}, failpoint=f"manifest.after:{first}") == -signal.SIGKILL
            kills = [(committed(folder), len(steps(folder / "ledger")))]
            killed += in_child(folder, {}, failpoint=name) == -signal.SIGKILL
            finish(folder, {}, kills)
            check_ledger(folder, kills, whole)
    assert killed >= 14


def test_driver_killed_at_200_random_instants(tmp_path: Path, whole: set[Step]) -> None:
    """At any moment, again and again, until a driver gets through."""
    chance = random.Random(20)
    killed = 0
    run = 0
    while killed < 200:
        run += 1
        folder = tmp_path / str(run)
        folder.mkdir()
        settings = {
            "checkpoint_granularity": chance.choice(["superstep", "node"]),
            "checkpoint_durability": chance.choice(["async", "sync"]),
        }
        kills: list[tuple[int, int]] = []
        for _ in range(chance.choice([1, 1, 2, 3])):
            code = in_child(folder, settings, kill_after=chance.uniform(0.01, 0.25), pause=0.01)
            kills.append((committed(folder), len(steps(folder / "ledger"))))
            killed += code == -signal.SIGKILL
        finish(folder, settings, kills, pause=0.01)
        check_ledger(folder, kills, whole)


def test_driver_on_ray_killed_at_30_random_instants(
    tmp_path: Path, ray_session: str, whole: set[Step]
) -> None:
    """Drivers come and go on one Ray that stays up; what they ran is fenced or gone."""
    chance = random.Random(30)
    environment = {
        **os.environ,
        "RAY_ADDRESS": ray_session,
        "RAY_AUTH_MODE": "disabled",
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    }

    def start(folder: Path, granularity: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [
                *(sys.executable, "-m", "tests.chaos.sweep", "ray"),
                *(str(folder / "runs"), str(folder / "ledger"), granularity, "async", "0.05"),
            ],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    killed = 0
    run = 0
    while killed < 30:
        run += 1
        folder = tmp_path / str(run)
        folder.mkdir()
        granularity = chance.choice(["superstep", "node"])
        driver = start(folder, granularity)
        began = time.monotonic()
        while not (folder / "ledger").exists() and time.monotonic() - began < 30:
            time.sleep(0.01)
        time.sleep(chance.uniform(0.0, 1.0))
        driver.kill()
        driver.communicate()
        if driver.returncode == -signal.SIGKILL:
            killed += 1
        # A node of the dead driver may be at work yet. What it writes down now is no second run
        # of a committed superstep: its superstep was not committed.
        time.sleep(0.3)
        kills = [(committed(folder), len(steps(folder / "ledger")))]
        again = start(folder, granularity)
        output, errors = again.communicate(timeout=100)
        assert again.returncode == 0, errors[-2000:]
        (folder / "final").write_text(output.strip().splitlines()[-1])
        check_ledger(folder, kills, whole)
