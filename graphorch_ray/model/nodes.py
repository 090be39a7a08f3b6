"""The kinds of node."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from typing import Any, ClassVar, Unpack

from ..errors import (
    AggregatorActionNotDecorated,
    EmptyToolNodeDescriptionError,
    GraphOrchestratorException,
    InvalidAggregatorActionError,
    InvalidAIActionOutput,
    InvalidToolMethodOutput,
    NodeActionNotDecoratedError,
    ToolMethodNotDecorated,
)
from ..policies import OptionKeywords
from ..state import State
from .actions import node_action
from .ai import AIActionBase, ensure_model, process
from .base import ActionNode, Node, Placement
from .builtins import pass_through
from .toolset import HttpxModule, ToolSetCall

__all__ = [
    "AINode",
    "AggregatorNode",
    "HumanInTheLoopNode",
    "Node",
    "Placement",
    "ProcessingNode",
    "ToolNode",
    "ToolSetNode",
]


class ProcessingNode(ActionNode):
    """A node that turns a state into the next one.

    Args:
        node_id: Unique within a graph.
        func: A function decorated with ``@node_action``.
        **options: Fields of :class:`~graphorch_ray.policies.NodeOptions`; they take
            precedence over the decorator's.

    Raises:
        NodeActionNotDecoratedError: The function lacks ``@node_action``.

    Example:
        >>> import asyncio
        >>> from graphorch_ray.model import node_action
        >>> @node_action
        ... def double(state):
        ...     return State([2 * message for message in state.messages])
        >>> asyncio.run(ProcessingNode("double", double).execute(State([1, 2])))
        State([2, 4])
    """

    func: Callable[..., Any]

    def __init__(
        self, node_id: str, func: Callable[..., Any], **options: Unpack[OptionKeywords]
    ) -> None:
        """Make the node."""
        super().__init__(node_id)
        if not getattr(func, "is_node_action", False):
            raise NodeActionNotDecoratedError(func)
        self.func = func
        self.options = self._options(func, options)

    @property
    def _action(self) -> Callable[[Any], Any]:
        return self.func

    def call(self, inp: Any) -> State | Awaitable[State]:
        """Run the node once; see :meth:`Node.call`."""
        if self._own_execute:
            return self._checked(self.execute(inp))
        result = self.func(inp)
        return result if isinstance(result, State) else self._checked(result)

    @property
    def is_passthrough(self) -> bool:
        """Whether the node does nothing but hand its input on."""
        return self.func is pass_through and not self._own_execute

    def _place(self) -> Placement:
        """Find out where the node runs; one that only passes its input on stays in the driver."""
        return "driver" if self.is_passthrough else super()._place()


class AggregatorNode(ActionNode):
    """A node that turns all states that arrived in a superstep into one.

    Args:
        node_id: Unique within a graph.
        aggregator_action: A function decorated with ``@aggregator_action``.
        **options: Fields of :class:`~graphorch_ray.policies.NodeOptions`.

    Raises:
        AggregatorActionNotDecorated: The function lacks ``@aggregator_action``.
    """

    is_aggregator: ClassVar[bool] = True

    def __init__(
        self,
        node_id: str,
        aggregator_action: Callable[..., Any],
        **options: Unpack[OptionKeywords],
    ) -> None:
        """Make the node."""
        super().__init__(node_id)
        if not getattr(aggregator_action, "is_aggregator_action", False):
            raise AggregatorActionNotDecorated(aggregator_action)
        self.aggregator_action = aggregator_action
        self.options = self._options(aggregator_action, options)

    @property
    def _action(self) -> Callable[[Any], Any]:
        return self.aggregator_action

    def _wrong_output(self, result: object) -> GraphOrchestratorException:
        return InvalidAggregatorActionError(result)


class ToolNode(ProcessingNode):
    """A node that runs a tool.

    Args:
        node_id: Unique within a graph.
        description: What the tool is for; may be empty where the function has a docstring.
        tool_method: A function decorated with ``@tool_method``.
        **options: Fields of :class:`~graphorch_ray.policies.NodeOptions`.

    Raises:
        ToolMethodNotDecorated: The function lacks ``@tool_method``.
        EmptyToolNodeDescriptionError: Neither a description nor a docstring.
    """

    def __init__(
        self,
        node_id: str,
        description: str | None,
        tool_method: Callable[..., Any],
        **options: Unpack[OptionKeywords],
    ) -> None:
        """Make the node."""
        if not getattr(tool_method, "is_tool_method", False):
            raise ToolMethodNotDecorated(tool_method)
        if not description and not (tool_method.__doc__ or "").strip():
            raise EmptyToolNodeDescriptionError(tool_method)
        super().__init__(node_id, tool_method, **options)
        self.description = description

    def _wrong_output(self, result: object) -> GraphOrchestratorException:
        return InvalidToolMethodOutput(result)


class AINode(ProcessingNode):
    """A node that runs an action with a model.

    Args:
        node_id: Unique within a graph.
        description: What the model is for.
        model_action: An :class:`~graphorch_ray.model.AIActionBase`, or a function
            decorated with ``@node_action``.
        response_format: Kept for programs that read it; the library does not use it.
        response_parser: Kept for programs that read it; the library does not use it.
        **options: Fields of :class:`~graphorch_ray.policies.NodeOptions`; ``replicas``
            is the number of model workers.

    Raises:
        NodeActionNotDecoratedError: ``model_action`` is neither.
    """

    _takes_replicas: ClassVar[bool] = True

    def __init__(
        self,
        node_id: str,
        description: str,
        model_action: Callable[..., Any],
        response_format: str | None = None,
        response_parser: Callable[[State], Any] | None = None,
        **options: Unpack[OptionKeywords],
    ) -> None:
        """Make the node."""
        super().__init__(node_id, model_action, **options)
        self.description = description
        self.response_format = response_format
        self.response_parser = response_parser

    def ensure_model(self) -> bool:
        """Build the model in this process unless it is there; say whether this call built it."""
        return isinstance(self.func, AIActionBase) and ensure_model(self.func)

    @property
    def _action(self) -> Callable[[Any], Any]:
        action = self.func
        # A subclass that brings its own __call__ means it; otherwise skip the extra coroutine.
        if isinstance(action, AIActionBase) and type(action).__call__ is AIActionBase.__call__:
            return lambda state: process(action, state)
        return action

    def call(self, inp: Any) -> State | Awaitable[State]:
        """Run the node once; see :meth:`Node.call`."""
        return ActionNode.call(self, inp)

    @property
    def is_async(self) -> bool:
        """Whether :meth:`call` gives an awaitable."""
        action = self.func
        if (
            not self._own_execute
            and isinstance(action, AIActionBase)
            and type(action).__call__ is AIActionBase.__call__
        ):
            return inspect.iscoroutinefunction(action.process_state)
        return super().is_async

    @property
    def placement(self) -> Placement:
        """Always a model worker, which keeps what it built."""
        return "model"

    def callables(self) -> tuple[Callable[..., Any], ...]:
        """Return the action, and the node's class where that brings its own ``execute``."""
        return (self.func, type(self)) if self._own_execute else (self.func,)

    def _wrong_output(self, result: object) -> GraphOrchestratorException:
        return InvalidAIActionOutput(result)


