"""A digest of a graph's structure and node code that is the same in every process.

What counts, for each function: its source as a syntax tree without comments, docstrings,
annotations and this library's decorators (its bytecode where there is no source), the
values of its defaults and closure variables, and the globals it reads: constants by value,
functions and classes of the same top-level package in turn. What belongs to another
package counts by name. For an action with a model: its class and its ``config``.

What does not count: paths, line numbers, the name of the script's module, the graph's name,
retry policies and node options (both may be tuned between two halves of a run), and
variables that the code itself changes.

What could not be seen into is reported, one line each.
"""

from __future__ import annotations

import enum
import functools
import hashlib
import inspect
import json
import logging
import os
import re
import sys
import types
import typing
from collections import deque
from collections.abc import Iterable
from dataclasses import fields, is_dataclass
from typing import Any

from .actions import describe_callable
from .ai import AIActionBase
from .edges import ConditionalEdge
from .flat import sinks_of
from .graph import Graph
from .nodes import Node, ToolSetNode
from .normal import bytecode_token, syntax_token
from .source import closure_of, imports, package_of, references, resolve, syntax_of, unwrapped
from .variables import changed_variables

__all__ = ["fingerprint_callable", "fingerprint_graph"]

_OWN_PACKAGE = __name__.partition(".")[0]
_PLAIN = (type(None), bool, int, float, complex, bytes, type(Ellipsis), type(NotImplemented), range)
_SILENT = (logging.Logger, logging.LoggerAdapter)
_CLASS_NOISE = frozenset(
    {
        "__abstractmethods__",
        "__annotate__",
        "__annotate_func__",
        "__annotations__",
        "__annotations_cache__",
        "__classdictcell__",
        "__dataclass_fields__",
        "__dataclass_params__",
        "__dict__",
        "__doc__",
        "__firstlineno__",
        "__match_args__",
        "__module__",
        "__orig_bases__",
        "__parameters__",
        "__qualname__",
        "__static_attributes__",
        "__weakref__",
        "_abc_impl",
    }
)
_MOST_VALUES = 100_000  # items looked into for one variable


def fingerprint_graph(graph: Graph) -> tuple[str, dict[str, str], list[str]]:
    """Return the graph's digest, each node's by its id, and what could not be seen into."""
    digests: dict[int, tuple[str, list[str]]] = {}  # many nodes may share one function
    report: dict[str, None] = {}

    def digest(what: str, thing: Any) -> str:
        if id(thing) not in digests:
            digests[id(thing)] = fingerprint_callable(thing)
        code, unseen = digests[id(thing)]
        report.update(dict.fromkeys(f"{what}: {line}" for line in unseen))
        return code

    codes: dict[str, str] = {}
    structure: list[Any] = [graph.start_node.node_id, graph.end_node.node_id]
    for node_id in sorted(graph.nodes):
        node = graph.nodes[node_id]
        parts: list[Any] = [node.node_type, _settings(node)]
        parts += [digest(f"node '{node_id}'", func) for func in node.callables()]
        edges: list[Any] = []
        for edge in graph.edges_from(node_id):
            sinks = [sink.node_id for sink in sinks_of(edge)]
            if isinstance(edge, ConditionalEdge):
                what = f"router '{describe_callable(edge.routing_function)}' of node '{node_id}'"
                router = digest(what, edge.routing_function)
                parts.append(router)
                edges.append(["conditional", sinks, router])
            else:
                edges.append(["concrete", sinks])
        codes[node_id] = _hash(parts)
        structure.append([node_id, codes[node_id], node.fallback_node_id, edges])
    return _hash(structure), codes, list(report)


def fingerprint_callable(thing: Any) -> tuple[str, list[str]]:
    """Return the digest of a function, callable object or class, and what was not seen into.

    Example:
        >>> one, _ = fingerprint_callable(functools.partial(max, 1))
        >>> two, _ = fingerprint_callable(functools.partial(max, 2))
        >>> len(one), one == two
        (64, False)
    """
    look = _Look(thing)
    name = describe_callable(thing)
    try:
        return _hash(look.callable(thing, name)), list(look.report)
    except RecursionError:
        return _hash(["nested too deeply", name]), [
            f"{name} is nested too deeply to be looked into"
        ]


def _settings(node: Node) -> list[Any]:
    return [node.base_url, node.tool_name] if isinstance(node, ToolSetNode) else []


def _hash(parts: Any) -> str:
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


class _TooLargeError(Exception):
    """Data with more than ``_MOST_VALUES`` items."""


