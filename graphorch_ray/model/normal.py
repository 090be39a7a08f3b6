"""Writes code down as nested lists of strings, without what has no effect on what it does."""

from __future__ import annotations

import ast
import dis
import json
import types
from typing import Any

from . import actions

__all__ = ["bytecode_token", "syntax_token"]

_OWN_DECORATORS = frozenset({"node_action", "tool_method", "aggregator_action", "routing_function"})


def syntax_token(tree: ast.AST, names: dict[str, Any]) -> Any:
    """Return a syntax tree as lists, without what has no effect.

    Fields that are empty are left out, so that a field new in some Python version, empty
    here, changes nothing.
    """
    if isinstance(tree, ast.Constant):
        return ["Constant", type(tree.value).__name__, _constant(tree.value)]
    token: list[Any] = [type(tree).__name__]
    for name, value in ast.iter_fields(tree):
        if name in ("ctx", "annotation", "returns", "type_comment", "type_params", "kind"):
            continue
        if name == "decorator_list":
            value = [item for item in value if not _is_own_decorator(item, names)]
        elif name == "body" and isinstance(value, list):
            value = [item for item in value if not _is_idle(item)]
        if value is None or value == []:
            continue
        if isinstance(value, list):
            items = [syntax_token(v, names) if isinstance(v, ast.AST) else repr(v) for v in value]
            token.append([name, items])
        elif isinstance(value, ast.AST):
            token.append([name, syntax_token(value, names)])
        else:
            token.append([name, repr(value)])
    return token


def _is_idle(statement: ast.AST) -> bool:
    return isinstance(statement, ast.Pass) or (
        isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
    )


def _is_own_decorator(tree: ast.expr, names: dict[str, Any]) -> bool:
    target = tree.func if isinstance(tree, ast.Call) else tree
    if isinstance(target, ast.Attribute):
        return target.attr in _OWN_DECORATORS
    if not isinstance(target, ast.Name):
        return False
    found = names.get(target.id)
    if found is None:
        return target.id in _OWN_DECORATORS
    own = getattr(found, "__module__", "") == actions.__name__
    return own and getattr(found, "__name__", "") in _OWN_DECORATORS


def _constant(value: Any) -> Any:
    if isinstance(value, tuple):
        return [[type(item).__name__, _constant(item)] for item in value]
    if isinstance(value, frozenset):
        return sorted(json.dumps([type(item).__name__, _constant(item)]) for item in value)
    return repr(value)


def bytecode_token(code: types.CodeType) -> Any:
    """Return the instructions as lists; without lines, and with constants by value."""
    instructions = []
    for instruction in dis.get_instructions(code):
        argument = instruction.argval
        if isinstance(argument, types.CodeType):
            argument = bytecode_token(argument)
        else:
            argument = [type(argument).__name__, _constant(argument)]
        instructions.append([instruction.opname, argument])
    names = list(code.co_varnames[: code.co_argcount + code.co_kwonlyargcount])
    return ["bytecode", names, code.co_flags, instructions]
