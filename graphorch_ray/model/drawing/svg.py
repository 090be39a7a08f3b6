"""Writes a layout as SVG."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from .layout import (
    CELL_LIMIT,
    EDGE_SIZE,
    FRAME_HEAD,
    LABEL_LIMIT,
    LABEL_SIZE,
    MARGIN,
    NOTE_SIZE,
    Layout,
    PlacedBox,
    Route,
    lay_out,
)
from .shapes import outline
from .sketch import Sketch
from .style import STYLE
from .text import escaped, shortened, text_width

__all__ = ["to_svg"]

DESCRIBED = 40  # arrows that the text for screen readers names one by one

_LEGEND = {
    "always": "always",
    "routed": "as a router decides",
    "loop": "back up: a loop",
    "fallback": "to the fallback",
}


def to_svg(sketch: Sketch, *, interactive: bool = False) -> str:
    """Return the sketch as an SVG document.

    Args:
        sketch: What to draw.
        interactive: Make each box reachable by keyboard, for a page with a script that
            answers; else the picture is one image with a description.
    """
    layout = lay_out(sketch)
    legend, legend_width = _legend(layout)
    width = max(layout.width, legend_width + 2 * MARGIN)
    height = layout.height + (24 if legend else 0)
    role = 'role="group"' if interactive else 'role="img"'
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" class="go-drawing" width="{width:.0f}" '
        f'height="{height:.0f}" viewBox="0 0 {width:.0f} {height:.0f}" {role} '
        f'aria-label="{escaped(f"Graph {sketch.name}")}">',
        f"<title>{escaped(f'Graph {sketch.name}')}</title>",
        f"<desc>{escaped(_description(sketch))}</desc>",
        f"<style>{STYLE}</style>",
        f'<rect class="go-paper" width="{width:.0f}" height="{height:.0f}"/>',
    ]
    for route in layout.routes:
        lines += _arrow(route)
    for placed in layout.boxes:
        lines += _box(placed, interactive=interactive)
    lines += [label for route in layout.routes for label in _arrow_label(route)]
    if legend:
        lines.append(
            f'<g class="go-legend" transform="translate({MARGIN:g} {layout.height + 4:g})">'
        )
        lines += [*legend, "</g>"]
    lines.append("</svg>")
    return "\n".join(lines) + "\n"


# --- arrows -------------------------------------------------------------------------------------


def _arrow(route: Route) -> Iterator[str]:
    arrow = route.arrow
    kind = "go-loop" if route.loop else ""
    names = " ".join(filter(None, ("go-arrow", f"go-{arrow.kind}", kind, _marked(arrow.mark))))
    x, y = route.end
    yield (
        f'<g class="{names}" data-source="{escaped(arrow.source)}" '
        f'data-sink="{escaped(arrow.sink)}" data-edges="{arrow.stands_for}">'
    )
    yield f"<title>{escaped(_arrow_title(route))}</title>"
    yield f'<path class="go-way" d="{_path(route)}"/>'
    if not arrow.headless:
        yield f'<path class="go-head" d="M{x:.1f} {y:.1f}l-4.5 -9h9z"/>'
    yield "</g>"


def _path(route: Route) -> str:
    x, y = route.start
    written = [f"M{x:.1f} {y:.1f}"]
    last = len(route.pieces) - 1
    for number, points in enumerate(route.pieces):
        if number == last and not route.arrow.headless:  # the line ends inside its head
            points = (*points[:-1], (points[-1][0], points[-1][1] - 4))
        command = "L" if len(points) == 1 else "C"
        written.append(command + " ".join(f"{x:.1f} {y:.1f}" for x, y in points))
    return "".join(written)


def _arrow_title(route: Route) -> str:
    arrow = route.arrow
    how = {"always": "", "routed": ", as the router decides", "fallback": ", as its fallback"}
    back = ", back up" if route.loop else ""
    label = f": {arrow.label}" if arrow.label else ""
    return f"{arrow.source} → {arrow.sink}{how[arrow.kind]}{back}{label}"


def _arrow_label(route: Route) -> Iterator[str]:
    if route.label is None:
        return
    x, y = route.label
    yield (
        f'<text class="{" ".join(filter(None, ("go-count", _marked(route.arrow.mark))))}" '
        f'x="{x:.1f}" y="{y + EDGE_SIZE * 0.36:.1f}">{escaped(route.arrow.label)}</text>'
    )


# --- boxes --------------------------------------------------------------------------------------


def _box(placed: PlacedBox, *, interactive: bool) -> Iterator[str]:
    if placed.box.members:
        yield from _block(placed, interactive=interactive)
    else:
        yield from _single(placed, LABEL_LIMIT, interactive=interactive)


def _block(placed: PlacedBox, *, interactive: bool) -> Iterator[str]:
    left, top = placed.x - placed.width / 2, placed.y - placed.height / 2
    yield f'<g class="go-block go-{_kind(placed)}">'
    yield (
        f'<rect class="go-frame" x="{left:.1f}" y="{top:.1f}" width="{placed.width:.1f}" '
        f'height="{placed.height:.1f}" rx="8"/>'
    )
    kind = "" if placed.box.kind == "step" else f" ({placed.box.kind})"
    yield (
        f'<text class="go-block-label" x="{placed.x:.1f}" y="{top + FRAME_HEAD - 6:.1f}">'
        f"{escaped(placed.box.label + kind)}</text>"
    )
    for cell in placed.cells:
        yield from _single(cell, CELL_LIMIT, interactive=interactive)
    yield "</g>"


def _single(placed: PlacedBox, limit: int, *, interactive: bool) -> Iterator[str]:
    box = placed.box
    cell = limit == CELL_LIMIT
    names = ("go-box", f"go-{_kind(placed)}", _marked(box.mark), "go-cell" if cell else "")
    full = " · ".join(filter(None, (box.label, box.note)))
    reach = ""
    if interactive and box.kind != "router":
        reach = f' tabindex="-1" role="button" aria-label="{escaped(full)}"'
    yield (
        f'<g class="{" ".join(filter(None, names))}" data-node="{escaped(box.key)}"{reach}>'
        f"<title>{escaped(full)}</title>"
    )
    shape, details = outline(box.kind, placed.x, placed.y, placed.width, placed.height)
    yield f'<path class="go-shape" d="{shape}"/>'
    if details:
        yield f'<path class="go-detail" d="{details}"/>'
    note = "" if cell and box.note == box.kind else box.note
    size = NOTE_SIZE if cell else LABEL_SIZE
    middle = placed.y + size * 0.36
    rise = (6.5 if cell else 8.0) if note else 0.0
    yield _text("go-label", placed.x, middle - rise, shortened(box.label, limit))
    if note:
        note = shortened(note, limit + (4 if cell else 8))
        yield _text("go-note", placed.x, middle + rise, note)
    if box.mark == "failed":
        corner_x, corner_y = placed.x + placed.width / 2 - 2, placed.y - placed.height / 2 + 2
        yield f'<circle class="go-alarm" cx="{corner_x:.1f}" cy="{corner_y:.1f}" r="8"/>'
        yield _text("go-alarm-sign", corner_x, corner_y + 4, "!")
    yield "</g>"


def _text(name: str, x: float, y: float, text: str) -> str:
    return f'<text class="{name}" x="{x:.1f}" y="{y:.1f}">{escaped(text)}</text>'


def _kind(placed: PlacedBox) -> str:
    return placed.box.kind.replace(" ", "-")


def _marked(mark: str) -> str:
    return f"go-is-{mark}" if mark else ""


# --- words --------------------------------------------------------------------------------------


def _legend(layout: Layout) -> tuple[list[str], float]:
    """Return the kinds of line in the picture, with words; nothing where there is one kind."""
    kinds = {"loop" if route.loop else route.arrow.kind for route in layout.routes}
    if kinds <= {"always"}:
        return [], 0.0
    lines = []
    x = 0.0
    for kind, words in _LEGEND.items():
        if kind in kinds:
            look = "go-routed go-loop" if kind == "loop" else f"go-{kind}"
            lines.append(
                f'<g class="go-arrow {look}"><path class="go-way" d="M{x:.1f} 6h26"/></g>'
                f'<text class="go-legend-text" x="{x + 32:.1f}" y="10">{words}</text>'
            )
            x += 32 + text_width(words, EDGE_SIZE) + 18
    return lines, x


def _description(sketch: Sketch) -> str:
    nodes = [n for box in sketch.boxes for n in (box.members or (box,)) if n.kind != "router"]
    kinds: dict[str, int] = {}
    for node in nodes:
        kinds[node.kind] = kinds.get(node.kind, 0) + 1
    counts = ", ".join(f"{count} {kind}" for kind, count in kinds.items())
    arrows = [f"{arrow.source} to {arrow.sink}" for arrow in sketch.arrows]
    return f"{len(nodes)} nodes ({counts}). {_listed(arrows)}"


def _listed(items: Iterable[str]) -> str:
    listed = list(items)
    rest = f"; and {len(listed) - DESCRIBED} more" if len(listed) > DESCRIBED else ""
    return "; ".join(listed[:DESCRIBED]) + rest + "."
