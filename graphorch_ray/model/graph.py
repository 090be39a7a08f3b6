"""The graph itself: nodes by id, edges in creation order, and what can be said about them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import Any

from .base import Node
from .edges import ConcreteEdge, ConditionalEdge, Edge
from .flat import FlatGraph, flatten, leaving
from .readonly import ReadOnlyDict, ReadOnlyList

__all__ = ["Graph"]


class Graph:
    """Nodes and the edges between them; made by ``GraphBuilder.build_graph()``.

    A built graph cannot be changed: later calls on its builder make a new one. A graph
    made by calling this class is empty and open, to be filled by hand: put nodes in
    ``nodes``, edges in ``concrete_edges`` and ``conditional_edges``.

    Attributes:
        name: For people, spans and reports; no part of the fingerprint.
        start_node: Where every run starts.
        end_node: Whose last result is the result of the run.
        nodes: Every node by its id, in the order they were added.
        concrete_edges: The edges that always fire, in creation order.
        conditional_edges: The edges with a router, in creation order.
        warnings: What the builder warned of.

    Raises:
        TypeError: ``start_node`` or ``end_node`` is not a node.

    Example:
        >>> from graphorch_ray.model import GraphBuilder, ProcessingNode, pass_through
        >>> builder = GraphBuilder("demo")
        >>> builder.add_node(ProcessingNode("work", pass_through))
        >>> builder.add_concrete_edge("start", "work")
        >>> builder.add_concrete_edge("work", "end")
        >>> graph = builder.build_graph()
        >>> list(graph.nodes), len(graph.concrete_edges)
        (['start', 'end', 'work'], 2)
    """

    name: str
    start_node: Node
    end_node: Node
    nodes: dict[str, Node]
    concrete_edges: list[ConcreteEdge]
    conditional_edges: list[ConditionalEdge]
    warnings: tuple[str, ...]

    _outgoing: dict[str, tuple[Edge, ...]] | None = None  # set when built
    _codes: tuple[str, dict[str, str], list[str]] | None = None

    def __init__(self, start_node: Node, end_node: Node, name: str | None = "graph") -> None:
        """Make an open graph with no nodes and no edges in it."""
        ends: tuple[object, ...] = (start_node, end_node)
        if not all(isinstance(end, Node) for end in ends):
            raise TypeError("start_node and end_node must be of type Node")
        self.name = "graph" if name is None else name
        self.start_node = start_node
        self.end_node = end_node
        self.nodes = {}
        self.concrete_edges = []
        self.conditional_edges = []
        self.warnings = ()

    # --- topology ---------------------------------------------------------------------------

    def edges_from(self, node_id: str) -> tuple[Edge, ...]:
        """Return the edges that leave a node, of both kinds, in creation order.

        Raises:
            KeyError: The graph has no such node.
        """
        if self._outgoing is not None:
            return self._outgoing[node_id]
        node = self.nodes[node_id]
        edges = (*self.concrete_edges, *self.conditional_edges)
        return leaving(node, (edge for edge in edges if edge.source is node), only=False)

    @property
    def is_built(self) -> bool:
        """Whether the graph came from a builder, checked and closed to changes."""
        return self._outgoing is not None

    def _close(self, warnings: Iterable[str]) -> None:
        """Make the graph immutable; the builder's last step."""
        outgoing = self._table()
        self.nodes = ReadOnlyDict(self.nodes)
        self.concrete_edges = ReadOnlyList(self.concrete_edges)
        self.conditional_edges = ReadOnlyList(self.conditional_edges)
        self.warnings = tuple(warnings)
        self._outgoing = outgoing

    def _table(self) -> dict[str, tuple[Edge, ...]]:
        """Return the edges that leave each node, by its id."""
        if self._outgoing is not None:
            return self._outgoing
        by_source: dict[int, list[Edge]] = {id(node): [] for node in self.nodes.values()}
        for edge in (*self.concrete_edges, *self.conditional_edges):
            by_source.setdefault(id(edge.source), []).append(edge)
        return {
            node_id: leaving(node, by_source[id(node)], only=True)
            for node_id, node in self.nodes.items()
        }

    def _opened_copy(self) -> Graph:
        """Return an open graph with copies of all nodes and edges; the builder's next draft."""
        return _revive(type(self), self.name, self._flat(), Node.detached)

    def __setattr__(self, name: str, value: object) -> None:
        """Refuse changes to a built graph."""
        if self._outgoing is not None:
            raise AttributeError(
                f"a built graph cannot be changed (attempt to set {name!r}); "
                "change the builder and build again"
            )
        super().__setattr__(name, value)

    def __delattr__(self, name: str) -> None:
        """Refuse changes to a built graph."""
        if self._outgoing is not None:
            raise AttributeError(f"a built graph cannot be changed (attempt to delete {name!r})")
        super().__delattr__(name)

    # --- code -------------------------------------------------------------------------------

    @property
    def fingerprint(self) -> str:
        """Hexadecimal digest of structure and node code, the same in every process.

        It covers ids, kinds, edges in order, fallbacks, and the code of nodes and routers
        (see :mod:`graphorch_ray.model.fingerprint`); not the graph's name, retry policies
        or node options, which may be tuned between two halves of a run.
        """
        return self._fingerprints()[0]

    @property
    def node_fingerprints(self) -> dict[str, str]:
        """Hexadecimal digest of each node's code and of the routers on its edges, by id."""
        return dict(self._fingerprints()[1])

    @property
    def fingerprint_report(self) -> list[str]:
        """What the fingerprint could not see into, one line each; empty is best."""
        return list(self._fingerprints()[2])

    def _fingerprints(self) -> tuple[str, dict[str, str], list[str]]:
        if self._codes is not None:
            return self._codes
        from .fingerprint import fingerprint_graph  # costs an import of ast, not always needed

        codes = fingerprint_graph(self)
        if self._outgoing is not None:
            object.__setattr__(self, "_codes", codes)
        return codes

    # --- pictures and travel ----------------------------------------------------------------

    def to_mermaid(self) -> str:
        """Return the graph as a Mermaid flowchart, for README files and notebooks.

        Example:
            >>> from graphorch_ray.model import GraphBuilder
            >>> builder = GraphBuilder()
            >>> builder.add_concrete_edge("start", "end")
            >>> print(builder.build_graph().to_mermaid())
            flowchart TD
                n0(["start"])
                n1(["end"])
                n0 --> n1
        """
        from .mermaid import to_mermaid

        return to_mermaid(self)

    def draw(self, path: str | os.PathLike[str] | None = None) -> str:
        """Draw the graph, write the drawing to a file, and return its text.

        No other program is needed. Shapes and small print tell the kinds of node apart;
        a router stands in a box of its own, with dashed arrows to where it may lead; dotted
        arrows lead to fallbacks; loops climb beside the rest. Eight or more nodes with the
        same neighbours are drawn as one block. Colours follow the reader's light or dark
        scheme.

        Args:
            path: Where to write; the suffix says what: ``.svg``; ``.html``, a page with the
                picture; ``.mmd``, a Mermaid flowchart; ``.md``, the same in a Markdown
                block. A file that is there is replaced. ``None``: no file, SVG.

        Raises:
            ValueError: The suffix is none of these.
            OSError: The file cannot be written.

        Example:
            >>> from graphorch_ray.model import GraphBuilder
            >>> builder = GraphBuilder("tiny")
            >>> builder.add_concrete_edge("start", "end")
            >>> picture = builder.build_graph().draw()
            >>> picture.startswith("<svg"), "Graph tiny" in picture
            (True, True)
        """
        from .drawing.files import draw

        return draw(self, path)

    def _repr_svg_(self) -> str:
        """Show the picture where a notebook asks for SVG."""
        return self.draw()

    def _repr_html_(self) -> str:
        """Show the picture in a notebook, in a frame that scrolls where it is large."""
        return f'<div style="overflow:auto;max-height:40rem">{self.draw()}</div>'

    def __repr__(self) -> str:
        """Show the name and the size."""
        edges = len(self.concrete_edges) + len(self.conditional_edges)
        return f"Graph({self.name!r}, {len(self.nodes)} nodes, {edges} edges)"

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle flat, so that a long chain needs no recursion, and with the fingerprint.

        Where a pickle is read the source may be missing, and the code would look different.
        """
        if not self.is_built:
            return _revive, (type(self), self.name, self._flat())
        return _revive_built, (
            type(self),
            self.name,
            self._flat(),
            self.warnings,
            self._fingerprints(),
        )

    def _flat(self) -> FlatGraph:
        return flatten(
            self.start_node,
            self.end_node,
            self.nodes,
            self.concrete_edges,
            self.conditional_edges,
        )


def _revive(
    cls: type[Graph],
    name: str,
    flat: FlatGraph,
    copied: Callable[[Node], Node] | None = None,
) -> Graph:
    graph = cls.__new__(cls)
    graph.__dict__.update(flat.wired(copied), name=name, warnings=())
    return graph


def _revive_built(
    cls: type[Graph],
    name: str,
    flat: FlatGraph,
    warnings: tuple[str, ...],
    codes: tuple[str, dict[str, str], list[str]],
) -> Graph:
    graph = _revive(cls, name, flat)
    graph._codes = codes
    graph._close(warnings)
    return graph
