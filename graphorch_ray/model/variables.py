"""Finds the variables of the driver that a node's code changes.

On Ray a node runs in another process, so a change to a global or closure variable is lost.
The search reads the syntax tree: rebinding by ``global`` or ``nonlocal``, assignment to an
attribute or an item, ``del``, and calls of methods known to change containers. It follows
calls to functions of the same package. Without source only rebinding is found.
"""

from __future__ import annotations

import ast
import dis
import logging
import threading
import types
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

from .source import (
    closure_of,
    functions_of,
    package_of,
    references,
    resolve,
    syntax_of,
    unwrapped,
)

__all__ = ["changed_variables"]

_CONTAINERS = (list, dict, set, bytearray, deque)
_NEVER = (
    types.ModuleType,
    type,
    types.FunctionType,
    types.BuiltinFunctionType,
    types.MethodType,
    logging.Logger,
    logging.LoggerAdapter,
    threading.local,
)
_CHANGERS = frozenset(
    {
        "add",
        "append",
        "appendleft",
        "clear",
        "difference_update",
        "discard",
        "extend",
        "extendleft",
        "insert",
        "intersection_update",
        "pop",
        "popitem",
        "popleft",
        "put",
        "put_nowait",
        "remove",
        "reverse",
        "rotate",
        "setdefault",
        "sort",
        "subtract",
        "symmetric_difference_update",
        "update",
    }
)
_SCOPES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda, ast.ClassDef)
_COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)


def changed_variables(func: Callable[..., Any]) -> list[str]:
    """Return the names of the global and closure variables that a callable changes, in order.

    Example:
        >>> calls = []
        >>> def count(state):
        ...     calls.append(1)
        ...     return state
        >>> changed_variables(count)
        ['calls']
    """
    found: dict[str, None] = {}
    todo = functions_of(func)
    seen = {id(function) for function in todo}
    while todo:
        function = todo.pop(0)
        for name in _changes_in(function):
            found[name] = None
        for helper in _helpers(function):
            if id(helper) not in seen:
                seen.add(id(helper))
                todo.append(helper)
    return list(found)


def _helpers(function: types.FunctionType) -> Iterator[types.FunctionType]:
    """Yield the functions of the same package that a function refers to."""
    closure = closure_of(function)
    for reference in references(function.__code__):
        names = function.__globals__ if reference.is_global else closure
        if reference.path[0] not in names:
            continue
        value, _ = resolve(names[reference.path[0]], reference.path[1:])
        value = unwrapped(value)
        if type(value) is types.FunctionType and (
            (not reference.is_global and len(reference.path) == 1)
            or package_of(value) == package_of(function)
        ):
            yield value


def _changes_in(function: types.FunctionType) -> list[str]:
    tree = syntax_of(function)
    if tree is None:
        return sorted(set(_rebound(function.__code__)))
    return list(_Search(function).run(tree))


def _rebound(code: types.CodeType) -> Iterator[str]:
    free = set(code.co_freevars)
    todo = [code]
    while todo:
        current = todo.pop()
        todo.extend(const for const in current.co_consts if isinstance(const, types.CodeType))
        for instruction in dis.get_instructions(current):
            if instruction.opname in ("STORE_GLOBAL", "DELETE_GLOBAL") or (
                instruction.opname in ("STORE_DEREF", "DELETE_DEREF") and instruction.argval in free
            ):
                yield str(instruction.argval)


