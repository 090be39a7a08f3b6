"""What was measured as tables: for a terminal, and for a page in the documentation."""

from __future__ import annotations

import math

from .measuring import SECONDS, Goal, Result, Spread


def number(value: float) -> str:
    """Three significant figures, without an exponent."""
    if value < 0:
        return f"-{number(-value)}"
    if value == 0:
        return "0"
    decimals = max(0, 2 - math.floor(math.log10(value)))
    return f"{value:,.{decimals}f}"


def spread(found: Spread | None) -> str:
    """The median, and the smallest and largest in brackets."""
    if found is None:
        return "-"
    return f"{number(found.median)} ({number(found.low)} to {number(found.high)})"


def reference(result: Result) -> str:
    """The contender that the others are compared with: the first one."""
    return next(iter(result.values), "")


def rows(result: Result) -> list[list[str]]:
    """A heading, and a line for each contender: its values, and the first one's ratio to it."""
    measures, first = result.measures(), reference(result)
    table = [["", *measures, f"{first} ÷ it"]]
    for name in result.values:
        ratio = None if name == first else result.ratio(first, name)
        values = [spread(result.spread(name, measure)) for measure in measures]
        table.append([name, *values, spread(ratio)])
    return table


def goal_text(goal: Goal) -> str:
    """What a goal asks for."""
    what = goal.contender if goal.measure == SECONDS else f"{goal.contender}, {goal.measure},"
    if goal.versus is None:
        unit = " s" if goal.measure == SECONDS else ""
        return f"{what} ≤ {goal.at_most:.3g}{unit}"
    if goal.difference:
        return f"{what} ≤ {goal.at_most:.3g} s more than {goal.versus}"
    return f"{what} ≤ {goal.at_most:.3g} x {goal.versus}"


def goal_rows(result: Result) -> list[list[str]]:
    """For each goal: what it asks for, what was reached, and whether that is enough."""
    table = []
    for goal in result.goals:
        reached = result.reached(goal)
        if reached is None:
            enough = "-"
        elif result.small:
            enough = "small sizes"
        else:
            enough = "yes" if reached.median <= goal.at_most else "no"
        table.append([goal_text(goal), spread(reached), enough])
    return table


def as_table(result: Result) -> str:
    """One work for a terminal."""
    lines = [f"\n{result.key}: {result.title}", *_aligned(rows(result))]
    lines += [f"  goal: {text}: {reached}, {met}" for text, reached, met in goal_rows(result)]
    lines += [f"  left out: {name}: {why}" for name, why in result.left_out.items()]
    return "\n".join([*lines, f"  {result.note}"] if result.note else lines)


def _aligned(table: list[list[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return [
        "  " + "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        for line in table
    ]
