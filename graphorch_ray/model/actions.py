"""The decorators that turn functions into node actions, tools, aggregators and routers.

Each works bare or with options, on sync and async functions, methods, callable objects
and :func:`functools.partial`. A decorated sync function stays a sync function; an async
one stays async. What the function returns is checked at every call.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeVar, Unpack, overload

from ..errors import (
    GraphOrchestratorException,
    InvalidAggregatorActionError,
    InvalidNodeActionOutput,
    InvalidRoutingFunctionOutput,
    InvalidToolMethodOutput,
)
from ..policies import NodeOptions, OptionKeywords, check_option_names
from ..state import State

__all__ = [
    "RouterPlacement",
    "aggregator_action",
    "describe_callable",
    "is_async_callable",
    "node_action",
    "options_of",
    "router_placement_of",
    "routing_function",
    "tool_method",
]

RouterPlacement = Literal["driver", "worker"]

_Action = TypeVar("_Action", bound=Callable[..., Any])
_OPTIONS = "__graphorch_options__"
_PLACEMENT = "__graphorch_placement__"
_NO_OPTIONS = NodeOptions()


@overload
def node_action(func: _Action, /) -> _Action: ...
@overload
def node_action(
    func: None = None, /, **options: Unpack[OptionKeywords]
) -> Callable[[_Action], _Action]: ...
def node_action(func: Any = None, /, **options: Any) -> Any:
    """Make a function from a state to a state usable in a node.

    Args:
        func: The function, sync or async; left out where options are given.
        **options: The fields of :class:`~graphorch_ray.policies.NodeOptions`, for example
            ``num_cpus=2``, ``memory=2**30`` (bytes) or ``timeout=30`` (seconds).

    Raises:
        TypeError: It is not callable, is a generator function, or an option is unknown.
        ValueError: An option is outside its legal range.
        InvalidNodeActionOutput: At a call, if the result is not a ``State``.

    Example:
        >>> @node_action(num_cpus=2)
        ... def shout(state):
        ...     return State([message.upper() for message in state.messages])
        >>> shout(State(["hello"]))
        State(['HELLO'])
    """
    return _decorator(
        "node_action", func, options, State, InvalidNodeActionOutput, ("is_node_action",)
    )


@overload
def tool_method(func: _Action, /) -> _Action: ...
@overload
def tool_method(
    func: None = None, /, **options: Unpack[OptionKeywords]
) -> Callable[[_Action], _Action]: ...
def tool_method(func: Any = None, /, **options: Any) -> Any:
    """Make a function from a state to a state usable in a ``ToolNode`` (or any other node).

    Takes the options of :func:`node_action`, and raises what it raises.

    Raises:
        InvalidToolMethodOutput: At a call, if the result is not a ``State``.

    Example:
        >>> @tool_method
        ... def count(state):
        ...     "Counts the messages."
        ...     return State([len(state.messages)])
        >>> count(State(["a", "b"]))
        State([2])
    """
    return _decorator(
        "tool_method",
        func,
        options,
        State,
        InvalidToolMethodOutput,
        ("is_node_action", "is_tool_method"),
    )


@overload
def aggregator_action(func: _Action, /) -> _Action: ...
@overload
def aggregator_action(
    func: None = None, /, **options: Unpack[OptionKeywords]
) -> Callable[[_Action], _Action]: ...
def aggregator_action(func: Any = None, /, **options: Any) -> Any:
    """Make a function from a list of states to one state usable in an ``AggregatorNode``.

    Takes the options of :func:`node_action`, and raises what it raises.

    Raises:
        InvalidAggregatorActionError: At a call, if the result is not a ``State``.

    Example:
        >>> @aggregator_action
        ... def join(states):
        ...     return State([message for state in states for message in state.messages])
        >>> join([State([1]), State([2])])
        State([1, 2])
    """
    return _decorator(
        "aggregator_action",
        func,
        options,
        State,
        InvalidAggregatorActionError,
        ("is_aggregator_action",),
    )


@overload
def routing_function(func: _Action, /) -> _Action: ...
@overload
def routing_function(
    func: None = None, /, *, placement: RouterPlacement = "driver"
) -> Callable[[_Action], _Action]: ...
def routing_function(func: Any = None, /, *, placement: RouterPlacement = "driver") -> Any:
    """Make a function from a state to a node id usable in a conditional edge.

    Args:
        func: The function, sync or async; left out where an option is given.
        placement: ``"driver"``: it runs where the executor runs, so closures work.
            ``"worker"``: it runs beside the node, so that a large state need not
            travel to the driver.

    Raises:
        TypeError: It is not callable, or is a generator function.
        ValueError: ``placement`` is neither of the two.
        InvalidRoutingFunctionOutput: At a call, if the result is not a ``str``.

    Example:
        >>> @routing_function
        ... def again(state):
        ...     return "end" if len(state.messages) > 2 else "work"
        >>> again(State([1]))
        'work'
    """
    if placement not in ("driver", "worker"):
        raise ValueError(
            f"routing_function's placement must be 'driver' or 'worker', not {placement!r}"
        )

    def decorate(target: Callable[..., Any]) -> Any:
        _refuse("routing_function", target)
        wrapper = _checked(target, str, InvalidRoutingFunctionOutput)
        wrapper.is_routing_function = True
        setattr(wrapper, _PLACEMENT, placement)
        return wrapper

    return decorate if func is None else decorate(func)


def options_of(func: object) -> NodeOptions:
    """Return the options that a function was decorated with; the defaults if there are none.

    Example:
        >>> options_of(node_action(timeout=5)(lambda state: state)).timeout
        5
    """
    found = getattr(func, _OPTIONS, None)
    return found if isinstance(found, NodeOptions) else _NO_OPTIONS


def router_placement_of(func: object) -> RouterPlacement:
    """Return where a router asked to run; ``"driver"`` if it did not ask."""
    return "worker" if getattr(func, _PLACEMENT, "driver") == "worker" else "driver"


def is_async_callable(func: object) -> bool:
    """Say whether calling ``func`` gives an awaitable, as far as can be told without a call."""
    if inspect.iscoroutinefunction(func):
        return True
    if isinstance(func, functools.partial):
        return is_async_callable(func.func)
    if inspect.isroutine(func) or isinstance(func, type):
        return False
    return inspect.iscoroutinefunction(getattr(func, "__call__", None))  # noqa: B004


def describe_callable(func: object) -> str:
    """Return a short name for messages, also for callables that have none."""
    name = getattr(func, "__name__", None)
    if isinstance(name, str):
        return name
    if isinstance(func, functools.partial):
        return f"partial({describe_callable(func.func)})"
    return type(func).__name__


def _decorator(
    kind: str,
    func: Any,
    options: dict[str, Any],
    expected: type,
    error: Callable[[object], GraphOrchestratorException],
    markers: Sequence[str],
) -> Any:
    check_option_names(f"@{kind}", options)
    if "replicas" in options:
        raise TypeError(f"@{kind} takes no 'replicas': that option is for AINode")
    NodeOptions(**options)  # a wrong value is named here, not when the decorator is applied

    def decorate(target: Callable[..., Any]) -> Any:
        _refuse(kind, target)
        wrapper = _checked(target, expected, error)
        for marker in markers:
            setattr(wrapper, marker, True)
        setattr(wrapper, _OPTIONS, options_of(target).merged(**options))
        return wrapper

    return decorate if func is None else decorate(func)


def _refuse(kind: str, target: object) -> None:
    """Raise a ``TypeError`` for what can never be a node's function."""
    if not callable(target):
        raise TypeError(
            f"@{kind} is for functions, not {target!r} ({type(target).__name__}); "
            "give options by keyword"
        )
    core: Any = target
    while isinstance(core, functools.partial):
        core = core.func
    if not inspect.isroutine(core) and not isinstance(core, type):
        core = type(core).__call__
    if inspect.isgeneratorfunction(core) or inspect.isasyncgenfunction(core):
        raise TypeError(
            f"@{kind}: '{describe_callable(target)}' is a generator function; "
            "it must return its result instead of yielding it"
        )


def _checked(
    target: Callable[..., Any],
    expected: type,
    error: Callable[[object], GraphOrchestratorException],
) -> Any:
    """Wrap ``target`` so that each result is checked."""
    wrapper: Any
    if is_async_callable(target):

        async def checked_async(*args: Any, **kwargs: Any) -> Any:
            result = await target(*args, **kwargs)
            if isinstance(result, expected):
                return result
            raise error(result)

        wrapper = checked_async
    else:

        def checked(*args: Any, **kwargs: Any) -> Any:
            result = target(*args, **kwargs)
            if isinstance(result, expected):
                return result
            if inspect.iscoroutine(result):
                result.close()  # never to be awaited, so spare the user that warning
            raise error(result)

        wrapper = checked
    if inspect.isroutine(target):
        return functools.wraps(target)(wrapper)
    wrapper.__name__ = wrapper.__qualname__ = describe_callable(target)
    wrapper.__doc__ = target.__doc__
    wrapper.__module__ = getattr(target, "__module__", None) or type(target).__module__
    wrapper.__wrapped__ = target
    return wrapper
