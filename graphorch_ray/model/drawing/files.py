"""Puts a drawing of a graph into a file."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from ..graph import Graph
from ..mermaid import to_mermaid
from .sketch import fold_twins, sketch_of
from .svg import to_svg
from .text import escaped

__all__ = ["draw", "graph_svg"]


def draw(graph: Graph, path: str | os.PathLike[str] | None) -> str:
    """Return a drawing of the graph and write it to a file; see ``Graph.draw``."""
    if path is None:
        return graph_svg(graph)
    target = Path(path)
    writer = _WRITERS.get(target.suffix.lower())
    if writer is None:
        found = f"not {target.suffix!r}" if target.suffix else "and it has none"
        raise ValueError(
            f"cannot tell what to draw into {str(target)!r}: "
            f"the suffix must be one of {', '.join(_WRITERS)}, {found}"
        )
    text = writer(graph)
    target.write_text(text, encoding="utf-8")
    return text


def graph_svg(graph: Graph) -> str:
    """Return the graph as an SVG document."""
    return to_svg(fold_twins(sketch_of(graph)))


def _html(graph: Graph) -> str:
    return _PAGE.format(title=escaped(graph.name), svg=graph_svg(graph))


def _markdown(graph: Graph) -> str:
    return f"```mermaid\n{to_mermaid(graph)}\n```\n"


def _mermaid(graph: Graph) -> str:
    return f"{to_mermaid(graph)}\n"


_WRITERS: dict[str, Callable[[Graph], str]] = {
    ".svg": graph_svg,
    ".html": _html,
    ".mmd": _mermaid,
    ".md": _markdown,
}

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
<style>
body {{ margin: 0; font-family: system-ui, sans-serif; }}
svg {{ display: block; margin: 1rem auto; }}
@media screen and (prefers-color-scheme: dark) {{ body {{ background: #14181d; color: #eceff3; }} }}
</style>
</head>
<body>
{svg}</body>
</html>
"""
