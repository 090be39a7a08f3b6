"""Base class for actions that hold a model."""

from __future__ import annotations

import inspect
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable
from typing import Any

from ..errors import InvalidAIActionOutput
from ..state import State
from .trail import note

__all__ = ["AIActionBase", "ensure_model", "process"]

# One lock for all actions: an instance attribute would end up in a subclass's own __getstate__.
_BUILD = threading.RLock()


class AIActionBase(ABC):
    """An action with a model that is built once and used by many calls.

    Subclass it, build the model in :meth:`build_model`, use it in :meth:`process_state`,
    and give an instance to an ``AINode``. On Ray the model is built once in each model
    worker; a model built in the driver is not sent there.

    Attributes:
        config: What the constructor was given.
        model: The model, ``None`` until it is built.

    Example:
        >>> class Adder(AIActionBase):
        ...     def build_model(self):
        ...         self.model = self.config["step"]
        ...         self._model_built = True
        ...
        ...     def process_state(self, state):
        ...         return State([message + self.model for message in state.messages])
        >>> import asyncio
        >>> asyncio.run(Adder({"step": 10})(State([1, 2])))
        State([11, 12])
    """

    is_node_action = True

    def __init__(self, config: dict[str, Any]) -> None:
        """Keep the configuration; nothing is built yet."""
        self.config = config
        self.model: Any = None
        self._model_built = False
        self.__name__ = type(self).__name__

    @abstractmethod
    def build_model(self) -> None:
        """Build the model: set ``self.model``, and ``self._model_built = True``."""

    @abstractmethod
    def process_state(self, state: State) -> State | Awaitable[State]:
        """Turn a state into the next one; sync or ``async def``."""

    async def __call__(self, state: State) -> State:
        """Build the model if needed and process one state.

        Raises:
            InvalidAIActionOutput: The result is not a ``State``.
        """
        result = process(self, state)
        return result if isinstance(result, State) else await result

    def __getstate__(self) -> dict[str, Any]:
        """Leave a built model behind: each process builds its own."""
        if not self.__dict__.get("_model_built", False):
            return dict(self.__dict__)
        return {**self.__dict__, "model": None, "_model_built": False}


# Functions rather than methods, so that no name of a subclass can get in their way.


def ensure_model(action: AIActionBase) -> bool:
    """Build the action's model unless it is there; say whether it was built by this call."""
    if getattr(action, "_model_built", False):
        return False
    with _BUILD:
        if getattr(action, "_model_built", False):
            return False
        started = time.monotonic()
        action.build_model()
        action._model_built = True
        note("build_model", seconds=time.monotonic() - started)
        return True


def process(action: AIActionBase, state: State) -> State | Awaitable[State]:
    """Build the model if needed and process one state; an awaitable where that is async.

    Raises:
        InvalidAIActionOutput: The result is not a ``State``.
    """
    ensure_model(action)
    result: object = action.process_state(state)
    if isinstance(result, State):
        return result
    if inspect.isawaitable(result):
        return _checked(result)
    raise InvalidAIActionOutput(result)


async def _checked(result: Awaitable[Any]) -> State:
    state = await result
    if isinstance(state, State):
        return state
    raise InvalidAIActionOutput(state)
