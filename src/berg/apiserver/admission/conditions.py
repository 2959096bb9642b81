"""Expressions of webhooks and policies over a request: its variables, evaluated when first asked for, and the match
conditions that decide whether a hook is called at all.

All expressions of one scope share a budget; what goes beyond it is a fault, so that no policy holds up the server.

Source: k8s.io/apiserver pkg/admission/plugin/cel, pkg/admission/plugin/webhook/matchconditions.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from time import perf_counter
from typing import TYPE_CHECKING, Any

from berg.machinery import turns
from berg.machinery.status import Obj

if TYPE_CHECKING:
    from berg.apiserver.admission.figures import Told
    from berg.machinery.cel.library.authorizer import Ask


class Fault(Exception):
    """An expression could not be compiled or evaluated, in upstream's words."""


class OutOfBudget(Fault):
    """Nothing more may be asked."""

    def __init__(self) -> None:
        super().__init__("validation failed due to running out of cost budget, no further validation rules will be run")


class Scope:
    """What expressions see. Named variables are evaluated once, when an expression mentions them."""

    __slots__ = ("_budget", "_definitions", "_variables", "ask", "base")

    def __init__(
        self, base: Mapping[str, Any], definitions: Iterable[Obj] = (), ask: Ask | None = None, budget: int = 0
    ) -> None:
        from berg.machinery.cel.meter import PER_REQUEST

        self.ask = ask
        self._budget = budget or PER_REQUEST
        self._definitions = tuple((d["name"], d["expression"]) for d in definitions)
        self.base = dict(base)
        if self._definitions:
            self.base["variables"] = _variables(self)

    def evaluate(self, text: str, *, mutating: bool = False) -> Any:
        """Raises Fault."""
        from berg.machinery.cel import CompileError, CostExceeded, EvaluationError
        from berg.machinery.cel.admission import for_request

        try:
            expression = for_request(text, variables=self._definitions, mutating=mutating)
        except CompileError as e:
            raise Fault(f"compilation error: {e}") from None
        if self._budget <= 0:
            raise OutOfBudget
        try:
            value, cost = expression.measured(self.base, ask=self.ask)
        except EvaluationError as e:
            self._budget -= e.cost
            if isinstance(e, CostExceeded):
                self._budget = 0
            raise Fault(f"expression '{text}' resulted in error: {e}") from None
        self._budget -= cost
        return value

    def variable(self, name: str) -> Any:
        """Raises EvaluationError."""
        from berg.machinery.cel import EvaluationError

        text = dict(self._definitions).get(name)
        if text is None:
            raise EvaluationError(f"no such key: {name}")
        try:
            return self.evaluate(text)
        except Fault as e:
            why = str(e).partition("resulted in error: ")[2] or str(e)
            raise EvaluationError(f'composited variable "{name}" fails to evaluate: {why}') from None


def _variables(scope: Scope) -> Any:
    from berg.machinery.cel import EvaluationError
    from berg.machinery.cel.values import Record

    class Variables(Record):
        __slots__ = ("_found",)

        def __init__(self) -> None:
            self._found: dict[str, Any] = {}

        def has(self, name: str) -> bool:
            return any(name == known for known, _ in scope._definitions)

        def get(self, name: str) -> Any:
            if name not in self._found:
                try:
                    self._found[name] = scope.variable(name)
                except EvaluationError as e:
                    self._found[name] = e
            found = self._found[name]
            if isinstance(found, EvaluationError):
                raise found
            return found

    return Variables()


async def hold(
    conditions: Sequence[Obj], base: Mapping[str, Any], ask: Ask | None, *, ignore: bool, told: Told
) -> bool:
    """Whether all conditions hold. One that is false decides; else a fault does, by raising Fault or, when the
    failure policy is Ignore, by not holding."""
    if not conditions:
        return True
    started = perf_counter()
    faults, excluded = await turns.taken(lambda: _judged(conditions, base, ask))
    told(perf_counter() - started, len(faults))
    if not faults and not excluded:
        return True
    if faults and not excluded and not ignore:
        each = list(dict.fromkeys(faults))
        raise Fault(each[0] if len(each) == 1 else f"[{', '.join(each)}]")
    return False


def _judged(conditions: Sequence[Obj], base: Mapping[str, Any], ask: Ask | None) -> tuple[list[str], bool]:
    """The faults up to the first condition that does not hold, and whether there is one."""
    from berg.machinery.cel.meter import PER_CONDITIONS

    scope = Scope(base, ask=ask, budget=PER_CONDITIONS)
    faults: list[str] = []
    for condition in conditions:
        try:
            if scope.evaluate(condition["expression"]) is False:
                return faults, True
        except OutOfBudget as e:
            return [str(e)], False
        except Fault as e:
            faults.append(str(e))
    return faults, False
