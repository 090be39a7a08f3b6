"""What all events have in common, and what all events of an attempt have."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from operator import attrgetter
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
        return _facts_of(type(self)).of(self)


class _Facts:
    """The fields of a kind of event that are attributes."""

    def __init__(self, names: list[str]) -> None:
        self._has_policy = "retry_policy" in names
        names = [name for name in names if name != "retry_policy"]
        self._names = [PREFIX + name for name in names]
        self._values = _getter(names)

    def of(self, event: Event) -> dict[str, AttributeValue]:
        """Their values, by their names in a trace."""
        values = zip(self._names, self._values(event), strict=True)
        found = {name: value for name, value in values if value is not None}
        if self._has_policy:
            found.update(policy_attributes(event.retry_policy))  # type: ignore[attr-defined]
        return found


def _getter(names: list[str]) -> Callable[[Any], tuple[Any, ...]]:
    """What takes these fields out of an event."""
    if len(names) > 1:
        return attrgetter(*names)
    return lambda event: tuple(getattr(event, name) for name in names)


_facts: dict[type[Any], _Facts] = {}
_own_facts: dict[type[Any], _Facts] = {}


def _facts_of(kind: type[Any]) -> _Facts:
    found = _facts.get(kind)
    if found is None:
        names = [item.name for item in fields(kind) if item.name not in kind.not_attributes]
        found = _facts[kind] = _Facts(names)
    return found


def _own_facts_of(kind: type[Any]) -> _Facts:
    """The same, without what every event of an attempt has."""
    found = _own_facts.get(kind)
    if found is None:
        without = kind.not_attributes | {item.name for item in fields(AttemptEvent)}
        names = [item.name for item in fields(kind) if item.name not in without]
        found = _own_facts[kind] = _Facts(names)
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

    def attempt(self) -> dict[str, Any]:
        """The fields that all events of an attempt have, by name."""
        return {
            "time": self.time,
            "run_id": self.run_id,
            "key": self.key,
            "node_id": self.node_id,
            "owner_id": self.owner_id,
            "node_type": self.node_type,
        }

    def attributes(self) -> dict[str, AttributeValue]:
        """The facts, by their names in a trace; what is unknown is left out."""
        found = _facts_of(type(self)).of(self)
        _, superstep, execution, role, attempt, rerun = self.key
        found["graphorch.superstep"] = superstep
        found["graphorch.execution"] = execution
        found["graphorch.role"] = role
        found["graphorch.retry_count"] = attempt
        found["graphorch.rerun"] = rerun
        return found

    def own_attributes(self) -> dict[str, AttributeValue]:
        """The facts, without those that say which attempt this is about."""
        return _own_facts_of(type(self)).of(self)


def without_prefix(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Attributes under their bare names."""
    return {name.removeprefix(PREFIX): value for name, value in attributes.items()}
