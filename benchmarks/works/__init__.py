"""All works by their keys."""

from __future__ import annotations

from collections.abc import Callable

from benchmarks import checkpoints
from benchmarks.measuring import Work

from . import arrays, fan_out, sequences, shapes, start_up

_ALL: dict[str, Callable[[bool], Work]] = {
    **fan_out.WORKS,
    **sequences.WORKS,
    **arrays.WORKS,
    **shapes.WORKS,
    **start_up.WORKS,
    **checkpoints.WORKS,
}


def _place(key: str) -> tuple[bool, int, str]:
    digits = "".join(filter(str.isdigit, key))
    return key[0] != "W", int(digits), key


WORKS = {key: _ALL[key] for key in sorted(_ALL, key=_place)}
"""Each makes its work; its argument asks for small sizes."""
