"""Checkpoints of whole runs that earlier versions wrote load, and go on, for ever.

Each entry of ``golden/run/`` is named after the format and the form: a directory, one that is
signed, one that is compressed, a single file. Run ``python -m tests.checkpoint.test_golden_run`` to
add those that are not there yet, for a new form or a new format; what is there is never written
again.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
import time
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pyarrow as pa
import pytest

from graphorch_ray import (
    CheckpointData,
    CheckpointError,
    Graph,
    GraphExecutionError,
    GraphExecutor,
    RetryPolicy,
    State,
)
from tests.checkpoint.codec import assert_same
from tests.checkpoint.runs import diamond

GOLDEN = Path(__file__).parent / "golden" / "run"
FORMAT = 1
KEY = "golden"
FORMS: dict[str, dict[str, Any]] = {
    "directory": {},
    "signed": {"checkpoint_key": KEY},
    "compressed": {"checkpoint_compression": "zstd"},
    "file.ckpt": {},
}
RUNS = sorted(GOLDEN.iterdir()) if GOLDEN.exists() else []

PLAIN = {"text": "grün", "numbers": (1, -2.5, 10**30), b"bytes": {None, True}}
ARRAY = np.arange(66_000, dtype=np.int8) % 7
TABLE = pa.table({"x": [1, 2, None], "y": ["a", "b", "c"]})
INITIAL = State([PLAIN, ARRAY, TABLE])


def graph() -> Graph:
    """The graph of the runs. It cannot be pickled, so that there is no code in the files."""
    lock = threading.Lock()

    def left(state: State) -> State:
        with lock:
            return State([state.messages[0], state.messages[1] + 1, "left"])

    def right(state: State) -> State:
        with lock:
            return State([state.messages[2], "right"])

    return diamond(left, right)


def assert_all_same(got: list[Any], expected: list[Any]) -> None:
    for one, two in zip(got, expected, strict=True):
        assert_same(one, two)


@pytest.mark.parametrize("path", RUNS, ids=lambda path: path.name)
def test_a_run_of_an_earlier_version_loads_and_goes_on(path: Path, tmp_path: Path) -> None:
    place = tmp_path / path.name
    shutil.copytree(path, place) if path.is_dir() else shutil.copy(path, place)
    before = path.name.partition("-")[2]
    key = FORMS[before].get("checkpoint_key")
    with mock.patch("os.geteuid", return_value=os.geteuid() + 1):  # nothing in it needs trust
        chkpt = CheckpointData.load(place, key=key)
        assert (chkpt.superstep, chkpt.status, chkpt.max_workers) == (2, "failed", 3)
        assert chkpt.retry_policy == RetryPolicy(2, 0.5, retry_on=(OSError,))
        assert_all_same(chkpt.initial_state.messages, INITIAL.messages)
        assert list(chkpt.active_states) == ["left", "right"]
        for (state,) in chkpt.active_states.values():
            assert_all_same(state.messages, [*INITIAL.messages, "a"])
        with pytest.raises(CheckpointError, match="holds no graph"):
            _ = chkpt.graph
        # The fingerprint may be made in another way by now.
        again = GraphExecutor.resume(
            str(place), graph(), allow_graph_change=True, checkpoint_key=key, backend="inline"
        )
        final = again.run()
    assert final is not None
    left, right = final.messages
    assert_all_same(left, [PLAIN, ARRAY + 1, "left"])
    assert_all_same(right, [TABLE, "right"])
    assert CheckpointData.load(place, key=key).status == "finished"


def test_every_form_has_a_golden_run() -> None:
    names = {f"{FORMAT}-{form}" for form in FORMS}
    assert names <= {path.name for path in RUNS}, "run the module to add what is missing"


def add_missing() -> None:
    """Write a run of each form that has none in the present format."""
    GOLDEN.mkdir(exist_ok=True)
    nobody = "someone@somewhere pid 1 (00000000)"
    for form, options in FORMS.items():
        path = GOLDEN / f"{FORMAT}-{form}"
        if path.exists():
            continue
        with (
            tempfile.TemporaryDirectory() as folder,
            mock.patch("graphorch_ray.checkpoint.store.writer_id", return_value=nobody),
            mock.patch("graphorch_ray.checkpoint.single.writer_id", return_value=nobody),
            mock.patch("time.time", return_value=time.mktime((2026, 1, 1, 0, 0, 0, 0, 1, 0))),
        ):
            place = Path(folder) / path.name
            executor = GraphExecutor(
                graph(),
                INITIAL,
                max_workers=3,
                retry_policy=RetryPolicy(2, 0.5, retry_on=(OSError,)),
                checkpoint_path=str(place),
                checkpoint_every=1,
                backend="inline",
                **options,
            )
            executor.run_id = "golden"
            try:
                executor.run(max_supersteps=2)
            except GraphExecutionError:
                shutil.move(place, path)


if __name__ == "__main__":
    add_missing()
