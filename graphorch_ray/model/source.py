"""Finds the code behind a callable: its functions, their syntax trees, the names they read."""

from __future__ import annotations

import ast
import dis
import functools
import inspect
import linecache
import sys
import types
from collections.abc import Iterator
from typing import Any, NamedTuple

from . import actions

__all__ = [
    "FunctionTree",
    "Reference",
    "closure_of",
    "functions_of",
    "imports",
    "package_of",
    "references",
    "resolve",
    "syntax_of",
    "unwrapped",
]

FunctionTree = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda

_MOST_FILES = 16
_trees: dict[str, tuple[list[str], dict[int, list[FunctionTree]]]] = {}


class Reference(NamedTuple):
    """A name that a function reads from outside itself, with the attributes read from it."""

    path: tuple[str, ...]
    is_global: bool


def unwrapped(func: Any) -> Any:
    """Return what the library's own decorators were put around."""
    while (
        type(func) is types.FunctionType  # not isinstance: a proxy may refuse to name its class
        and func.__globals__.get("__name__") == actions.__name__
        and hasattr(func, "__wrapped__")
    ):
        func = func.__wrapped__
    return func


def package_of(thing: Any) -> str:
    """Return the name of the top-level package, or lone module, that defines a thing.

    A script counts as the module it would be if it were imported (``python -m pkg.main``).
    """
    module = getattr(thing, "__module__", None) or ""
    if module == "__main__":
        spec = getattr(sys.modules.get("__main__"), "__spec__", None)
        module = getattr(spec, "name", None) or module
    return str(module).partition(".")[0]


def closure_of(func: types.FunctionType) -> dict[str, Any]:
    """Return the closure's variables by name, without those that have no value yet."""
    found = {}
    for name, cell in zip(func.__code__.co_freevars, func.__closure__ or (), strict=True):
        try:
            found[name] = cell.cell_contents
        except ValueError:
            continue
    return found


def references(code: types.CodeType) -> Iterator[Reference]:
    """Yield every global and closure variable that the code reads, nested functions included."""
    free = set(code.co_freevars)
    todo = [code]
    while todo:
        current = todo.pop()
        todo.extend(const for const in current.co_consts if isinstance(const, types.CodeType))
        path: tuple[str, ...] = ()
        is_global = False
        for instruction in dis.get_instructions(current):
            name = instruction.opname
            if path and name in ("LOAD_ATTR", "LOAD_METHOD"):
                path = (*path, str(instruction.argval))
                continue
            if path:
                yield Reference(path, is_global)
                path = ()
            if name in ("LOAD_GLOBAL", "LOAD_NAME"):
                path, is_global = (str(instruction.argval),), True
            elif name in ("LOAD_DEREF", "LOAD_CLASSDEREF") and instruction.argval in free:
                path, is_global = (str(instruction.argval),), False
        if path:
            yield Reference(path, is_global)


def imports(code: types.CodeType, package: str) -> list[str]:
    """Return the modules of one package that the code imports when it runs."""
    found: dict[str, None] = {}
    todo = [code]
    while todo:
        current = todo.pop()
        todo.extend(const for const in current.co_consts if isinstance(const, types.CodeType))
        before: list[dis.Instruction] = []
        for instruction in dis.get_instructions(current):
            if instruction.opname == "IMPORT_NAME":
                name = str(instruction.argval)
                level = before[-2].argval if len(before) > 1 else 0
                if level or name.partition(".")[0] == package:
                    found["." * level + name] = None
            before = [*before[-1:], instruction]
    return sorted(found)


def resolve(value: Any, path: tuple[str, ...]) -> tuple[Any, tuple[str, ...]]:
    """Follow attributes as long as they are read from modules; return what is left of the path."""
    while path and isinstance(value, types.ModuleType):
        try:
            value = vars(value)[path[0]]
        except KeyError:
            break
        path = path[1:]
    return value, path


