"""Makes traces of runs that never were: spans in the form of the trace file.

A small simulation: slots, workers, launch order, retries with waits, fallbacks, failures.
"""

from __future__ import annotations

import heapq
import itertools
import json
import random
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Span = dict[str, Any]
ZERO = 1_700_000_000_000_000_000
HEADER = {"format": "graphorch-trace/1", "resource": {"service.name": "graphorch_ray"}}


@dataclass
class Plan:
    """One execution: what its attempts come to, and how long each runs."""

    node: str
    outcomes: list[str] = field(default_factory=lambda: ["ok"])
    seconds: float = 0.1
    kind: str = "ProcessingNode"
    fallback: str | None = None
    error: str = "ValueError: a page was empty"


@dataclass
class Simulation:
    """Writes down what a run would have left behind."""

    slots: int = 4
    graph: str = "simulated"
    run_id: str = "run-1"
    start: float = 0.0
    dispatch: float = 0.003

    def __post_init__(self) -> None:
        self.spans: list[Span] = []
        self.run_events: list[Span] = []
        self.now = self.start + 0.02
        self.ids = itertools.count(1)
        self.random = random.Random(7)
        self.root = self.next_id()
        self.number = 0

    def next_id(self) -> str:
        return f"{next(self.ids):016x}"

    def span(
        self, kind: str, name: str, parent: str | None, begin: float, end: float, **told: Any
    ) -> Span:
        span: Span = {
            "traceId": f"{zlib.crc32(self.run_id.encode()):032x}",
            "spanId": told.pop("span_id", None) or self.next_id(),
            "parentSpanId": parent,
            "name": name,
            "kind": "INTERNAL",
            "startTimeUnixNano": nanoseconds(begin),
            "endTimeUnixNano": nanoseconds(end),
            "attributes": {
                "graphorch.span": kind,
                "graphorch.run_id": self.run_id,
                "graphorch.graph": self.graph,
                **{f"graphorch.{key}": value for key, value in told.items()},
            },
            "events": [],
            "links": [],
            "status": {"code": "UNSET", "message": ""},
            "scope": "graphorch_ray",
        }
        self.spans.append(span)
        return span

    def superstep(
        self, plans: list[Plan], edges: Iterable[tuple[str, str, str]] = (), *, passes: bool = True
    ) -> None:
        """Run the plans, then take the edges: source, sink, router or nothing."""
        begin = self.now
        parent = self.next_id()
        free = [(begin, worker) for worker in range(self.slots)]
        queue = [(begin, number, 0) for number in range(len(plans))]
        ids = [self.next_id() for _ in plans]
        ends = [begin] * len(plans)
        events: list[list[Span]] = [[] for _ in plans]
        counts = [0] * len(plans)
        failed = set()
        heapq.heapify(queue)
        while queue:
            ready, number, attempt = heapq.heappop(queue)
            plan = plans[number]
            idle, worker = heapq.heappop(free)
            started = max(ready, idle) + self.dispatch
            stands_in = attempt >= len(plan.outcomes)
            outcome = "ok" if stands_in else plan.outcomes[attempt]
            ended = started + plan.seconds * self.random.uniform(0.7, 1.4)
            heapq.heappush(free, (ended, worker))
            self.attempt(plan, number, attempt, outcome, ids[number], worker, ready, started, ended)
            counts[number] += 1
            ends[number] = ended
            if outcome == "ok":
                continue
            if attempt + 1 < len(plan.outcomes):
                pause = 0.0 if outcome == "infrastructure" else 0.05 * 2**attempt
                events[number].append(event("node_retry_scheduled", ended, retry_delay=pause))
                heapq.heappush(queue, (ended + pause, number, attempt + 1))
            elif plan.fallback is not None and not stands_in:
                events[number].append(
                    event(
                        "fallback_invoked",
                        ended,
                        source_node=plan.node,
                        fallback_node=plan.fallback,
                    )
                )
                heapq.heappush(queue, (ended, number, attempt + 1))
            else:
                failed.add(number)
        for number, plan in enumerate(plans):
            execution = self.span(
                "execution",
                f"node {plan.node}",
                parent,
                begin,
                ends[number],
                span_id=ids[number],
                superstep=self.number,
                execution=number,
                node_id=plan.node,
                node_type=plan.kind,
                attempts=counts[number],
                outcome="failed" if number in failed else "ok",
                **(
                    {"fallback_node": plan.fallback}
                    if plan.fallback and len(events[number])
                    else {}
                ),
            )
            execution["events"] = events[number]
        end = max(ends, default=begin) + 0.004
        span = self.span(
            "superstep",
            "superstep",
            self.root,
            begin,
            end,
            span_id=parent,
            superstep=self.number,
            active_nodes=[plan.node for plan in plans],
            epoch=1,
            **({"advanced_superstep": self.number + 1} if passes else {}),
        )
        span["events"] = [
            event(
                "conditional_edge_transition" if router else "concrete_edge_transition",
                end,
                source_node=source,
                sink_node=sink,
                count=1,
                **({"router_func": router} if router else {}),
            )
            for source, sink, router in edges
        ]
        if passes:
            self.number += 1
        self.now = end + 0.002

    def attempt(
        self,
        plan: Plan,
        number: int,
        attempt: int,
        outcome: str,
        parent: str,
        worker: int,
        ready: float,
        started: float,
        ended: float,
    ) -> None:
        stands_in = attempt >= len(plan.outcomes)
        node = plan.fallback if stands_in and plan.fallback else plan.node
        driver = plan.node in ("start", "end")
        lost = sum(o == "infrastructure" for o in plan.outcomes[:attempt])
        told: dict[str, Any] = {
            "superstep": self.number,
            "execution": number,
            "node_id": node,
            "owner_id": plan.node,
            "node_type": plan.kind,
            "role": "fallback" if stands_in else "node",
            "retry_count": 0 if stands_in else attempt - lost,
            "rerun": lost,
            "outcome": outcome,
            "queue_wait": started - ready,
            "run_time": ended - started,
            "placement": "driver" if driver else "task",
            "input_bytes": 2048 * (number + 1),
        }
        if not driver:
            told |= {"worker_pid": 4000 + worker, "ray_node": "a1b2c3d4e5f60718"}
        if outcome == "ok":
            told["output_bytes"] = 1024
        span = self.span("attempt", f"attempt {node}", parent, ready, ended, **told)
        if outcome != "infrastructure":
            span["events"].append(event("execute_start", started))
        if outcome in ("failed", "timeout", "infrastructure"):
            kind, _, text = plan.error.partition(": ")
            span["attributes"] |= {"graphorch.error": text, "error.type": kind}
            span["status"] = {"code": "ERROR", "message": plan.error}
            raised = event("exception", ended)
            raised["attributes"] = {
                "exception.type": kind,
                "exception.message": text,
                "exception.stacktrace": traceback_of(node, plan.error),
            }
            span["events"].append(raised)

    def checkpoint(self, seconds: float = 0.012, size: int = 48_000) -> None:
        self.run_events.append(
            event(
                "checkpoint_save",
                self.now,
                superstep=self.number,
                path="s3://runs/demo",
                active_nodes=["a"],
                bytes=size,
                seconds=seconds,
            )
        )

    def finish(
        self, status: str = "finished", definition: Any = None, error: str = ""
    ) -> list[Span]:
        """Close the run and return its spans, in the order of a trace file."""
        told: dict[str, Any] = {
            "backend": "ray",
            "user": "ada",
            "max_workers": self.slots,
            "max_supersteps": 100,
            "timeout_per_superstep": 300.0,
            "checkpoint_enabled": bool(self.run_events),
            "retry_policy.max_retries": 2,
            "status": status,
            "superstep": self.number,
        }
        if definition is not None:
            told["graph.definition"] = json.dumps(definition)
        root = self.span(
            "run", f"run {self.graph}", None, self.start, self.now, span_id=self.root, **told
        )
        root["attributes"]["host.name"] = "box"
        root["events"] = self.run_events
        if status == "failed":
            root["status"] = {"code": "ERROR", "message": error}
        return self.spans


