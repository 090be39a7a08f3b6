"""What all nodes share: the interface that the engine and the pools use them by."""

from __future__ import annotations

import copy
import inspect
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from typing import Any, ClassVar, Literal, Unpack

from ..errors import GraphOrchestratorException, InvalidNodeActionOutput
from ..policies import NodeOptions, OptionKeywords, RetryPolicy, check_option_names
from ..state import State
from .actions import is_async_callable, options_of
from .edges import Edge

__all__ = ["ActionNode", "Node", "Placement"]

Placement = Literal["driver", "task", "async", "model"]


class Node(ABC):
    """Base of every node; subclass it and write ``execute`` for a kind of your own.

    Attributes:
        node_id: Unique within a graph.
        incoming_edges: Edges that lead here, in creation order.
        outgoing_edges: Edges that leave from here, in creation order.
        fallback_node_id: The node that stands in when this one has failed for good.
        retry_policy: This node's own policy; ``None``: the executor's.
        options: What the node asks for; see :class:`~graphorch_ray.policies.NodeOptions`.

    Raises:
        TypeError: The id is no string, or an option is unknown.
        ValueError: The id is empty, or an option is outside its legal range.
    """

    is_aggregator: ClassVar[bool] = False
    """Whether the input is a list of states."""

    _own_execute: ClassVar[bool] = True  # execute() is the user's, not ours
    _takes_replicas: ClassVar[bool] = False

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Note whether the subclass brings its own ``execute``."""
        super().__init_subclass__(**kwargs)
        cls._own_execute = not getattr(cls.execute, "_of_the_library", False)

    def __init__(self, node_id: str, **options: Unpack[OptionKeywords]) -> None:
        """Make a node with no edges, no fallback and no policy of its own."""
        if not isinstance(node_id, str):
            raise TypeError(
                f"a node's id must be a string, not {node_id!r} ({type(node_id).__name__})"
            )
        if not node_id:
            raise ValueError("a node's id must not be empty")
        self.node_id = node_id
        self.incoming_edges: list[Edge] = []
        self.outgoing_edges: list[Edge] = []
        self.fallback_node_id: str | None = None
        self.retry_policy: RetryPolicy | None = None
        self.options = self._options(None, options)

    def _options(self, func: object, given: OptionKeywords) -> NodeOptions:
        """Merge the decorator's options with the node's own keywords."""
        owner = f"{type(self).__name__}({self.node_id!r})"
        check_option_names(owner, given)
        if not self._takes_replicas and given.get("replicas") is not None:
            raise ValueError(f"{owner} takes no 'replicas': that option is for AINode")
        return options_of(func).merged(**given)

    @abstractmethod
    async def execute(self, state: Any) -> State:
        """Run the node on its input and return the result; needs no executor and no Ray."""

    def set_fallback(self, fallback_node_id: str | None) -> None:
        """Name the node that stands in when this one has failed for good; ``None``: nobody.

        Raises:
            TypeError: It is not a node id.
        """
        if fallback_node_id is not None and not isinstance(fallback_node_id, str):
            raise TypeError(f"a fallback is given by its node id, not {fallback_node_id!r}")
        self.fallback_node_id = fallback_node_id

    def set_retry_policy(self, retry_policy: RetryPolicy | None) -> None:
        """Give the node a policy of its own; ``None``: it follows the executor's again.

        Raises:
            TypeError: It is not a :class:`~graphorch_ray.policies.RetryPolicy`.
        """
        if retry_policy is not None and not isinstance(retry_policy, RetryPolicy):
            raise TypeError(
                f"node '{self.node_id}': retry_policy must be a RetryPolicy or None, "
                f"not {retry_policy!r} ({type(retry_policy).__name__})"
            )
        self.retry_policy = retry_policy

    @property
    def node_type(self) -> str:
        """The name of the node's class."""
        return type(self).__name__

    @property
    def is_async(self) -> bool:
        """Whether :meth:`call` gives an awaitable."""
        return inspect.iscoroutinefunction(self.execute)

    @property
    def is_passthrough(self) -> bool:
        """Whether the node does nothing but hand its input on."""
        return False

    @property
    def holds_slot(self) -> bool:
        """Whether an execution counts among ``max_workers``; waiting for a person does not."""
        return self.placement != "driver"

    @property
    def placement(self) -> Placement:
        """Where the node runs: in the driver, a task, a shared event loop, or a model worker."""
        return "task"

    def call(self, inp: Any) -> State | Awaitable[State]:
        """Run the node once; the pools' way in.

        Args:
            inp: A state, or the list of states for an aggregator.

        Returns:
            The checked result, or an awaitable of it where the node is async.
        """
        return self._checked(self.execute(inp))

    def callables(self) -> tuple[Callable[..., Any], ...]:
        """Return the user's functions and classes in the node, for whoever looks at its code."""
        return (type(self),)

    def detached(self) -> Node:
        """Return a shallow copy with no edges, small enough to travel to a worker."""
        return copy.copy(self)

    def _wrong_output(self, result: object) -> GraphOrchestratorException:
        """Return the error for a result that is not a state."""
        return InvalidNodeActionOutput(result)

    def _checked(self, result: object) -> State | Awaitable[State]:
        if isinstance(result, State):
            return result
        if inspect.isawaitable(result):
            return self._awaited(result)
        raise self._wrong_output(result)

    async def _awaited(self, result: Awaitable[Any]) -> State:
        state = await result
        if isinstance(state, State):
            return state
        raise self._wrong_output(state)

    def __getstate__(self) -> object:
        """Leave the edges out: they belong to the graph, which pickles them itself.

        A long chain of nodes would otherwise be pickled by recursion, whole.
        """
        state = super().__getstate__()
        if isinstance(state, tuple):  # a subclass with __slots__
            return ({**(state[0] or {}), "incoming_edges": [], "outgoing_edges": []}, *state[1:])
        return {**self.__dict__, "incoming_edges": [], "outgoing_edges": []}

    def __repr__(self) -> str:
        """Show the class and the id."""
        return f"{self.node_type}({self.node_id!r})"


