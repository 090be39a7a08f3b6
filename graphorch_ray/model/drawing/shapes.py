"""The outlines that tell kinds of node apart."""

from __future__ import annotations

from .sketch import BoxKind

__all__ = ["outline"]


def outline(kind: BoxKind, x: float, y: float, width: float, height: float) -> tuple[str, str]:
    """Return the path of a box around its centre, and a path of inner lines or nothing."""
    left, right = x - width / 2, x + width / 2
    top, bottom = y - height / 2, y + height / 2
    slant = min(12.0, height / 3)
    if kind == "end point":
        return _rounded(left, top, width, height, height / 2), ""
    if kind == "aggregator":  # a funnel
        points = [(left, top), (right, top), (right - slant, bottom), (left + slant, bottom)]
        return _closed(points), ""
    if kind == "human":  # leaning
        points = [(left + slant, top), (right, top), (right - slant, bottom), (left, bottom)]
        return _closed(points), ""
    if kind == "model":
        points = [
            *((left + slant, top), (right - slant, top), (right, y)),
            *((right - slant, bottom), (left + slant, bottom), (left, y)),
        ]
        return _closed(points), ""
    if kind == "router":  # a flat diamond
        tip = height / 2
        points = [
            *((left, y), (left + tip, top), (right - tip, top)),
            *((right, y), (right - tip, bottom), (left + tip, bottom)),
        ]
        return _closed(points), ""
    if kind == "tool":  # double sides
        bars = "".join(f"M{at:.1f} {top:.1f}V{bottom:.1f}" for at in (left + 6, right - 6))
        return _rounded(left, top, width, height, 2), bars
    return _rounded(left, top, width, height, min(8.0, height / 4)), ""


def _closed(points: list[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points) + "Z"


def _rounded(left: float, top: float, width: float, height: float, radius: float) -> str:
    corner = f"a{radius:.1f} {radius:.1f} 0 0 1"
    across, down = width - 2 * radius, height - 2 * radius
    return (
        f"M{left + radius:.1f} {top:.1f}h{across:.1f}"
        f"{corner} {radius:.1f} {radius:.1f}v{down:.1f}"
        f"{corner} {-radius:.1f} {radius:.1f}h{-across:.1f}"
        f"{corner} {-radius:.1f} {-radius:.1f}v{-down:.1f}"
        f"{corner} {radius:.1f} {-radius:.1f}Z"
    )
