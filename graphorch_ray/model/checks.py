"""What ``build_graph()`` refuses, and what it warns of.

An error is for what could never work; a warning for what is legal but surely a mistake.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from typing import Any

from ..errors import GraphConfigurationError, NodeNotFoundError
from .actions import describe_callable
from .ai import AIActionBase
from .edges import ConditionalEdge, Edge
from .flat import sinks_of
from .graph import Graph
from .source import unwrapped
from .variables import changed_variables

__all__ = ["check_graph"]

Edges = dict[str, tuple[Edge, ...]]
"""The edges that leave each node, by its id."""


def check_graph(graph: Graph) -> list[str]:
    """Raise for a graph that could not run; return the texts of all warnings.

    Raises:
        GraphConfigurationError: The message says what is wrong.
        NodeNotFoundError: A fallback is no node of the graph.
    """
    _check_ends(graph)
    _check_fallbacks(graph)
    _check_functions(graph)
    edges = graph._table()
    return [*_shape_warnings(graph, edges), *_variable_warnings(graph, edges)]


# --- errors -------------------------------------------------------------------------------------


def _check_ends(graph: Graph) -> None:
    start, end = graph.start_node, graph.end_node
    if any(edge.source is start for edge in graph.conditional_edges):
        raise GraphConfigurationError("Start node cannot have a conditional edge")
    if not any(edge.source is start for edge in graph.concrete_edges):
        raise GraphConfigurationError("Start node must have at least one outgoing concrete edge")
    edges = [*graph.concrete_edges, *graph.conditional_edges]
    if not any(sink is end for edge in edges for sink in sinks_of(edge)):
        raise GraphConfigurationError("End node must have at least one incoming edge")


def _check_fallbacks(graph: Graph) -> None:
    for node_id, node in graph.nodes.items():
        fallback_id = node.fallback_node_id
        if fallback_id is None:
            continue
        if fallback_id == node_id:
            raise GraphConfigurationError(
                f"Node '{node_id}' is its own fallback; name another node"
            )
        if fallback_id not in graph.nodes:
            raise NodeNotFoundError(fallback_id)
        fallback = graph.nodes[fallback_id]
        if node.is_aggregator != fallback.is_aggregator:
            kinds = ("a list of states", "one state")
            takes, gets = kinds if fallback.is_aggregator else kinds[::-1]
            raise GraphConfigurationError(
                f"Fallback '{fallback_id}' of node '{node_id}' takes {takes}, but would get "
                f"{gets}; an aggregator needs an aggregator as fallback, any other node another"
            )


def _check_functions(graph: Graph) -> None:
    fine: set[int] = set()  # many nodes may share one function
    for edge in graph.conditional_edges:
        source_id = edge.source.node_id
        if not edge.sinks:
            raise GraphConfigurationError(
                f"Conditional edge from '{source_id}' has no sinks, so no answer of its router "
                "could be right"
            )
        _check_takes_one(
            f"Router '{describe_callable(edge.routing_function)}' of node '{source_id}'",
            edge.routing_function,
            fine,
        )
    for node_id, node in graph.nodes.items():
        for func in node.callables():
            if isinstance(func, type):
                continue
            _check_takes_one(
                f"Function '{describe_callable(func)}' of node '{node_id}'", func, fine
            )


def _check_takes_one(what: str, func: Callable[..., Any], fine: set[int]) -> None:
    if id(func) in fine:
        return
    fine.add(id(func))
    target = func.process_state if isinstance(func, AIActionBase) else unwrapped(func)
    try:
        # A decorator of the user's own may add arguments to what it wraps: look at it alone.
        signature = inspect.signature(target, follow_wrapped=False)
    except (TypeError, ValueError):  # builtins may have none
        return
    try:
        signature.bind(object())
    except TypeError:
        raise GraphConfigurationError(
            f"{what} cannot be called with one argument; its signature is {signature}"
        ) from None


# --- warnings: shape ----------------------------------------------------------------------------


def _shape_warnings(graph: Graph, edges: Edges) -> list[str]:
    sinks: dict[str, list[str]] = {
        node_id: [s.node_id for edge in edges[node_id] for s in sinks_of(edge)]
        for node_id in graph.nodes
    }
    start_id, end_id = graph.start_node.node_id, graph.end_node.node_id
    on_path = _reached([start_id], sinks)
    fallbacks = _fallbacks_of(graph, on_path)
    reached = on_path | fallbacks.keys()
    texts = []
    for node_id in graph.nodes:
        if node_id not in reached:
            texts.append(_unreached(node_id, end_id))
        elif node_id != end_id and node_id in on_path and not sinks[node_id]:
            texts.append(f"Node '{node_id}' leads nowhere: it has no edge, so its result is lost.")
    for fallback_id, owners in fallbacks.items():
        if fallback_id in on_path:
            texts.append(
                f"Node '{fallback_id}' is the fallback of {_names(owners)} and also on the normal "
                "path, so it may run twice; give the fallback a node of its own."
            )
    return texts + _loop_warnings(edges, sinks, on_path)


def _unreached(node_id: str, end_id: str) -> str:
    if node_id == end_id:
        return f"Nothing reaches '{node_id}', so a run has no result (None)."
    return f"Nothing reaches node '{node_id}', so it never runs."


def _fallbacks_of(graph: Graph, on_path: set[str]) -> dict[str, list[str]]:
    """Return the owners of each fallback that may run; fallbacks do not chain."""
    owners: dict[str, list[str]] = {}
    for node_id, node in graph.nodes.items():
        if node_id in on_path and node.fallback_node_id is not None:
            owners.setdefault(node.fallback_node_id, []).append(node_id)
    return owners


def _loop_warnings(edges: Edges, sinks: dict[str, list[str]], on_path: set[str]) -> list[str]:
    """Warn of each loop that goes on for ever, whatever the routers answer.

    Work dies out at a node where every concrete edge, and some sink of every conditional
    one, leads to work that dies out. Where it never does, there is a loop behind it.
    """
    dying: set[str] = set()
    waiting: dict[str, int] = {}  # open edges by node
    dependents: dict[str, list[tuple[str, int]]] = {}  # sink -> (source, number of the edge)
    settled: set[tuple[str, int]] = set()
    for node_id in on_path:
        waiting[node_id] = len(edges[node_id])
        for number, edge in enumerate(edges[node_id]):
            for sink in sinks_of(edge):
                dependents.setdefault(sink.node_id, []).append((node_id, number))
    ready = [node_id for node_id, count in waiting.items() if count == 0]
    while ready:
        node_id = ready.pop()
        dying.add(node_id)
        for dependent in dependents.get(node_id, []):
            if dependent not in settled:
                settled.add(dependent)
                waiting[dependent[0]] -= 1
                if waiting[dependent[0]] == 0:
                    ready.append(dependent[0])
    endless = {
        node_id: [sink for sink in sinks[node_id] if sink not in dying]
        for node_id in edges
        if node_id in on_path and node_id not in dying
    }
    texts = []
    for loop in _components(endless):
        if len(loop) > 1 or loop[0] in endless[loop[0]]:
            inside = set(loop)
            if _is_kept_alive(edges, inside):
                texts.append(
                    f"The loop of {_names(loop)} has no exit: "
                    + _why_no_exit(edges, inside)
                    + " A run that gets there ends at max_supersteps."
                )
    return texts


def _is_kept_alive(edges: Edges, loop: set[str]) -> bool:
    """Say whether the loop itself, and not only another one behind it, never ends."""
    alive = set(loop)
    changed = True
    while changed:
        changed = False
        for node_id in list(alive):
            forced = (
                all(sink.node_id in alive for sink in sinks_of(edge)) for edge in edges[node_id]
            )
            if not any(forced):
                alive.discard(node_id)
                changed = True
    return bool(alive)


def _why_no_exit(edges: Edges, loop: set[str]) -> str:
    leaves = any(
        sink.node_id not in loop
        for node_id in loop
        for edge in edges[node_id]
        for sink in sinks_of(edge)
    )
    if leaves:
        return "its edges always fire, and the edges that leave it do not stop them."
    return "no edge leaves it."


# --- warnings: variables of the driver ----------------------------------------------------------


def _variable_warnings(graph: Graph, edges: Edges) -> list[str]:
    texts: list[str] = []
    known: dict[int, list[str]] = {}  # many nodes may share one function
    for node_id, node in graph.nodes.items():
        if node.placement != "driver":
            texts += _changes(f"Node '{node_id}'", node.callables(), known)
        for edge in edges[node_id]:
            if isinstance(edge, ConditionalEdge) and edge.router_placement == "worker":
                texts += _changes(
                    f"Router '{describe_callable(edge.routing_function)}' of node '{node_id}'",
                    (edge.routing_function,),
                    known,
                )
    return texts


def _changes(
    who: str, funcs: Iterable[Callable[..., Any]], known: dict[int, list[str]]
) -> list[str]:
    names: dict[str, None] = {}
    for func in funcs:
        if id(func) not in known:
            try:
                known[id(func)] = changed_variables(func)
            except Exception:  # an object that refuses to be looked at must not stop the build
                known[id(func)] = []
        names.update(dict.fromkeys(known[id(func)]))
    return [
        f"{who} changes the variable '{name}' of the driver; on Ray it runs in another process, "
        "where the change is lost. Carry the value in the state instead."
        for name in names
    ]


# --- helpers ------------------------------------------------------------------------------------


def _names(node_ids: Iterable[str]) -> str:
    quoted = [f"'{node_id}'" for node_id in node_ids]
    return quoted[0] if len(quoted) == 1 else f"{', '.join(quoted[:-1])} and {quoted[-1]}"


def _reached(roots: Iterable[str], sinks: dict[str, list[str]]) -> set[str]:
    found = set(roots)
    todo = list(found)
    while todo:
        for sink in sinks[todo.pop()]:
            if sink not in found:
                found.add(sink)
                todo.append(sink)
    return found


def _components(sinks: dict[str, list[str]]) -> list[list[str]]:
    """Return the strongly connected components, all in the order of ``sinks``.

    Tarjan's algorithm with a stack of its own, so that a long chain needs no recursion.
    """
    order: dict[str, int] = {}
    low: dict[str, int] = {}
    open_: dict[str, None] = {}
    components: list[list[str]] = []
    for root in sinks:
        if root in order:
            continue
        work = [(root, iter(sinks[root]))]
        order[root] = low[root] = len(order)
        open_[root] = None
        while work:
            node, following = work[-1]
            for sink in following:
                if sink not in order:
                    order[sink] = low[sink] = len(order)
                    open_[sink] = None
                    work.append((sink, iter(sinks[sink])))
                    break
                if sink in open_:
                    low[node] = min(low[node], order[sink])
            else:
                work.pop()
                if work:
                    low[work[-1][0]] = min(low[work[-1][0]], low[node])
                if low[node] == order[node]:
                    members = []
                    while True:
                        member, _ = open_.popitem()
                        members.append(member)
                        if member == node:
                            break
                    components.append(members)
    position = {node_id: number for number, node_id in enumerate(sinks)}
    ordered = [sorted(members, key=position.__getitem__) for members in components]
    return sorted(ordered, key=lambda members: position[members[0]])
