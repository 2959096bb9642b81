"""Compiling and evaluating expressions with Kubernetes' functions.

An expression is compiled once. Evaluating it takes the variables as plain Python values; objects are maps, fields
whose names CEL reserves are reached by their escaped names (`self.__namespace__`), which the variables get here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache, lru_cache
from typing import Any

from berg.apiserver.cel.rewrite import rewrite

_RESERVED = frozenset(
    [
        "true",
        "false",
        "null",
        "in",
        "as",
        "break",
        "const",
        "continue",
        "else",
        "for",
        "function",
        "if",
        "import",
        "let",
        "loop",
        "package",
        "namespace",
        "return",
        "var",
        "void",
        "while",
    ]
)
_ESCAPED = re.compile(r"__(?:[a-z]+|underscores|dot|dash|slash)__")


class CompileError(ValueError):
    """Not CEL."""


class EvaluationError(Exception):
    """It could not be evaluated for these values."""


class Expression:
    __slots__ = ("_escapes", "_program", "text", "variables")

    def __init__(self, text: str) -> None:
        import cel  # takes its time to load, so only where an expression is

        self.text = text
        try:
            self._program = cel.compile(rewrite(text))
        except (ValueError, RuntimeError) as e:
            raise CompileError(str(e)) from None
        self._escapes = _ESCAPED.search(text) is not None
        self.variables = frozenset(self._program.variables())

    def evaluate(self, variables: Mapping[str, Any]) -> Any:
        """Raises EvaluationError."""
        import cel

        values = {k: escape(v) if self._escapes else v for k, v in variables.items()}
        context = cel.Context(values, dict(_functions()))
        try:
            return self._program.execute(context)
        except KeyError as e:
            raise EvaluationError(f"no such key: {e.args[0] if e.args else ''}") from None
        except Exception as e:
            raise EvaluationError(str(e)) from None


@lru_cache(maxsize=4096)
def compile_expression(text: str) -> Expression:
    """Raises CompileError."""
    return Expression(text)


@cache
def _functions() -> dict[str, Any]:
    import cel
    from cel import stdlib

    from berg.apiserver.cel.functions import all_functions

    context = cel.Context()
    stdlib.add_stdlib_to_context(context)
    return {**context.functions, **all_functions()}


def escape(value: Any) -> Any:
    """Maps with their keys as CEL identifiers can name them."""
    if isinstance(value, dict):
        return {escape_name(k): escape(v) for k, v in value.items()}
    if isinstance(value, list):
        return [escape(v) for v in value]
    return value


def escape_name(name: str) -> str:
    if name in _RESERVED:
        return f"__{name}__"
    if not any(c in name for c in ".-/") and "__" not in name:
        return name
    for raw, shown in (("__", "__underscores__"), (".", "__dot__"), ("-", "__dash__"), ("/", "__slash__")):
        name = name.replace(raw, shown)
    return name
