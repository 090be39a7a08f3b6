"""The colours of a drawing, on light and on dark.

Plain colours, no CSS variables: programs that show SVG outside a browser do not know these.
Tints are for the eye only; shape and text carry the meaning. Each text has a contrast of at
least 4.5 to what is behind it (a test computes it).
"""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["DARK", "LIGHT", "STYLE", "Palette", "Tint"]


class Tint(NamedTuple):
    """Fill and outline of one kind of box."""

    fill: str
    line: str


class Palette(NamedTuple):
    """The colours of one scheme."""

    paper: str
    text: str
    quiet: str
    way: str
    loop: str
    fallback: str
    alarm: str
    alarm_text: str
    frame: str
    end_text: str
    tints: dict[str, Tint]


LIGHT = Palette(
    paper="#ffffff",
    text="#17202b",
    quiet="#4b5766",
    way="#566273",
    loop="#0b62a8",
    fallback="#a3410b",
    alarm="#b3261e",
    alarm_text="#ffffff",
    frame="#f6f8fa",
    end_text="#ffffff",
    tints={
        "end-point": Tint("#2f3b4a", "#2f3b4a"),
        "step": Tint("#eef4fb", "#4679ad"),
        "aggregator": Tint("#fff3d9", "#98690a"),
        "tool": Tint("#e4f5ee", "#1f7a5c"),
        "model": Tint("#f5ebf8", "#8a4f9e"),
        "human": Tint("#fdece3", "#b0531f"),
        "router": Tint("#f3f4f6", "#6b7686"),
    },
)
DARK = Palette(
    paper="#14181d",
    text="#eceff3",
    quiet="#b0bac6",
    way="#97a3b2",
    loop="#74b8f2",
    fallback="#f0a06a",
    alarm="#ff8a80",
    alarm_text="#14181d",
    frame="#1a2027",
    end_text="#14181d",
    tints={
        "end-point": Tint("#c9d2dc", "#c9d2dc"),
        "step": Tint("#1d2b3a", "#6c9fd2"),
        "aggregator": Tint("#332a14", "#d3a545"),
        "tool": Tint("#14302a", "#55b896"),
        "model": Tint("#2f2136", "#bf8bd1"),
        "human": Tint("#38231a", "#de8c5d"),
        "router": Tint("#242a32", "#8f9bab"),
    },
)


def _colours(palette: Palette) -> str:
    rules = [
        f".go-paper{{fill:{palette.paper}}}",
        f".go-label,.go-block-label{{fill:{palette.text}}}",
        f".go-note,.go-legend-text{{fill:{palette.quiet}}}",
        f".go-count{{fill:{palette.text};stroke:{palette.paper}}}",
        f".go-way{{stroke:{palette.way}}}.go-head{{fill:{palette.way}}}",
        f".go-fallback .go-way{{stroke:{palette.fallback}}}",
        f".go-fallback .go-head{{fill:{palette.fallback}}}",
        f".go-loop .go-way{{stroke:{palette.loop}}}.go-loop .go-head{{fill:{palette.loop}}}",
        f".go-frame{{fill:{palette.frame};stroke:{palette.way}}}",
        f".go-end-point .go-label,.go-end-point .go-note{{fill:{palette.end_text}}}",
        f".go-alarm{{fill:{palette.alarm}}}.go-alarm-sign{{fill:{palette.alarm_text}}}",
    ]
    rules += [
        f".go-{kind} .go-shape{{fill:{tint.fill};stroke:{tint.line}}}"
        f".go-{kind} .go-detail{{stroke:{tint.line}}}"
        for kind, tint in palette.tints.items()
    ]
    rules.append(f".go-is-failed .go-shape{{stroke:{palette.alarm}}}")
    return "\n".join(rules)


STYLE = f"""
.go-drawing text{{font:13px system-ui,"Segoe UI",Roboto,Helvetica,Arial,sans-serif;\
text-anchor:middle}}
.go-drawing .go-label{{font-weight:550}}
.go-drawing .go-note,.go-drawing .go-cell .go-label{{font-size:10.5px}}
.go-drawing .go-cell .go-note{{font-size:9.5px}}
.go-drawing .go-router .go-label{{font-style:italic;font-weight:400;font-size:12px}}
.go-drawing .go-count{{font-size:11px;stroke-width:5px;paint-order:stroke;stroke-linejoin:round}}
.go-drawing .go-legend-text{{font-size:11px;text-anchor:start}}
.go-drawing .go-alarm-sign{{font-size:11px;font-weight:700}}
.go-way{{fill:none;stroke-width:1.5}}
.go-routed .go-way{{stroke-dasharray:6 4}}
.go-fallback .go-way{{stroke-dasharray:1.5 4;stroke-linecap:round;stroke-width:2.2}}
.go-loop .go-way{{stroke-width:2}}
.go-shape,.go-frame{{stroke-width:1.4}}
.go-frame{{stroke-dasharray:2 3}}
.go-detail{{fill:none;stroke-width:1.2}}
.go-router .go-shape{{stroke-dasharray:6 3}}
.go-is-failed .go-shape{{stroke-width:2.6}}
.go-is-unused{{opacity:.62}}
{_colours(LIGHT)}
@media screen and (prefers-color-scheme:dark){{
{_colours(DARK)}
}}
"""