class ActionNode(Node):
    """What the library's own kinds of node share: one function that does the work."""

    _asked: tuple[object, bool] = (None, False)
    _placed: tuple[object, object, Placement] = (None, None, "task")

    @property
    def _action(self) -> Callable[[Any], Any]:
        raise NotImplementedError

    async def execute(self, state: Any) -> State:
        """Run the node on its input and return the result; needs no executor and no Ray.

        Nothing is retried and no fallback is taken: what the function raises comes out.
        """
        result = self._checked(self._action(state))
        return result if isinstance(result, State) else await result

    execute._of_the_library = True  # type: ignore[attr-defined]

    def call(self, inp: Any) -> State | Awaitable[State]:
        """Run the node once; see :meth:`Node.call`."""
        if self._own_execute:
            return self._checked(self.execute(inp))
        result = self._action(inp)
        return result if isinstance(result, State) else self._checked(result)

    @property
    def is_async(self) -> bool:
        """Whether :meth:`call` gives an awaitable."""
        action = self._action
        if self._asked[0] is not action:  # asked several times for each execution
            own = self._own_execute
            answer = inspect.iscoroutinefunction(self.execute) if own else is_async_callable(action)
            self._asked = (action, answer)
        return self._asked[1]

    @property
    def placement(self) -> Placement:
        """Where the node runs; see :attr:`Node.placement`."""
        placed, action = self._placed, self._action
        if placed[0] is not action or placed[1] is not self.options:  # asked for each execution
            placed = self._placed = (action, self.options, self._place())
        return placed[2]

    def _place(self) -> Placement:
        """Find out where the node runs."""
        if not self.is_async or self._own_execute:
            return "task"
        return "task" if self.options.explicit_resources else "async"

    def callables(self) -> tuple[Callable[..., Any], ...]:
        """Return the node's function, and its class where that brings its own ``execute``."""
        return (self._action, type(self)) if self._own_execute else (self._action,)