class _Look:
    """One walk through everything a callable depends on; makes nested lists of strings."""

    def __init__(self, root: Any) -> None:
        self.report: dict[str, None] = {}
        self._seen: dict[int, tuple[int, Any]] = {}  # keeps the things alive, so ids stay unique
        self._inside: list[int] = []  # containers being walked
        self._values = 0
        self._changed = frozenset(changed_variables(root))

    # --- code -------------------------------------------------------------------------------

    def callable(self, thing: Any, where: str) -> Any:
        """Return the token of anything that can be called, and of classes."""
        thing = unwrapped(thing)
        if isinstance(thing, functools.partial):
            return [
                "partial",
                self.callable(thing.func, where),
                self.value(thing.args, where),
                self.value(thing.keywords, where),
            ]
        if isinstance(thing, types.MethodType):
            return [
                "method",
                self.callable(thing.__func__, where),
                self.value(thing.__self__, where),
            ]
        if isinstance(thing, types.FunctionType | type) and _is_installed(package_of(thing), thing):
            return self._by_name(thing)
        if isinstance(thing, types.FunctionType):
            return self._once(thing, where, self._function)
        if isinstance(thing, type):
            return self._once(thing, where, self._class)
        if isinstance(thing, functools._lru_cache_wrapper):
            return ["cached", self.callable(thing.__wrapped__, where)]
        if isinstance(thing, AIActionBase):
            return [
                "model action",
                self.callable(type(thing), where),
                self.value(getattr(thing, "config", None), f"config of {where}"),
            ]
        if inspect.isroutine(thing):
            owner = getattr(thing, "__self__", None)
            if owner is None or isinstance(owner, types.ModuleType | type):
                return self._by_name(thing)
            return ["builtin method", thing.__name__, self.value(owner, where)]
        return self.value(thing, where)

    def _once(self, thing: Any, where: str, look: Any) -> Any:
        if id(thing) in self._seen:
            return ["seen", self._seen[id(thing)][0]]
        self._seen[id(thing)] = (len(self._seen), thing)
        return look(thing, where)

    def _function(self, func: types.FunctionType, where: str) -> Any:
        for name in imports(func.__code__, package_of(func)):
            self.report[f"{where} imports '{name}' when it runs, so only that name counts"] = None
        tree = syntax_of(func)
        closure = closure_of(func)
        return [
            "function",
            bytecode_token(func.__code__) if tree is None else syntax_token(tree, func.__globals__),
            self.value(func.__defaults__, f"a default of {where}"),
            self.value(func.__kwdefaults__, f"a default of {where}"),
            [
                [name, self._variable(name, closure, func, (), where)]
                for name in func.__code__.co_freevars
                if name != "__class__"
            ],
            self._globals(func, where),
        ]

    def _globals(self, func: types.FunctionType, where: str) -> Any:
        """Return the token of each global name read, with attributes read from modules."""
        tokens = {}
        names = func.__globals__
        for path in sorted({ref.path for ref in references(func.__code__) if ref.is_global}):
            name = path[0]
            if name not in names:
                continue  # a builtin, or not defined yet: the name is in the code
            used = path if isinstance(names[name], types.ModuleType) else path[:1]
            key = ".".join(used)
            if key not in tokens:
                tokens[key] = self._variable(name, names, func, used[1:], where)
        return [[key, token] for key, token in tokens.items()]

    def _variable(
        self,
        name: str,
        names: dict[str, Any],
        func: types.FunctionType,
        path: tuple[str, ...],
        where: str,
    ) -> Any:
        if name not in names:
            return "no value yet"
        if name in ("__name__", "__file__", "__spec__", "__doc__"):
            return "of the module"
        if name in self._changed:
            self.report[f"the value of '{name}', which the code changes, is left out"] = None
            return "changed"
        try:
            return self._named(name, names, func, path)
        except Exception as error:
            return self._refused(names[name], f"variable '{name}'", error)

    def _named(
        self, name: str, names: dict[str, Any], func: types.FunctionType, path: tuple[str, ...]
    ) -> Any:
        package = package_of(func)
        value, rest = resolve(names[name], path)
        value = unwrapped(value)
        if isinstance(names[name], types.ModuleType):
            module = value if isinstance(value, types.ModuleType) else names[name]
            if isinstance(value, types.ModuleType) or _top(names[name]) != package:
                if not _is_installed(_top(module), module):
                    self._report_foreign(".".join((module.__name__, *path)), _top(module), package)
                return ["module", _module_name(module), *(rest if module is value else path)]
        own = getattr(value, "__wrapped__", value) if _is_cached(value) else value
        if isinstance(own, type | types.FunctionType):
            foreign = names is func.__globals__ and package_of(own) != package
            if foreign and not _is_installed(package_of(own), own):
                self._report_foreign(f"{own.__module__}.{own.__qualname__}", "", package)
            return self._by_name(own) if foreign else self.callable(value, f"'{name}'")
        return self.value(value, f"variable '{name}'", folder=_folder_of(func))

    def _refused(self, value: Any, where: str, error: Exception) -> Any:
        if isinstance(error, _TooLargeError | RecursionError):
            self.report[f"{where} is too large or too deep to be looked into"] = None
        else:
            name = type(error).__name__
            self.report[f"{where} could not be looked into: {name}: {error}"] = None
        return ["a", _class_name(type(value))]

    def _report_foreign(self, name: str, top: str, package: str) -> None:
        if top != package:
            self.report[f"'{name}' is of another package, so only its name counts"] = None

    def _by_name(self, thing: Any) -> Any:
        name = getattr(thing, "__qualname__", None) or type(thing).__qualname__
        return ["name", getattr(thing, "__module__", None) or "", name]

    def _class(self, cls: type, where: str) -> Any:
        if issubclass(cls, enum.Enum):
            members = [[name, self.value(m.value, where)] for name, m in cls.__members__.items()]
            return ["enum", cls.__qualname__, members]
        bases = [
            self.callable(base, where) if package_of(base) == package_of(cls) else _class_name(base)
            for base in cls.__bases__
        ]
        members = [
            [name, self._member(member, f"'{cls.__name__}.{name}'")]
            for name, member in sorted(vars(cls).items())
            if name not in _CLASS_NOISE and not _is_generated(member)
        ]
        if is_dataclass(cls):
            for item in fields(cls):
                default = [item.default, item.default_factory]
                members.append(
                    ["field", item.name, [self._field_default(d, cls.__name__) for d in default]]
                )
        return ["class", cls.__qualname__.rpartition(".")[2], bases, members]

    def _field_default(self, default: Any, where: str) -> Any:
        if type(default).__name__ == "_MISSING_TYPE":
            return "none"
        return self.value(default, f"a default of '{where}'")

    def _member(self, member: Any, where: str) -> Any:
        if isinstance(member, staticmethod | classmethod):
            return [type(member).__name__, self.callable(member.__func__, where)]
        if isinstance(member, property):
            parts = (member.fget, member.fset, member.fdel)
            return ["property", [part and self.callable(part, where) for part in parts]]
        if isinstance(member, functools.cached_property):
            return ["cached_property", self.callable(member.func, where)]
        if hasattr(type(member), "__get__") and not isinstance(member, types.FunctionType):
            kind = type(member)
            if _is_installed(package_of(kind), kind) and not _is_cached(member):
                return ["descriptor", kind.__qualname__]
        return self.value(member, where)

    # --- data -------------------------------------------------------------------------------

    def value(self, value: Any, where: str, folder: str = "") -> Any:
        """Return the token of a value: data by value, callables by their code."""
        if not self._inside:
            self._values = 0
        self._values += 1
        if self._values > _MOST_VALUES:
            raise _TooLargeError
        if type(value) in _PLAIN:
            return [type(value).__name__, repr(value)]
        if type(value) is str:
            if folder and value.startswith(folder):  # paths are no part of the code
                value = "<folder>" + value[len(folder) :]
            return ["str", value]
        if id(value) in self._inside:
            return ["cycle", len(self._inside) - self._inside.index(id(value))]
        self._inside.append(id(value))
        try:
            return self._object(value, where, folder)
        except Exception as error:  # an object of the user's own that refuses to be looked at
            if isinstance(error, RecursionError | _TooLargeError) and len(self._inside) > 1:
                raise  # where it stops depends on the order of sets, so leave out the whole
            return self._refused(value, where, error)
        finally:
            self._inside.pop()

    def _object(self, value: Any, where: str, folder: str) -> Any:
        kind = type(value)
        if isinstance(value, enum.Enum):
            return ["enum", kind.__qualname__, value.name]
        if kind in (list, tuple, deque):
            return [kind.__name__, [self.value(item, where, folder) for item in value]]
        if kind in (set, frozenset):
            return [kind.__name__, self._sorted(value, where)]
        if isinstance(value, dict | types.MappingProxyType):
            pairs = [
                [self._alone(key, where), self.value(item, where, folder)]
                for key, item in self._in_order(value, where)
            ]
            return [_class_name(kind), pairs]
        if isinstance(value, bytearray | memoryview):
            return [kind.__name__, bytes(value).hex()]
        if isinstance(value, re.Pattern):
            return ["pattern", repr(value.pattern), value.flags]
        if isinstance(value, os.PathLike):
            return [_class_name(kind), self.value(os.fspath(value), where, folder)]
        if isinstance(value, _SILENT):
            return ["logger", value.name if isinstance(value, logging.Logger) else ""]
        if isinstance(value, types.ModuleType):
            return ["module", _module_name(value)]
        if _is_typing(value):
            return ["typing", repr(value)]
        if kind.__module__ == "numpy" and hasattr(value, "dtype") and not value.dtype.hasobject:
            return _array(value)
        if kind.__module__ in _VALUE_MODULES:
            return [_class_name(kind), repr(value)]
        if _is_code(value):
            return self.callable(value, where)
        return self._instance(value, kind, where, folder)

    def _instance(self, value: Any, kind: type, where: str, folder: str) -> Any:
        own = kind.__module__.partition(".")[0] == _OWN_PACKAGE and not isinstance(value, Node)
        if is_dataclass(value) and own:
            data = {item.name: getattr(value, item.name) for item in fields(value)}
            return [_class_name(kind), self.value(data, where, folder)]
        if kind.__module__ == "types" and kind.__name__ == "SimpleNamespace":
            return ["namespace", self.value(dict(vars(value)), where, folder)]
        package = package_of(kind)
        if isinstance(value, AIActionBase):
            return self.callable(value, where)
        closed = isinstance(value, Node | Graph) or not hasattr(value, "__dict__")
        if closed or _is_installed(package, kind):
            if package not in ("_thread", "threading"):  # locks hold no behaviour
                self.report[f"{where} holds a {_class_name(kind)}, not looked into"] = None
            return ["a", _class_name(kind)]
        return [
            "object",
            self.callable(kind, where),
            self.value(dict(vars(value)), f"{where} ({kind.__name__})", folder),
        ]

    def _alone(self, value: Any, where: str) -> Any:
        """Return a token that does not depend on what was seen before."""
        before, self._seen = self._seen, {}
        try:
            return self.value(value, where)
        finally:
            self._seen = before

    def _sorted(self, values: Iterable[Any], where: str) -> list[Any]:
        return sorted((self._alone(item, where) for item in values), key=json.dumps)

    def _in_order(self, mapping: Any, where: str) -> list[tuple[Any, Any]]:
        items = list(mapping.items())
        return sorted(items, key=lambda item: json.dumps(self._alone(item[0], where)))


