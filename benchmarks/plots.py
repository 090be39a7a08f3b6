"""A small drawing of one work: a bar for each contender, on a logarithmic scale."""

from __future__ import annotations

import math
from xml.sax.saxutils import escape

from .measuring import SECONDS, Result
from .reporting import number

WIDTH, LABELS, VALUES, ROW, TOP = 720, 250, 80, 22, 8
STYLE = """
  text { font: 12px system-ui, sans-serif; fill: #1f2328 }
  .scale { fill: #59636e; font-size: 11px }
  .grid { stroke: #d1d9e0 }
  .bar { fill: #8c959f }
  .ours { fill: #0969da }
  .spread { stroke: #1f2328; stroke-width: 1.5 }
  @media (prefers-color-scheme: dark) {
    text { fill: #f0f6fc }
    .scale { fill: #9198a1 }
    .grid { stroke: #3d444d }
    .bar { fill: #656c76 }
    .ours { fill: #4493f8 }
    .spread { stroke: #f0f6fc }
  }
"""


def decades(low: float, high: float) -> tuple[int, int]:
    """The powers of ten around some positive values; at least one decade."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    return first, max(last, first + 1)


def as_svg(result: Result) -> str:
    """Median seconds of each contender with their spread, as an SVG for light and dark pages.

    Contenders without a positive time are not drawn; with none at all, the text is empty.
    """
    found = [(name, result.spread(name)) for name in result.values]
    drawn = [(name, spread) for name, spread in found if spread is not None and spread.low > 0]
    if not drawn:
        return ""
    first, last = decades(min(s.low for _, s in drawn), max(s.high for _, s in drawn))
    room = WIDTH - LABELS - VALUES

    def x(seconds: float) -> float:
        return round(LABELS + room * (math.log10(seconds) - first) / (last - first), 1)

    bottom = TOP + ROW * len(drawn)
    height = bottom + 24
    title = escape(f"{result.key}: {result.title}")
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
        f'width="{WIDTH}" height="{height}" role="img">',
        f"<title>{title}, in {SECONDS}; shorter is faster</title>",
        f"<style>{STYLE}</style>",
    ]
    for power in range(first, last + 1):
        at = x(10.0**power)
        label = f"{10.0**power:,g} s" if power >= -3 else f"{10 ** (power + 6):g} µs"
        lines.append(f'<line class="grid" x1="{at}" x2="{at}" y1="{TOP}" y2="{bottom}"/>')
        lines.append(
            f'<text class="scale" x="{at}" y="{bottom + 16}" text-anchor="middle">{label}</text>'
        )
    for row, (name, spread) in enumerate(drawn):
        y = TOP + ROW * row
        kind = "ours" if name.startswith("graphorch_ray") else "bar"
        middle = y + ROW / 2
        lines += [
            f'<text x="{LABELS - 8}" y="{middle + 4}" text-anchor="end">{escape(name)}</text>',
            f'<rect class="{kind}" x="{LABELS}" y="{y + 4}" height="{ROW - 8}" '
            f'width="{max(1.0, round(x(spread.median) - LABELS, 1))}" rx="2"/>',
            f'<line class="spread" x1="{x(spread.low)}" x2="{x(spread.high)}" '
            f'y1="{middle}" y2="{middle}"/>',
            f'<text x="{x(spread.high) + 6}" y="{middle + 4}">{number(spread.median)}</text>',
        ]
    return "\n".join([*lines, "</svg>"]) + "\n"
