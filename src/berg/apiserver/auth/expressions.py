"""CEL in the API server's configuration files: what is wrong with an expression, said when the file is read.

Names are checked here, types are not: an expression that gives a value of the wrong type is told when it is used.

Source: k8s.io/apiserver pkg/authentication/cel, pkg/authorization/cel.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from berg.machinery.status import FieldError, invalid_value

_FIELDS = {
    "user": ("username", "uid", "groups", "extra"),
    "request": ("user", "groups", "extra", "uid", "resourceAttributes", "nonResourceAttributes"),
}
"""what there is below a variable of a known type"""


def compile_fault(text: str, variable: str, path: str) -> Iterable[FieldError]:
    """Nothing when the expression compiles and knows no other name than `variable`."""
    from berg.apiserver.cel import CompileError, compile_expression

    try:
        expression = compile_expression(text)
    except CompileError as e:
        yield invalid_value(path, text, f"compilation failed: {e}")
        return
    for name in sorted(expression.variables - {variable}):
        found = re.search(rf"\b{re.escape(name)}\b", text)
        told = f"undeclared reference to '{name}' (in container '')"
        yield invalid_value(path, text, _error(text, found.start() if found else 0, told))
        return
    for found in re.finditer(rf"\b{variable}(\.)([A-Za-z_]\w*)", text) if variable in _FIELDS else ():
        if found[2] not in _FIELDS[variable]:
            yield invalid_value(path, text, _error(text, found.start(1), f"undefined field '{found[2]}'"))
            return


def _error(text: str, column: int, told: str) -> str:
    """As cel-go shows the place of an error."""
    return f"compilation failed: ERROR: <input>:1:{column + 1}: {told}\n | {text}\n | {'.' * column}^"