_VALUE_MODULES = frozenset({"datetime", "decimal", "fractions", "uuid", "zoneinfo", "ipaddress"})


def _class_name(kind: type) -> str:
    module = "" if kind.__module__ == "__main__" else f"{kind.__module__}."
    return f"{module}{kind.__qualname__}"


def _top(module: types.ModuleType) -> str:
    return package_of(types.SimpleNamespace(__module__=module.__name__))


def _module_name(module: types.ModuleType) -> str:
    return "itself" if module.__name__ == "__main__" else module.__name__


def _is_cached(value: object) -> bool:
    return isinstance(value, functools._lru_cache_wrapper)


def _is_installed(package: str, thing: Any) -> bool:
    """Say whether a thing comes with Python, with this library or with an installed package."""
    if package in (_OWN_PACKAGE, "ray") or (
        package in sys.stdlib_module_names and package != "__main__"
    ):
        return True
    module = thing if isinstance(thing, types.ModuleType) else sys.modules.get(thing.__module__)
    path = getattr(module, "__file__", None) or ""
    return "site-packages" in path or "dist-packages" in path


def _is_code(value: object) -> bool:
    return (
        inspect.isroutine(value) or isinstance(value, type | functools.partial) or _is_cached(value)
    )


def _is_typing(value: object) -> bool:
    return type(value).__module__ in ("typing", "types") and (
        isinstance(value, types.GenericAlias | types.UnionType)
        or typing.get_origin(value) is not None
        or type(value).__module__ == "typing"
    )


def _is_generated(member: object) -> bool:
    """Say whether a class member was made by ``@dataclass`` and the like, not written."""
    code = getattr(unwrapped(member), "__code__", None)
    return code is not None and code.co_filename.startswith("<string>")


def _array(value: Any) -> Any:
    digest = hashlib.sha256(value.tobytes()).hexdigest()
    return ["numpy", str(value.dtype), list(value.shape), digest]


def _folder_of(func: types.FunctionType) -> str:
    path = func.__globals__.get("__file__")
    return os.path.dirname(os.path.abspath(path)) if isinstance(path, str) and path else ""