class _Scope:
    """The names of one function, class body or comprehension."""

    def __init__(self, tree: ast.AST) -> None:
        self.declared_global: set[str] = set()
        self.declared_nonlocal: set[str] = set()
        self.stored: set[str] = set()
        self.parameters: set[str] = set()
        self.is_class = isinstance(tree, ast.ClassDef)
        if isinstance(tree, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            for part in ast.walk(tree.args):
                if isinstance(part, ast.arg):
                    self.parameters.add(part.arg)
        if isinstance(tree, _COMPREHENSIONS):
            for generator in tree.generators:
                self._collect(generator.target)
        elif isinstance(tree, ast.Lambda):
            self._collect(tree.body)
        else:
            for statement in getattr(tree, "body", []):
                self._collect(statement)

    def _collect(self, tree: ast.AST) -> None:
        if isinstance(tree, ast.Global):
            self.declared_global.update(tree.names)
        elif isinstance(tree, ast.Nonlocal):
            self.declared_nonlocal.update(tree.names)
        elif isinstance(tree, ast.Name):
            if not isinstance(tree.ctx, ast.Load):
                self.stored.add(tree.id)
        elif isinstance(tree, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            self.stored.add(tree.name)
            return
        elif isinstance(tree, ast.Lambda):
            return
        elif isinstance(tree, ast.Import | ast.ImportFrom):
            for alias in tree.names:
                self.stored.add(alias.asname or alias.name.partition(".")[0])
        elif isinstance(tree, ast.ExceptHandler | ast.MatchAs | ast.MatchStar) and tree.name:
            self.stored.add(tree.name)
        if isinstance(tree, _COMPREHENSIONS):
            for part in ast.walk(tree):  # := binds outside the comprehension
                if isinstance(part, ast.NamedExpr):
                    self._collect(part.target)
            return
        for child in ast.iter_child_nodes(tree):
            self._collect(child)

    @property
    def local(self) -> set[str]:
        return (self.parameters | self.stored) - self.declared_global - self.declared_nonlocal


class _Search:
    """One pass over the tree of one function."""

    def __init__(self, function: types.FunctionType) -> None:
        self.function = function
        self.closure = closure_of(function)
        self.package = package_of(function)
        self.found: dict[str, None] = {}

    def run(self, tree: ast.AST) -> dict[str, None]:
        self._enter(tree, ())
        return self.found

    def _enter(self, tree: ast.AST, outer: tuple[_Scope, ...]) -> None:
        scope = _Scope(tree)
        scopes = (*outer, scope)
        for name in sorted(scope.declared_global & scope.stored):
            self.found[name] = None
        for name in sorted(scope.declared_nonlocal & scope.stored):
            if not any(name in other.local for other in outer if not other.is_class):
                self.found[name] = None
        if isinstance(tree, ast.Lambda):
            self._visit(tree.body, scopes)
        elif isinstance(tree, _COMPREHENSIONS):
            for child in ast.iter_child_nodes(tree):
                self._visit(child, scopes)
        else:
            for statement in getattr(tree, "body", []):
                self._visit(statement, scopes)

    def _visit(self, tree: ast.AST, scopes: tuple[_Scope, ...]) -> None:
        if isinstance(tree, (*_SCOPES, *_COMPREHENSIONS)):
            self._enter(tree, scopes)
            return
        if isinstance(tree, ast.Attribute | ast.Subscript) and not isinstance(tree.ctx, ast.Load):
            self._target(tree, scopes)
        elif (
            isinstance(tree, ast.Call)
            and isinstance(tree.func, ast.Attribute)
            and tree.func.attr in _CHANGERS
        ):
            self._changer(tree.func.value, scopes)
        for child in ast.iter_child_nodes(tree):
            self._visit(child, scopes)

    def _target(self, tree: ast.Attribute | ast.Subscript, scopes: tuple[_Scope, ...]) -> None:
        found = self._outside(tree.value, scopes)
        if found is None:
            return
        name, value, rest = found
        if isinstance(value, types.ModuleType) and not rest and isinstance(tree, ast.Attribute):
            if value.__name__.partition(".")[0] == self.package:
                self.found[f"{name}.{tree.attr}"] = None
        elif _may_be_changed(value) and (
            isinstance(tree, ast.Attribute) or rest or hasattr(type(value), "__setitem__")
        ):
            self.found[name] = None

    def _changer(self, tree: ast.expr, scopes: tuple[_Scope, ...]) -> None:
        found = self._outside(tree, scopes)
        if found is None:
            return
        name, value, _ = found
        if _may_be_changed(value) and (isinstance(value, _CONTAINERS) or self._is_users(value)):
            self.found[name] = None

    def _is_users(self, value: object) -> bool:
        return package_of(type(value)) in (self.package, "__main__")

    def _outside(
        self, tree: ast.expr, scopes: tuple[_Scope, ...]
    ) -> tuple[str, Any, tuple[str, ...]] | None:
        """Return the outside variable that an expression starts from, its value, and the rest."""
        path: tuple[str, ...] = ()
        while isinstance(tree, ast.Attribute | ast.Subscript):
            path = (tree.attr if isinstance(tree, ast.Attribute) else "[]", *path)
            tree = tree.value
        if not isinstance(tree, ast.Name):
            return None
        name = tree.id
        if name not in scopes[-1].declared_global:
            visible = (scopes[-1], *(scope for scope in scopes[:-1] if not scope.is_class))
            if any(name in scope.local for scope in visible):
                return None
        if name in self.closure:
            value = self.closure[name]
        elif name in self.function.__globals__:
            value = self.function.__globals__[name]
        else:
            return None
        value, rest = resolve(value, path)
        used = path[: len(path) - len(rest)]
        return ".".join((name, *used)), value, rest


def _may_be_changed(value: object) -> bool:
    try:
        if isinstance(value, _NEVER) or value is None:
            return False
    except Exception:  # a proxy that refuses to name its class
        return False
    return package_of(type(value)) != "ray"  # actor handles and Ray's queues are shared for real
