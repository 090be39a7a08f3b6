"""What all events have in common, and what all events of an attempt have."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar

from ..model.attempt import AttemptKey
from ..policies import RetryPolicy

AttributeValue = str | bool | int | float | tuple[str, ...]

PREFIX = "graphorch."


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that happened.

    Attributes:
        time: Unix seconds, by the driver's clock unless a class says otherwise.
        run_id: the run.
    """

    name: ClassVar[str] = ""
    not_attributes: ClassVar[frozenset[str]] = frozenset({"time", "run_id"})

    time: float
    run_id: str

    def attributes(self) -> dict[str, AttributeValue]:
        """The facts, by their names in a trace; what is unknown is left out."""
        return self._under(_names(type(self)))

    def _under(self, names: tuple[tuple[str, str], ...]) -> dict[str, AttributeValue]:
        found: dict[str, AttributeValue] = {}
        for field, name in names:
            value = getattr(self, field)
            if value is None:
                continue
            if field == "retry_policy":
                found.update(policy_attributes(value))
            else:
                found[name] = value
        return found


_known: dict[type[Any], tuple[tuple[str, str], ...]] = {}
_known_own: dict[type[Any], tuple[tuple[str, str], ...]] = {}


def _names(kind: type[Any]) -> tuple[tuple[str, str], ...]:
    """The fields of an event that are attributes, with their names in a trace."""
    found = _known.get(kind)
    if found is None:
        names = (item.name for item in fields(kind))
        found = tuple((name, PREFIX + name) for name in names if name not in kind.not_attributes)
        _known[kind] = found
    return found


def _own_names(kind: type[Any]) -> tuple[tuple[str, str], ...]:
    """The same, without what every event of an attempt has."""
    found = _known_own.get(kind)
    if found is None:
        common = {item.name for item in fields(AttemptEvent)}
        found = tuple(pair for pair in _names(kind) if pair[0] not in common)
        _known_own[kind] = found
    return found


def policy_attributes(policy: RetryPolicy) -> dict[str, AttributeValue]:
    """A retry policy as attributes."""
    return {
        f"{PREFIX}retry_policy.max_retries": policy.max_retries,
        f"{PREFIX}retry_policy.delay": policy.delay,
        f"{PREFIX}retry_policy.backoff": policy.backoff,
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptEvent(Event):
    """Base of what happens to one attempt at a node.

    Attributes:
        key: the attempt.
        node_id: whose code runs.
        owner_id: whose place in the graph it is; differs where a fallback stands in.
        node_type: the node's class.
    """

    not_attributes: ClassVar[frozenset[str]] = frozenset({"time", "run_id", "key"})

    key: AttemptKey
    node_id: str
    owner_id: str
    node_type: str

    @property
    def superstep(self) -> int:
        """The superstep, counted from 0."""
        return self.key.superstep

    @property
    def execution(self) -> int:
        """Place in the superstep's launch order, from 0."""
        return self.key.execution

    @property
    def role(self) -> str:
        """``"node"``, or ``"fallback"`` where it stands in for another."""
        return self.key.role

    @property
    def retry_count(self) -> int:
        """Which attempt, from 0: the node's own failures advance it."""
        return self.key.attempt

    @property
    def rerun(self) -> int:
        """Which re-run, from 0: infrastructure failures advance it."""
        return self.key.rerun

    def attributes(self) -> dict[str, AttributeValue]:
        """The facts, by their names in a trace; what is unknown is left out."""
        found = self._under(_names(type(self)))
        _, superstep, execution, role, attempt, rerun = self.key
        found["graphorch.superstep"] = superstep
        found["graphorch.execution"] = execution
        found["graphorch.role"] = role
        found["graphorch.retry_count"] = attempt
        found["graphorch.rerun"] = rerun
        return found

    def own_attributes(self) -> dict[str, AttributeValue]:
        """The facts, without those that say which attempt this is about."""
        return self._under(_own_names(type(self)))


def without_prefix(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Attributes under their bare names."""
    return {name.removeprefix(PREFIX): value for name, value in attributes.items()}
