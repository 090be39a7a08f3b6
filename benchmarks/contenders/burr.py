"""Apache Burr: a state machine of actions, in one process."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

from burr.core import ApplicationBuilder, State, action, default, expr


def _action(function: Callable[[Any], Any]) -> Any:
    @action(reads=["value"], writes=["value"])
    def call(state: State[Any]) -> State[Any]:
        return state.update(value=function(state["value"]))

    return call


@action(reads=["value"], writes=[])
def done(state: State[Any]) -> State[Any]:
    """Where a machine halts."""
    return state


def chain(function: Callable[[Any], Any], value: Any, length: int) -> Callable[[], Any]:
    names = [f"n{number}" for number in range(length)]

    def run() -> Any:
        application: Any = (
            ApplicationBuilder()
            .with_actions(**{name: _action(function) for name in names})
            .with_transitions(*itertools.pairwise(names))
            .with_state(value=value)
            .with_entrypoint(names[0])
            .build()
        )
        return application.run(halt_after=[names[-1]])[2]["value"]

    return run


def loop(function: Callable[[Any], Any], value: Any, times: int) -> Callable[[], Any]:
    def run() -> Any:
        application: Any = (
            ApplicationBuilder()
            .with_actions(work=_action(function), done=done)
            .with_transitions(
                ("work", "done", expr(f"value >= {times}")), ("work", "work", default)
            )
            .with_state(value=value)
            .with_entrypoint("work")
            .build()
        )
        return application.run(halt_after=["done"])[2]["value"]

    return run
