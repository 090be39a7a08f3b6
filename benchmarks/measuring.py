"""What is measured, and how: contenders take turns, and ratios are taken round by round.

In each round every contender does the same work once, one after another, beginning with another
one each time. So whatever else the machine does hits all of them, and the ratio of two contenders
in one round says more than the ratio of their averages.
"""

from __future__ import annotations

import gc
import math
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

SECONDS = "seconds"


@dataclass(frozen=True)
class Measured:
    """The answer of a contender that measures itself, or measures more than seconds.

    Attributes:
        answer: compared with the answers of the others.
        values: by measure. Where "seconds" is missing, they are taken from outside.
    """

    answer: object
    values: Mapping[str, float]


@dataclass(frozen=True)
class Goal:
    """That one contender stays below another one, or below a fixed value.

    Attributes:
        contender: whose goal it is.
        at_most: the largest allowed ratio of its value to the other's; without `versus`, the
            largest allowed value.
        versus: the other contender.
        measure: what is compared.
        difference: what is compared is not the ratio of the two but by how much it is more.
    """

    contender: str
    at_most: float
    versus: str | None = None
    measure: str = SECONDS
    difference: bool = False


@dataclass(frozen=True)
class Work:
    """A piece of work, and each contender's way to do it.

    Attributes:
        key: its short name.
        title: what is done.
        contenders: by name; called once in each round, and once before the first.
        goals: what is to be reached.
        left_out: by name, why a contender does not take part.
        note: what a reader must know to read the numbers.
        rounds: rounds at most, where one takes very long.
        needs_ray: whether a Ray is to run; else, none does.
    """

    key: str
    title: str
    contenders: Mapping[str, Callable[[], object]]
    goals: Sequence[Goal] = ()
    left_out: Mapping[str, str] = field(default_factory=dict)
    note: str = ""
    rounds: int | None = None
    needs_ray: bool = True


@dataclass(frozen=True)
class Spread:
    """Median, smallest and largest of some values."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """The spread of at least one value."""
        return cls(statistics.median(values), min(values), max(values))


@dataclass
class Result:
    """The values of one work, by contender and measure, one for each round.

    Those of small sizes meet no goal and miss none.
    """

    key: str
    title: str
    values: dict[str, dict[str, list[float]]]
    goals: list[Goal]
    left_out: dict[str, str]
    note: str = ""
    small: bool = False

    def measures(self) -> list[str]:
        """The names of what was measured, seconds first."""
        names = dict.fromkeys(name for by in self.values.values() for name in by)
        return sorted(names, key=lambda name: name != SECONDS)

    def spread(self, contender: str, measure: str = SECONDS) -> Spread | None:
        """The spread over the rounds, or None where it was not measured."""
        found = self.values.get(contender, {}).get(measure)
        return Spread.of(found) if found else None

    def ratio(self, contender: str, versus: str, measure: str = SECONDS) -> Spread | None:
        """The spread of the ratios, each taken within a round."""
        found = [a / b for a, b in self._paired(contender, versus, measure) if b > 0]
        return Spread.of(found) if found else None

    def difference(self, contender: str, versus: str, measure: str = SECONDS) -> Spread | None:
        """The spread of the differences, each taken within a round."""
        found = [a - b for a, b in self._paired(contender, versus, measure)]
        return Spread.of(found) if found else None

    def _paired(self, one: str, two: str, measure: str) -> list[tuple[float, float]]:
        lists = [self.values.get(name, {}).get(measure, []) for name in (one, two)]
        return list(zip(*lists, strict=True)) if all(lists) else []

    def reached(self, goal: Goal) -> Spread | None:
        """What was reached of a goal: a value, or compared with another contender's."""
        if goal.versus is None:
            return self.spread(goal.contender, goal.measure)
        compare = self.difference if goal.difference else self.ratio
        return compare(goal.contender, goal.versus, goal.measure)

    @classmethod
    def from_json(cls, saved: dict[str, Any]) -> Result:
        """The result that `as_json` was asked of."""
        return cls(**{**saved, "goals": [Goal(**goal) for goal in saved["goals"]]})

    def as_json(self) -> dict[str, Any]:
        """Plain data with everything in it."""
        return asdict(self)


class AnswersDifferError(Exception):
    """Contenders of one work gave different answers, so that they have not done the same."""


def turns(names: Sequence[str], rounds: int) -> Iterator[list[str]]:
    """The order of contenders in each round: each begins in its turn."""
    for number in range(rounds):
        shift = number % len(names)
        yield [*names[shift:], *names[:shift]]


def run_once(contender: Callable[[], object]) -> Measured:
    """Let a contender do its work, and take the time."""
    gc.collect()
    began = time.perf_counter()
    answer = contender()
    seconds = time.perf_counter() - began
    if isinstance(answer, Measured):
        return Measured(answer.answer, {SECONDS: seconds, **answer.values})
    return Measured(answer, {SECONDS: seconds})


def measure(
    work: Work,
    rounds: int,
    say: Callable[[str], None] = lambda text: None,
    limit: float = math.inf,
    without: Sequence[str] = (),
) -> Result:
    """Run a work's contenders in turns.

    Each runs once before, which warms it up and tells whether it can do the work. One that fails
    there is left out with its error; a later failure is the caller's.

    Args:
        work: what is done, and by whom.
        rounds: how often, at most.
        say: is told how far it is.
        limit: seconds; a contender without a goal that takes longer to warm up is left out, which
            says how long it took.
        without: contenders that are not to run, by how their names begin.

    Raises:
        AnswersDifferError: an answer is not that of the first contender.
    """
    left_out = dict(work.left_out)
    ready: dict[str, Callable[[], object]] = {}
    expected: list[object] = []
    with_goals = {goal.contender for goal in work.goals}

    def check(name: str, answer: object) -> None:
        if not expected:
            expected.append(answer)
        elif expected[0] != answer:
            first = next(iter(ready))
            raise AnswersDifferError(
                f"{work.key}: {first} gave {expected[0]!r:.200}, {name} gave {answer!r:.200}"
            )

    for name, contender in work.contenders.items():
        if name.startswith(tuple(without)):
            left_out[name] = "it was not asked to run (`--without`)"
            continue
        say(f"{work.key}: {name}, warming up")
        try:
            measured = run_once(contender)
        except Exception as error:
            first_line = (str(error).splitlines() or ["no message"])[0]
            left_out[name] = f"{type(error).__name__}: {first_line}"
            say(f"{work.key}: {name} left out, {left_out[name]}")
            continue
        ready[name] = contender
        check(name, measured.answer)
        seconds = measured.values[SECONDS]
        if seconds > limit and name not in with_goals:
            left_out[name] = f"its first run took {seconds:.0f} s, longer than the limit"
            del ready[name]
    values: dict[str, dict[str, list[float]]] = {name: {} for name in ready}
    count = min(rounds, work.rounds or rounds)
    for number, order in enumerate(turns(list(ready), count) if ready else (), 1):
        say(f"{work.key}: round {number} of {count}")
        for name in order:
            measured = run_once(ready[name])
            check(name, measured.answer)
            for key, value in measured.values.items():
                values[name].setdefault(key, []).append(value)
    return Result(work.key, work.title, values, list(work.goals), left_out, work.note)
