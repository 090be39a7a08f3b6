"""States as the Ray backend holds them, and node code on its way to workers."""

from __future__ import annotations

import inspect
import uuid
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from ...errors import SerializationError, StateLostError
from ...model.graph import Graph
from ...model.nodes import AggregatorNode, ProcessingNode, ToolNode
from ..payload import Payload, dump_code, picklable
from ..pool import router_of
from ..stored import StoredPayload
from .modules import import_path
from .wire import Shipped

if TYPE_CHECKING:
    from .states import Recipe

INLINE_CODE_BYTES = 8 * 1024
"""Node code up to this size travels with each call; larger code is stored once."""


class StateHandle:
    """A state in the driver's hands: the payload itself where it is small, else a reference.

    Attributes:
        payload: the state taken apart, if it is here.
        ref: reference to a `Payload` in Ray's object store, if it is there.
        kept: the state in the run's vault, if it is there.
        recipe: what made it, if it could be lost.
        suspect: it may be lost, so look before it is used.
        nbytes: its size.
        size: number of messages.
    """

    __slots__ = (
        "__weakref__",
        "kept",
        "nbytes",
        "payload",
        "recipe",
        "ref",
        "size",
        "suspect",
    )

    def __init__(self, payload: Payload | None, ref: Any, nbytes: int, size: int) -> None:
        self.payload = payload
        self.ref = ref
        self.kept: StoredPayload | None = None
        self.recipe: Recipe | None = None
        self.suspect = False
        self.nbytes = nbytes
        self.size = size

    @classmethod
    def of(cls, payload: Payload) -> StateHandle:
        """Hold a payload that is in this process, storing it where it is large."""
        nbytes = payload.nbytes
        if payload.fits():
            return cls(payload.compact(), None, nbytes, payload.size)
        import ray

        return cls(None, ray.put(payload), nbytes, payload.size)

    def share(self) -> None:
        """Have it in Ray's store, where every process of a machine maps the same copy."""
        if self.payload is not None and not self.payload.fits():
            import ray

            self.ref, self.payload = ray.put(self.payload), None

    @property
    def input(self) -> Payload | StoredPayload | None:
        """What travels with a call for this state; None where it is an argument of its own."""
        return self.payload or (self.kept if self.ref is None else None)

    @property
    def is_known(self) -> bool:
        """Whether it is anywhere: a stretch leaves states behind that were passed over."""
        return not (self.payload is None and self.ref is None and self.kept is None)

    def fetch(self) -> Payload | StoredPayload:
        """The payload; blocks while it comes from another machine.

        Raises:
            StateLostError: it was left behind.
        """
        if self.payload is not None:
            return self.payload
        if self.kept is not None:
            return self.kept
        if self.ref is None:
            raise StateLostError(
                "This state was passed over by a run that had gone on already. Read the active "
                "states from the run's own event loop, or once it has ended."
            )
        import ray

        payload = ray.get(self.ref)
        assert isinstance(payload, Payload)
        return payload


class CodeShelf:
    """The graph's node code and worker-side routers, pickled once each.

    Nodes that share a function share its pickle, and a large one is stored once in Ray. Keys are
    new for each shelf: a worker that outlives a run must not take changed code for what it knows.
    """

    graph: Graph

    def __init__(self) -> None:
        self._prefix = uuid.uuid4().hex
        self._keys: dict[Any, str] = {}
        self._shipped: dict[str, Shipped | list[Any]] = {}
        self._kept: list[Any] = []  # what `_keys` knows by id() must not be freed meanwhile
        self._import_path = import_path()

    def clear(self) -> None:
        """Let go of everything."""
        self._keys.clear()
        self._shipped.clear()
        self._kept.clear()

    def node(self, node_id: str) -> str:
        """The key of a node's code."""
        node = self.graph.nodes[node_id]
        plain = type(node) in (ProcessingNode, ToolNode, AggregatorNode)
        identity: Any = id(node.callables()[0]) if plain else ("node", node_id)
        key = self._keys.get(identity)
        if key is None:
            code: Callable[..., Any] = node.callables()[0] if plain else node.detached().call
            key = self._add(identity, code, f"the code of node {node_id!r}", node.callables())
        return key

    def router(self, owner_id: str, edge: int) -> str:
        """The key of a router that runs beside its node."""
        identity = ("router", owner_id, edge)
        key = self._keys.get(identity)
        if key is None:
            router = router_of(self.graph, owner_id, edge)
            what = f"the router {_name(router)} of node {owner_id!r}"
            key = self._add(identity, router, what, (router,))
        return key

    def shipped(self, key: str) -> Shipped | list[Any]:
        """What goes into a job under the key."""
        return self._shipped[key]

    def _add(
        self, identity: Any, code: Callable[..., Any], what: str, functions: tuple[Any, ...]
    ) -> str:
        try:
            pickled, refs = dump_code(code)
        except Exception as error:
            raise SerializationError(what, _blame(functions, error)) from error
        key = f"{self._prefix}:{len(self._keys)}"
        shipped = Shipped(what, pickled, refs, self._import_path)
        if len(pickled) <= INLINE_CODE_BYTES:
            self._shipped[key] = shipped
        else:
            import ray

            self._shipped[key] = [ray.put(shipped)]
        self._keys[identity] = key
        self._kept.append(code)
        return key


def _name(function: Any) -> str:
    return f"{getattr(function, '__qualname__', None) or repr(function)!s}"


def _blame(functions: tuple[Any, ...], error: Exception) -> str:
    """Which function could not be pickled, and what in it."""
    for function in functions:
        inner = inspect.unwrap(function) if callable(function) else function
        for candidate in (inner, function):
            for name, value in _captured(candidate).items():
                cause = picklable(value)
                if cause is not None:
                    kind = f"{type(value).__module__}.{type(value).__qualname__}"
                    return (
                        f"function {_name(inner)} uses {name!r}, a {kind}: {cause}. Make it "
                        "inside the function, or build it once per worker in an AIActionBase"
                    )
    names = ", ".join(_name(inspect.unwrap(f)) for f in functions if callable(f))
    return f"function {names}: {type(error).__name__}: {error}"


def _captured(function: Any) -> Mapping[str, Any]:
    """What a function takes along: closure variables, globals it names, defaults, attributes."""
    found: dict[str, Any] = {}
    code = getattr(function, "__code__", None)
    if code is None:
        return dict(getattr(function, "__dict__", {}))
    for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=False):
        try:
            found[name] = cell.cell_contents
        except ValueError:
            continue
    spaces = function.__globals__
    found.update({name: spaces[name] for name in code.co_names if name in spaces})
    names = code.co_varnames[: code.co_argcount][::-1]
    found.update(dict(zip(names, (function.__defaults__ or ())[::-1], strict=False)))
    return found
