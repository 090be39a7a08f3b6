"""Failpoints cost nothing when off, and kill when they are on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import timeit

import pytest

from graphorch_ray import failpoints


def test_a_hook_sees_what_is_reached_and_is_gone_afterwards() -> None:
    seen: list[str] = []
    with failpoints.hook(seen.append):
        failpoints.reach("a")
        with failpoints.hook(lambda name: None):
            failpoints.reach("b")
        failpoints.reach("c")
    failpoints.reach("d")
    assert seen == ["a", "c"]


def test_what_a_hook_raises_is_raised_where_it_is_reached() -> None:
    def stop(name: str) -> None:
        raise KeyboardInterrupt(name)

    with failpoints.hook(stop), pytest.raises(KeyboardInterrupt, match="here"):
        failpoints.reach("here")


def test_nothing_measurable_is_paid_when_off() -> None:
    calls = 10_000
    best = min(timeit.repeat(lambda: failpoints.reach("manifest.before"), number=calls, repeat=5))
    assert best / calls < 1e-6


PROGRAM = """
from graphorch_ray import failpoints
for i in range(5):
    print(i, flush=True)
    failpoints.reach("other")
    failpoints.reach("here")
"""


@pytest.mark.parametrize(
    ("setting", "printed"),
    [("here:3", "0\n1\n2\n"), ("here", "0\n"), ("nowhere", "0\n1\n2\n3\n4\n")],
)
def test_the_environment_names_the_place_and_the_count(setting: str, printed: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env={**os.environ, failpoints.VARIABLE: setting, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == printed
    assert done.returncode == (0 if setting == "nowhere" else -signal.SIGKILL)


@pytest.mark.parametrize("setting", ["here:0", "here:x", ":3", "here:-1"])
def test_a_wrong_setting_is_refused(setting: str) -> None:
    with pytest.raises(ValueError, match="must be 'name' or 'name:count'"):
        failpoints.killer(setting)