def nanoseconds(seconds: float) -> int:
    return ZERO + round(seconds * 1e9)


def event(name: str, at: float, **told: Any) -> Span:
    return {
        "timeUnixNano": nanoseconds(at),
        "name": name,
        "attributes": {f"graphorch.{key}": value for key, value in told.items()},
    }


def traceback_of(node: str, error: str) -> str:
    return (
        "Traceback (most recent call last):\n"
        f'  File "nodes.py", line 12, in {node}\n'
        "    return page[0]\n"
        f"{error}\n"
    )


def definition(
    nodes: dict[str, str],
    edges: Iterable[tuple[str, str, str]],
    fallbacks: Iterable[tuple[str, str]] = (),
) -> dict[str, Any]:
    return {
        "nodes": [{"id": node, "type": kind} for node, kind in nodes.items()],
        "edges": [
            {"source": source, "sink": sink, "conditional": bool(router), "router": router or None}
            for source, sink, router in edges
        ],
        "fallbacks": [{"node": node, "fallback": fallback} for node, fallback in fallbacks],
        "start": "start",
        "end": "end",
    }


def save(spans: Iterable[Span], path: Path) -> Path:
    lines = [json.dumps(line) for line in (HEADER, *spans)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


# --- runs ---------------------------------------------------------------------------------------

P = "ProcessingNode"
SMALL_EDGES = [
    *(
        ("start", "plan", ""),
        ("plan", "search", ""),
        ("plan", "read", ""),
        ("search", "collect", ""),
    ),
    *(("read", "collect", ""), ("collect", "write", ""), ("write", "critic", "")),
    *(("critic", "plan", "good_enough"), ("critic", "end", "good_enough")),
]
SMALL_NODES = {
    "start": P,
    "end": P,
    "plan": P,
    "search": "ToolNode",
    "read": "ToolNode",
    "collect": "AggregatorNode",
    "write": P,
    "critic": "AINode",
    "plain_write": P,
    "unused": P,
}


def small_run(rounds: int = 3) -> list[Span]:
    """A loop with a retry, a fallback, a lost worker and checkpoints."""
    simulation = Simulation(slots=2, graph="research")
    simulation.superstep([Plan("start", seconds=0.0005)], [("start", "plan", "")])
    for turn in range(rounds):
        simulation.superstep(
            [Plan("plan", seconds=0.15)], [("plan", "search", ""), ("plan", "read", "")]
        )
        search = ["failed", "ok"] if turn == 1 else ["ok"]
        read = ["infrastructure", "ok"] if turn == 2 else ["ok"]
        simulation.superstep(
            [Plan("search", search, 0.4, "ToolNode"), Plan("read", read, 0.25, "ToolNode")],
            [("search", "collect", ""), ("read", "collect", "")],
        )
        simulation.checkpoint()
        simulation.superstep(
            [Plan("collect", seconds=0.02, kind="AggregatorNode")], [("collect", "write", "")]
        )
        write = ["timeout", "failed"] if turn == 0 else ["ok"]
        simulation.superstep(
            [
                Plan(
                    "write",
                    write,
                    0.3,
                    fallback="plain_write",
                    error="TimeoutError: 0.3 s are over",
                )
            ],
            [("write", "critic", "")],
        )
        onward = ("critic", "plan" if turn < rounds - 1 else "end", "good_enough")
        simulation.superstep([Plan("critic", seconds=0.5, kind="AINode")], [onward])
    simulation.superstep([Plan("end", seconds=0.0005)])
    return simulation.finish(
        definition=definition(SMALL_NODES, SMALL_EDGES, [("write", "plain_write")])
    )


def wide_run(width: int = 1000, slots: int = 16, supersteps: int = 1) -> list[Span]:
    """A superstep of many nodes, some of which are retried."""
    simulation = Simulation(slots=slots, graph="wide")
    names = [f"work_{number:04}" for number in range(width)]
    simulation.superstep([Plan("start", seconds=0.0005)], [("start", name, "") for name in names])
    for _ in range(supersteps):
        simulation.superstep(
            [
                Plan(name, ["failed", "ok"] if number % 97 == 5 else ["ok"], 0.02)
                for number, name in enumerate(names)
            ],
            [(name, "merge", "") for name in names],
        )
    simulation.superstep(
        [Plan("merge", seconds=0.2, kind="AggregatorNode")], [("merge", "end", "")]
    )
    simulation.superstep([Plan("end", seconds=0.0005)])
    nodes = {"start": P, "end": P, **dict.fromkeys(names, P), "merge": "AggregatorNode"}
    edges = [("start", name, "") for name in names] + [(name, "merge", "") for name in names]
    return simulation.finish(definition=definition(nodes, [*edges, ("merge", "end", "")]))


def failed_run(node: str = "parse", error: str = "ValueError: a page was empty") -> list[Span]:
    simulation = Simulation(slots=4, graph="crawl")
    pages = [f"page_{number}" for number in range(6)]
    simulation.superstep([Plan("start", seconds=0.0005)], [("start", "fetch", "")])
    simulation.superstep(
        [Plan("fetch", seconds=0.2)], [("fetch", page, "") for page in [*pages, node]]
    )
    plans: list[Plan] = [Plan(page, seconds=0.15) for page in pages]
    plans.insert(2, Plan(node, ["failed", "failed", "failed"], 0.1, error=error))
    simulation.superstep(plans, passes=False)
    nodes = dict.fromkeys(["start", "end", "fetch", *pages, node, "merge"], P)
    edges = [("start", "fetch", ""), *(("fetch", page, "") for page in [*pages, node])]
    edges += [(page, "merge", "") for page in [*pages, node]] + [("merge", "end", "")]
    return simulation.finish(
        "failed", definition(nodes, edges), f"Execution failed at node '{node}': {error}"
    )


def with_own_spans(spans: list[Span], pairs: int = 1) -> list[Span]:
    """The same, where each attempt's code made pairs of spans, one beneath the other.

    The outer one of a failed attempt has failed, too.
    """
    own: list[Span] = []
    for span in spans:
        if span["attributes"]["graphorch.span"] != "attempt":
            continue
        begin, length = (
            span["startTimeUnixNano"],
            span["endTimeUnixNano"] - span["startTimeUnixNano"],
        )
        parent = span["spanId"]
        for number in range(pairs):
            for depth, name in enumerate(("GET /pages", "connect")):
                start = begin + length * (2 * number + depth + 1) // (2 * pairs + 2)
                failed = depth == 0 and span["status"]["code"] == "ERROR"
                own.append(
                    {
                        **span,
                        "spanId": f"{len(own) + 1:016x}".replace("0", "e", 1),
                        "parentSpanId": parent if depth == 0 else own[-1]["spanId"],
                        "name": name,
                        "startTimeUnixNano": start,
                        "endTimeUnixNano": start + length // (2 * pairs + 2),
                        "attributes": {"http.request.method": "GET"},
                        "status": {
                            "code": "ERROR" if failed else "UNSET",
                            "message": "no <route> to host" if failed else "",
                        },
                        "scope": "users.own",
                    }
                )
    return [*own, *spans]


RUNS: dict[str, Callable[[], list[Span]]] = {
    "small": small_run,
    "wide": wide_run,
    "failed": failed_run,
}
