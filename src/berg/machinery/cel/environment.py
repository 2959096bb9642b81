"""Where an expression is compiled: which variables there are, of which types, and which functions.

Source: k8s.io/apiserver pkg/cel/environment.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from berg.machinery.cel import estimate, syntax
from berg.machinery.cel.checker import check
from berg.machinery.cel.declarations import ONLY_MUTATING
from berg.machinery.cel.meter import PER_CALL
from berg.machinery.cel.parser import parse
from berg.machinery.cel.syntax import Call, Fault, Ident, Literal, Node, Select
from berg.machinery.cel.types import Type
from berg.machinery.cel.values import CostExceeded, EvaluationError
from berg.machinery.turns import TooLong, allowance


class CompileError(ValueError):
    """Not an expression, or not one of these types: all faults, as cel-go shows them."""

    stage = "compilation failed"


class ProgramError(CompileError):
    """Well typed, and yet nothing that could be evaluated."""

    stage = "program instantiation failed"


class Environment:
    """Compiling keeps nothing: who compiles the same again and again keeps the expressions."""

    def __init__(
        self, variables: Mapping[str, Type], *, structs: Mapping[str, Type] | None = None, mutating: bool = False
    ) -> None:
        self.variables = variables
        self.structs = structs or {}
        self._without = frozenset() if mutating else ONLY_MUTATING

    def compile(self, text: str) -> Expression:
        """Raises CompileError."""
        try:
            node = parse(text)
            names = _names(node)
            faults = check(node, self.variables, self.structs, self._without) or [*_mixed(node), *_bad_literals(node)]
        except Fault as e:
            faults = [e]
        except RecursionError:
            raise CompileError("ERROR: <input>:-1:0: expression recursion limit exceeded: 250") from None
        if faults:
            raise CompileError(syntax.shown(text, faults))
        _search_patterns(node)
        return Expression(text, node, names, self.variables)


class Expression:
    __slots__ = ("_node", "_run", "_variables", "names", "result", "text")

    def __init__(self, text: str, node: Node, names: frozenset[str], variables: Mapping[str, Type]) -> None:
        self.text = text
        self.names = names
        """every name that it mentions"""
        self.result = node.type
        self._node = node
        self._variables = variables
        self._run: Callable[[Any], Any] | None = None

    def worst_cost(self) -> int:
        """The most that evaluating it can cost, by what is known of its variables' sizes."""
        return estimate.worst(self._node, {n: t.shape for n, t in self._variables.items() if t.shape is not None})

    def evaluate(self, variables: Mapping[str, Any], *, limit: int = PER_CALL, ask: Any = None) -> Any:
        """Raises EvaluationError."""
        return self.measured(variables, limit=limit, ask=ask)[0]

    def measured(self, variables: Mapping[str, Any], *, limit: int = PER_CALL, ask: Any = None) -> tuple[Any, int]:
        """Value and cost. Raises EvaluationError, which then says its cost."""
        from berg.machinery.cel.evaluate import Frame, program

        if self._run is None:
            self._run = program(self._node)
        allowed = allowance.get()
        frame = Frame(variables, limit if allowed is None else min(limit, allowed.left), ask)
        try:
            value = self._run(frame)
            if frame.cost > frame.limit:
                raise CostExceeded
        except EvaluationError as e:
            if frame.limit < limit and frame.cost > frame.limit:
                raise TooLong from None
            e.cost = frame.cost
            raise
        except RecursionError:
            raise EvaluationError("expression recursion limit exceeded") from None
        except (TypeError, AttributeError, ValueError, OverflowError) as e:
            failed = EvaluationError(f"no such overload: {e}")
            failed.cost = frame.cost
            raise failed from None
        finally:
            if allowed is not None:
                allowed.left -= frame.cost
        return value, frame.cost


def _names(node: Node) -> frozenset[str]:
    found: set[str] = set()
    for each in walk(node):
        if isinstance(each, Ident):
            found.add(each.name)
        elif isinstance(each, Select) and isinstance(each.operand, Ident):
            found.add(f"{each.operand.name}.{each.name}")
    return frozenset(found)


def walk(node: Node) -> list[Node]:
    """Every node of the tree."""
    found: list[Node] = []
    left = [node]
    while left:
        each = left.pop()
        found.append(each)
        match each:
            case Select():
                left.append(each.operand)
            case Call():
                left += each.args
                if each.target is not None:
                    left.append(each.target)
            case syntax.List():
                left += each.elements
            case syntax.Map():
                left += [n for e in each.entries for n in (e.key, e.value)]
            case syntax.Struct():
                left += [e.value for e in each.entries]
            case syntax.Comprehension():
                left += [each.range, each.init, each.condition, each.step, each.result]
    return found


# ---- what is well typed and yet refused


def _mixed(node: Node) -> list[Fault]:
    """Lists and maps written out are of one type, except what is to be formatted."""
    nodes = walk(node)
    formats = [each for each in nodes if isinstance(each, Call) and each.function == "format"]
    exempt = {id(inner) for call in formats for inner in walk(call)}
    faults: list[Fault] = []
    for each in nodes:
        if id(each) in exempt:
            continue
        if isinstance(each, syntax.List):
            elements = [(e, e.type.params[0] if i in each.optional else e.type) for i, e in enumerate(each.elements)]
            faults += _unlike(elements)[:1]
        elif isinstance(each, syntax.Map):
            faults += _unlike([(e.key, e.key.type) for e in each.entries])
            values = [(e.value, e.value.type.params[0] if e.optional else e.value.type) for e in each.entries]
            faults += _unlike(values)
    return faults


def _unlike(elements: list[tuple[Node, Type]]) -> list[Fault]:
    first = elements[0][1] if elements else None
    return [Fault(e.at, f"expected type '{first}' but found '{t}'") for e, t in elements if t != first]


def _bad_literals(node: Node) -> list[Fault]:
    faults = []
    for each in walk(node):
        if not isinstance(each, Call) or each.function not in _LITERAL or not each.args:
            continue
        arg = each.args[-1]
        if isinstance(arg, Literal) and type(arg.value) in (str, int) and not _LITERAL[each.function](arg.value):
            faults.append(Fault(arg.at, f"invalid {each.function} argument"))
    return faults


def _search_patterns(node: Node) -> None:
    """Raises ProgramError."""
    from berg.machinery import regexp

    for each in walk(node):
        if isinstance(each, Call) and each.function in ("find", "findAll") and isinstance(each.args[0], Literal):
            try:
                regexp.compile(each.args[0].value)
            except ValueError as e:
                raise ProgramError(str(e)) from None


def _is_duration(given: str | int) -> bool:
    from berg.machinery.cel.library import times

    return isinstance(given, int) or _holds(times.duration, given)


def _is_timestamp(given: str | int) -> bool:
    from berg.machinery.cel.library import times

    return _holds(times.timestamp if isinstance(given, str) else times.timestamp_of_seconds, given)


def _is_pattern(given: str | int) -> bool:
    from berg.machinery import regexp

    return _holds(regexp.compile, given)


def _holds(read: Callable[[Any], Any], given: str | int) -> bool:
    try:
        read(given)
    except (EvaluationError, ValueError):
        return False
    return True


_LITERAL = {"duration": _is_duration, "timestamp": _is_timestamp, "matches": _is_pattern}