class HumanInTheLoopNode(ProcessingNode):
    """A node that asks a person; its handler always runs in the driver.

    Args:
        node_id: Unique within a graph.
        interaction_handler: Takes a state and returns one, sync or async; decorated
            with ``@node_action`` here where it is not yet.
        metadata: For whoever shows the question; the library does not use it.
        **options: Fields of :class:`~graphorch_ray.policies.NodeOptions`.
    """

    def __init__(
        self,
        node_id: str,
        interaction_handler: Callable[..., Any],
        metadata: dict[str, str] | None = None,
        **options: Unpack[OptionKeywords],
    ) -> None:
        """Make the node."""
        if not getattr(interaction_handler, "is_node_action", False):
            interaction_handler = node_action(interaction_handler)
        super().__init__(node_id, interaction_handler, **options)
        self.metadata: dict[str, str] = metadata or {}

    @property
    def placement(self) -> Placement:
        """Always the driver, where the person is."""
        return "driver"


class ToolSetNode(ProcessingNode):
    """A node that runs a tool on a tool server, over HTTP.

    It posts ``{"messages": [...]}`` to ``{base_url}/tools/{tool_name}``, waits at most
    10 seconds, and expects the same shape back. What :mod:`httpx` raises comes out.

    Args:
        node_id: Unique within a graph.
        base_url: Address of the server; slashes at its end are dropped.
        tool_name: The tool.
        **options: Fields of :class:`~graphorch_ray.policies.NodeOptions`.
    """

    httpx: ClassVar[Any] = HttpxModule()
    """The :mod:`httpx` module, imported when first read; replace it in tests."""

    def __init__(
        self, node_id: str, base_url: str, tool_name: str, **options: Unpack[OptionKeywords]
    ) -> None:
        """Make the node."""
        for name, value in (("base_url", base_url), ("tool_name", tool_name)):
            if not isinstance(value, str):
                raise TypeError(
                    f"ToolSetNode's {name} must be a string, not {value!r} ({type(value).__name__})"
                )
        self.base_url = base_url.rstrip("/")
        self.tool_name = tool_name
        super().__init__(node_id, ToolSetCall(self.base_url, tool_name, type(self)), **options)

    def _place(self) -> Placement:
        """The driver: it only waits, and a client replaced in a test is the one that is used."""
        own = super()._place()
        return "driver" if own == "async" else own

    @property
    def holds_slot(self) -> bool:
        """Whether an execution counts among ``max_workers``: it is work, like any other."""
        return True

    def callables(self) -> tuple[Callable[..., Any], ...]:
        """Return nothing: the code is the library's; see ``base_url`` and ``tool_name``."""
        return (type(self),) if self._own_execute else ()


def __getattr__(name: str) -> Any:
    """Find ``httpx`` here too, imported when first asked for: tests replace its client here."""
    if name == "httpx":
        return ToolSetNode.httpx
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
