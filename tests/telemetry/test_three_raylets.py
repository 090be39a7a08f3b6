"""One trace of a run over three machines, as a real OTLP receiver gets it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.telemetry.receiver import PROTOCOLS, Receiver, receiving
from tests.telemetry.three_raylets import ASYNC_NODES, MAKE_SPANS, OWN_SPANS, RAYLETS

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(500)]

ROOT = Path(__file__).parents[2]


def test_a_receiver_gets_one_complete_trace_of_a_run_over_three_raylets() -> None:
    folder = tempfile.mkdtemp(prefix="gor", dir="/tmp")  # Ray's socket paths must be short
    try:
        with ExitStack() as stack:
            receivers = [stack.enter_context(receiving(protocol)) for protocol in PROTOCOLS]
            where = [word for got in receivers for word in (got.protocol, got.url)]
            done = subprocess.run(
                [sys.executable, "-m", "tests.telemetry.three_raylets", folder, *where],
                capture_output=True,
                text=True,
                timeout=480,
                cwd=ROOT,
                check=False,
            )
            assert done.returncode == 0, done.stdout + done.stderr[-3000:]
            said = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
            for got, did in zip(receivers, said, strict=True):
                check(got, did)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def check(got: Receiver, did: dict[str, Any]) -> None:
    """The trace is whole, and has a span for all that the run did."""
    assert did["flushed"]
    spans = got.one_whole_trace()
    nodes = did["nodes"]
    assert nodes["retried"]["retries"] == 1  # the faults were there
    assert nodes["falls"]["fallbacks"] == 1
    assert nodes["late"]["timeouts"] >= 1
    assert nodes["killed"]["infrastructure_failures"] >= 1

    def total(name: str, begins: tuple[str, ...] = ("",)) -> int:
        return sum(int(node[name]) for key, node in nodes.items() if key.startswith(begins))

    lost = total("infrastructure_failures")
    answered = total("attempts", MAKE_SPANS) - total("infrastructure_failures", MAKE_SPANS)
    assert answered >= len(RAYLETS) * (ASYNC_NODES + 1) + 2 + 1
    kinds = Counter(attributes(span).get("graphorch.span", "own") for span in spans)
    assert kinds == {
        "run": 1,
        "superstep": did["supersteps"],
        "execution": total("executions"),
        "attempt": total("attempts"),
        "own": OWN_SPANS * answered,
    }
    outcomes = Counter(
        attributes(span)["graphorch.outcome"]
        for span in spans
        if attributes(span).get("graphorch.span") == "attempt"
    )
    assert outcomes == {
        "timeout": total("timeouts"),
        "infrastructure": lost,
        "failed": total("failures") - total("timeouts"),
        "ok": total("executions"),
    }

    parents = {span.span_id: span for span in spans}
    above = {"attempt": "execution", "execution": "superstep", "superstep": "run"}
    for span in spans:
        kind = attributes(span).get("graphorch.span", "own")
        parent = parents.get(span.parent_span_id)
        parent_kind = None if parent is None else attributes(parent).get("graphorch.span", "own")
        if kind == "own":
            assert parent_kind == ("attempt" if span.name == "outer" else "own")
        else:
            assert parent_kind == above.get(kind)
    machines = {
        attributes(parents[span.parent_span_id])["graphorch.ray_node"]
        for span in spans
        if span.name == "outer"
    }
    assert len(machines) == len(RAYLETS), "spans of nodes came home from all of them"


def attributes(span: Any) -> dict[str, Any]:
    """A span's attributes that are text."""
    return {item.key: item.value.string_value for item in span.attributes}
