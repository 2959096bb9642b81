"""CEL in the API server's configuration files: what is wrong with an expression, said when the file is read.

Source: k8s.io/apiserver pkg/authentication/cel, pkg/authorization/cel.
"""

from __future__ import annotations

from collections.abc import Iterable

from berg.machinery.cel import CompileError
from berg.machinery.cel.access import compile_over
from berg.machinery.cel.types import BOOL
from berg.machinery.status import FieldError, invalid_value


def compile_fault(text: str, variable: str, path: str, *, condition: bool) -> Iterable[FieldError]:
    """Nothing when it can be used. `variable`: claims, user or request; `condition`: it must say yes or no."""
    try:
        expression = compile_over(variable, text)
    except CompileError as e:
        yield invalid_value(path, text, f"{e.stage}: {e}")
        return
    if condition and expression.result != BOOL:
        but = f" but got {expression.result}" if variable == "request" else ""
        yield invalid_value(path, text, f"must evaluate to bool{but}")
