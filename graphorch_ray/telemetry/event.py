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
        found: dict[str, AttributeValue] = {}
        for item in fields(self):
            if item.name not in self.not_attributes:
                value = getattr(self, item.name)
                if isinstance(value, RetryPolicy):
                    found.update(policy_attributes(value))
                elif value is not None:
                    found[PREFIX + item.name] = value
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
        found = Event.attributes(self)
        _, superstep, execution, role, attempt, rerun = self.key
        found[f"{PREFIX}superstep"] = superstep
        found[f"{PREFIX}execution"] = execution
        found[f"{PREFIX}role"] = role
        found[f"{PREFIX}retry_count"] = attempt
        found[f"{PREFIX}rerun"] = rerun
        return found


def without_prefix(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Attributes under their bare names."""
    return {name.removeprefix(PREFIX): value for name, value in attributes.items()}
