"""The two actions that come with the library."""

from __future__ import annotations

import random

from ..state import State
from .actions import aggregator_action, node_action

__all__ = ["passThrough", "pass_through", "selectRandomState", "select_random_state"]


@node_action
def pass_through(state: State) -> State:
    """Return the state as it came; what ``start`` and ``end`` do.

    Example:
        >>> pass_through(State([1]))
        State([1])
    """
    return state


@aggregator_action
def select_random_state(states: list[State]) -> State:
    """Return one of the states, chosen by the global :mod:`random` generator.

    Raises:
        IndexError: There is no state to choose from.

    Example:
        >>> select_random_state([State([1]), State([1])])
        State([1])
    """
    return random.choice(states)


passThrough = pass_through
selectRandomState = select_random_state
