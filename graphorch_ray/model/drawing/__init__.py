"""Draws graphs with no other program: boxes and arrows, their places, SVG and HTML.

The way of a graph to a picture: :func:`sketch_of` says what there is to draw,
:func:`fold_twins` draws nodes with the same neighbours as one block, :func:`lay_out` gives
places (``layers``, ``order`` and ``place`` are its steps), :func:`to_svg` writes it.
"""

from __future__ import annotations

from .layout import Layout, lay_out
from .sketch import Arrow, ArrowKind, Box, BoxKind, Sketch, fold_twins, router_key, sketch_of
from .svg import to_svg

__all__ = [
    "Arrow",
    "ArrowKind",
    "Box",
    "BoxKind",
    "Layout",
    "Sketch",
    "fold_twins",
    "lay_out",
    "router_key",
    "sketch_of",
    "to_svg",
]
