"""Expressions of webhooks and policies over a request: its variables, evaluated when first asked for, and the match
conditions that decide whether a hook is called at all.

Source: k8s.io/apiserver pkg/admission/plugin/cel, pkg/admission/plugin/webhook/matchconditions.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from berg.apiserver.cel import CompileError, EvaluationError, compile_expression
from berg.apiserver.cel.authorizer import ASKING, Ask
from berg.machinery.status import Obj

_VARIABLE = re.compile(r"\bvariables\.([A-Za-z_]\w*)")


class Fault(Exception):
    """An expression could not be compiled or evaluated, in upstream's words."""


class Scope:
    """What expressions see. Named variables are evaluated once, when an expression mentions them."""

    __slots__ = ("_definitions", "_faults", "_found", "ask", "base")

    def __init__(self, base: Mapping[str, Any], definitions: Iterable[Obj] = (), ask: Ask | None = None) -> None:
        self.base = dict(base)
        self.ask = ask
        self._definitions = {d["name"]: d["expression"] for d in definitions}
        self._found: dict[str, Any] = {}
        self._faults: dict[str, str] = {}

    def evaluate(self, text: str) -> Any:
        """Raises Fault."""
        try:
            expression = compile_expression(text)
        except CompileError as e:
            raise Fault(f"compilation error: {e}") from None
        variables = self.base
        mentioned = _VARIABLE.findall(text) if self._definitions else ()
        if mentioned:
            variables = {**variables, "variables": {n: self._variable(n, text) for n in mentioned}}
        token = ASKING.set(self.ask)
        try:
            return expression.evaluate(variables)
        except EvaluationError as e:
            raise Fault(f"expression '{text}' resulted in error: {e}") from None
        finally:
            ASKING.reset(token)

    def _variable(self, name: str, text: str) -> Any:
        if name in self._found:
            return self._found[name]
        if name not in self._definitions:
            raise Fault(f"compilation error: undefined field '{name}'")
        if name not in self._faults:
            try:
                value = self._found[name] = self.evaluate(self._definitions[name])
            except Fault as e:
                self._faults[name] = str(e).partition("resulted in error: ")[2] or str(e)
            else:
                return value
        why = f'composited variable "{name}" fails to evaluate: {self._faults[name]}'
        raise Fault(f"expression '{text}' resulted in error: {why}")


def hold(conditions: Iterable[Obj], scope: Scope, *, ignore: bool) -> bool:
    """Whether all conditions hold. One that is false decides; else a fault does, by raising Fault or, when the
    failure policy is Ignore, by not holding."""
    faults: list[str] = []
    for condition in conditions:
        try:
            if scope.evaluate(condition["expression"]) is False:
                return False
        except Fault as e:
            faults.append(str(e))
    if not faults:
        return True
    if ignore:
        return False
    raise Fault(faults[0] if len(faults) == 1 else f"[{', '.join(faults)}]")