def functions_of(thing: Any) -> list[types.FunctionType]:
    """Return the plain functions that run when a callable is called, or that a class has."""
    thing = unwrapped(thing)
    if isinstance(thing, functools.partial):
        return functions_of(thing.func)
    if isinstance(thing, types.MethodType):
        return functions_of(thing.__func__)
    if isinstance(thing, types.FunctionType):
        return [thing]
    if inspect.isroutine(thing):
        return []
    cls = thing if isinstance(thing, type) else type(thing)
    return [
        function
        for base in cls.__mro__
        if base is not object and package_of(base) == package_of(cls)
        for member in vars(base).values()
        for function in _members(member)
    ]


def _members(member: Any) -> list[types.FunctionType]:
    if isinstance(member, staticmethod | classmethod):
        member = member.__func__
    if isinstance(member, property):
        return [f for f in (member.fget, member.fset) if isinstance(f, types.FunctionType)]
    member = unwrapped(member)
    return [member] if isinstance(member, types.FunctionType) else []


def syntax_of(func: types.FunctionType) -> FunctionTree | None:
    """Return the syntax tree of a function, ``None`` where its source cannot be found.

    It is found by the function's line, and checked against its name and parameters, so
    that a file edited since it was imported is not taken for the code that runs.
    """
    code = func.__code__
    candidates = [
        tree for tree in _functions_at(func).get(code.co_firstlineno, ()) if _fits(tree, code)
    ]
    if not candidates:
        return None
    if len(candidates) == 1 or not isinstance(candidates[0], ast.Lambda):
        return candidates[-1]
    return _lambda_at(candidates, code)


def _functions_at(func: types.FunctionType) -> dict[int, list[FunctionTree]]:
    filename = func.__code__.co_filename
    linecache.checkcache(filename)
    lines = linecache.getlines(filename, func.__globals__)
    if not lines:  # a relative name, and the directory was changed since
        filename = getattr(sys.modules.get(func.__module__ or ""), "__file__", None) or ""
        lines = linecache.getlines(filename) if filename else []
    if not lines:
        return {}
    known = _trees.get(filename)
    if known is not None and known[0] is lines:
        return known[1]
    index: dict[int, list[FunctionTree]] = {}
    try:
        module = ast.parse("".join(lines))
    except (SyntaxError, ValueError, RecursionError):
        return {}
    for node in ast.walk(module):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.decorator_list[0].lineno if node.decorator_list else node.lineno
            index.setdefault(first, []).append(node)
        elif isinstance(node, ast.Lambda):
            index.setdefault(node.lineno, []).append(node)
    while len(_trees) >= _MOST_FILES:
        _trees.pop(next(iter(_trees)))
    _trees[filename] = (lines, index)
    return index


def _fits(tree: FunctionTree, code: types.CodeType) -> bool:
    name = "<lambda>" if isinstance(tree, ast.Lambda) else tree.name
    if name != code.co_name:
        return False
    args = tree.args
    names = [arg.arg for arg in (*args.posonlyargs, *args.args, *args.kwonlyargs)]
    names += [arg.arg for arg in (args.vararg, args.kwarg) if arg is not None]
    return names == list(code.co_varnames[: len(names)])


def _lambda_at(candidates: list[FunctionTree], code: types.CodeType) -> FunctionTree | None:
    """Choose among lambdas that begin on one line the one whose body the code lies in."""
    spots = [
        (line, column)
        for line, _, column, _ in code.co_positions()
        if line is not None and column is not None and (line, column) != (code.co_firstlineno, 0)
    ]
    fitting = []
    for tree in candidates:
        assert isinstance(tree, ast.Lambda)
        body = tree.body
        first = (body.lineno, body.col_offset)
        last = (body.end_lineno or body.lineno, body.end_col_offset or 0)
        if all(first <= spot <= last for spot in spots):
            fitting.append((last[0] - first[0], last[1] - first[1], tree))
    if not fitting:
        return None
    return min(fitting, key=lambda item: item[:2])[2]
