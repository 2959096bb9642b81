"""From text to a tree: the grammar of CEL with optional syntax, as Kubernetes allows it.

A plain recursive descent; precedences stand in one table. Macros are expanded where their call is read. What is too
deep or too long is refused, so that no expression can exhaust the stack.

Source: cel-spec doc/langdef.md; cel-go's messages and the places they point to.
"""

from __future__ import annotations

import re

from berg.machinery.cel import macros
from berg.machinery.cel.names import RESERVED
from berg.machinery.cel.strings import unescape
from berg.machinery.cel.syntax import Call, Entry, Fault, Ident, List, Literal, Map, Node, Select, Struct
from berg.machinery.cel.values import UInt

_TOKEN = re.compile(
    r"""
    (?P<space>[ \t\r\n\f]+|//[^\n]*)
  | (?P<string>(?:[rR][bB]?|[bB][rR]?)?(?:\"\"\"(?s:.*?(?<!\\))\"\"\"|'''(?s:.*?(?<!\\))'''))
  | (?P<string1>(?:[rR][bB]|[bB][rR]|[rR])(?:"[^"\n\r]*"|'[^'\n\r]*'))
  | (?P<string2>[bB]?(?:"(?:\\.|[^"\\\n\r])*"|'(?:\\.|[^'\\\n\r])*'))
  | (?P<float>\d+\.\d+(?:[eE][+-]?\d+)?|\d+[eE][+-]?\d+|\.\d+(?:[eE][+-]?\d+)?)
  | (?P<int>0x[0-9a-fA-F]+[uU]?|\d+[uU]?)
  | (?P<name>[A-Za-z_][A-Za-z0-9_]*)
  | (?P<quoted>`[A-Za-z0-9_.\-/ ]+`)
  | (?P<op>==|!=|<=|>=|&&|\|\||[-+*/%<>!?:.,(){}\[\]])
""",
    re.VERBOSE,
)
_BINARY = {"==": 3, "!=": 3, "<": 3, "<=": 3, ">": 3, ">=": 3, "in": 3, "+": 4, "-": 4, "*": 5, "/": 5, "%": 5}
_CONSTANTS = frozenset(("true", "false", "null"))
_DEEPEST = 250
_LONGEST = 100_000
_START = (
    "{'[', '{', '(', '.', '-', '!', 'true', 'false', 'null', NUM_FLOAT, NUM_INT, NUM_UINT, STRING, BYTES, IDENTIFIER}"
)

Token = tuple[str, str, int]


def parse(text: str) -> Node:
    """Raises Fault."""
    if len(text) > _LONGEST:
        raise Fault(0, f"expression code point size exceeds limit: size: {len(text)}, limit {_LONGEST}")
    parser = _Parser(text)
    node = parser.expression()
    if parser.kind != "end":
        what = "extraneous" if parser.is_last() else "mismatched"  # without it, all would be well
        raise Fault(parser.at, f"Syntax error: {what} input '{parser.text}' expecting <EOF>")
    return node


class _Parser:
    def __init__(self, text: str) -> None:
        self._tokens = list(_tokens(text))
        self._index = 0
        self._depth = 0
        self.kind, self.text, self.at = self._tokens[0]

    def _next(self) -> Token:
        token = self.kind, self.text, self.at
        self._index += 1
        self.kind, self.text, self.at = self._tokens[self._index]
        return token

    def is_last(self) -> bool:
        return self._tokens[self._index + 1][0] == "end"

    def _is(self, *texts: str) -> bool:
        return self.kind in ("op", "in") and self.text in texts

    def _take(self, text: str, *, after_element: bool = False) -> int:
        if self._is(text):
            return self._next()[2]
        if text in ")" and self.kind == "end":
            raise Fault(self.at, f"Syntax error: missing '{text}' at '<EOF>'")
        wanted = f"{{'{text}', ','}}" if text in "]}" and after_element else f"'{text}'"
        raise Fault(self.at, f"Syntax error: {self._wrong()} expecting {wanted}")

    def _wrong(self) -> str:
        return f"mismatched input '{self.text}'"

    # ---- operators

    def expression(self) -> Node:
        self._depth += 1
        if self._depth > _DEEPEST:
            raise Fault(self.at, f"expression recursion limit exceeded: {_DEEPEST}")
        node = self._or()
        if self._is("?"):
            at = self._next()[2]
            then = self._or()
            self._take(":")
            node = Call(at, "_?_:_", None, [node, then, self.expression()])
        self._depth -= 1
        return node

    def _or(self) -> Node:
        return self._chain("||", self._and)

    def _and(self) -> Node:
        return self._chain("&&", lambda: self._binary(3))

    def _chain(self, operator: str, below: object) -> Node:
        """Long chains become balanced trees, so that they are not deep."""
        assert callable(below)
        terms: list[Node] = [below()]
        places: list[int] = []
        while self._is(operator):
            places.append(self._next()[2])
            terms.append(below())
        return _balanced(f"_{operator}_", terms, places)

    def _binary(self, least: int) -> Node:
        left = self._unary()
        while self.kind in ("op", "in") and (rank := _BINARY.get(self.text, 0)) >= least:
            name, at = self.text, self._next()[2]
            function = "@in" if name == "in" else f"_{name}_"
            left = Call(at, function, None, [left, self._binary(rank + 1)])
        return left

    def _unary(self) -> Node:
        for sign, function in (("!", "!_"), ("-", "-_")):
            if not self._is(sign):
                continue
            places = []
            while self._is(sign):
                places.append(self._next()[2])
            if sign == "-" and len(places) == 1 and self.kind in ("int", "float") and self.text[-1] not in "uU":
                kind, text, _ = self._next()
                return self._members(_number(kind, f"-{text}", places[0]))
            operand = self._members(self._primary())
            return Call(places[0], function, None, [operand]) if len(places) % 2 else operand
        return self._members(self._primary())

    # ---- members

    def _members(self, node: Node) -> Node:
        steps = 0
        while True:
            steps += 1
            if steps > _DEEPEST:
                raise Fault(self.at, f"expression recursion limit exceeded: {_DEEPEST}")
            if self._is("."):
                node = self._member(node)
            elif self._is("["):
                at = self._next()[2]
                optional = self._optional()
                index = self.expression()
                self._take("]")
                node = Call(at, "_[?_]" if optional else "_[_]", None, [node, index])
            else:
                return node

    def _member(self, node: Node) -> Node:
        at = self._next()[2]
        if self._optional():
            name = self._field()
            return Call(at, "_?._", None, [node, Literal(self._tokens[self._index - 1][2], name)])
        if self.kind == "quoted":
            return Select(at, node, self._next()[1][1:-1])
        name = self._field()
        if not self._is("("):
            return Select(at, node, name)
        opening = self._next()[2]
        args = self._arguments(")")
        return macros.expanded(opening, name, node, args) or Call(opening, name, node, args)

    def _optional(self) -> bool:
        if self._is("?"):
            self._next()
            return True
        return False

    def _field(self) -> str:
        if self.kind == "quoted":
            return self._next()[1][1:-1]
        if self.kind != "name" or self.text in _CONSTANTS:
            raise Fault(self.at, f"Syntax error: {self._lacks('IDENTIFIER')}")
        return self._next()[1]

    def _lacks(self, what: str) -> str:
        if self.kind == "end":
            return f"no viable alternative at input '{self._before()}'"
        return f"{self._wrong()} expecting {what}"

    def _before(self) -> str:
        return self._tokens[self._index - 1][1] if self._index else ""

    def _arguments(self, closing: str) -> list[Node]:
        args: list[Node] = []
        while not self._is(closing):
            args.append(self.expression())
            if not self._is(","):
                break
            self._next()
        self._take(closing)
        return args

    # ---- what stands alone

    def _primary(self) -> Node:
        kind, text, at = self.kind, self.text, self.at
        match kind:
            case "int" | "float":
                self._next()
                return _number(kind, text, at)
            case "string":
                self._next()
                return Literal(at, unescape(text, at))
            case "name":
                return self._name()
        if self._is("("):
            self._next()
            inner = self.expression()
            self._take(")")
            return inner
        if self._is("["):
            return self._list()
        if self._is("{"):
            return Map(at, self._entries(names=False))
        if self._is("."):
            self._next()
            if self.kind != "name":
                raise Fault(self.at, f"Syntax error: no viable alternative at input '.{self.text}'")
            return self._name()
        raise Fault(at, f"Syntax error: {self._wrong()} expecting {_START}")

    def _name(self) -> Node:
        if self.kind != "name":
            raise Fault(self.at, f"Syntax error: {self._lacks('IDENTIFIER')}")
        _, text, at = self._next()
        match text:
            case "true" | "false":
                return Literal(at, text == "true")
            case "null":
                return Literal(at, None)
        if text in RESERVED:
            raise Fault(at, f"reserved identifier: {text}")
        if self._is("("):
            opening = self._next()[2]
            args = self._arguments(")")
            return macros.expanded(opening, text, None, args) or Call(opening, text, None, args)
        if self._begins_struct():
            return self._struct(text)
        return Ident(at, text)

    def _begins_struct(self) -> bool:
        """`a.b.C {`: only then are dots part of a type's name."""
        i = self._index
        while self._tokens[i][1] == "." and self._tokens[i + 1][0] == "name":
            i += 2
        return self._tokens[i][0] == "op" and self._tokens[i][1] == "{"

    def _struct(self, name: str) -> Node:
        while not self._is("{"):
            self._next()
            name += f".{self._next()[1]}"
        return Struct(self.at, name, self._entries(names=True))

    def _list(self) -> Node:
        at = self._next()[2]
        elements: list[Node] = []
        optional: set[int] = set()
        while not self._is("]"):
            if self._optional():
                optional.add(len(elements))
            elements.append(self.expression())
            if not self._is(","):
                break
            self._next()
        self._take("]", after_element=bool(elements))
        return List(at, elements, frozenset(optional))

    def _entries(self, *, names: bool) -> list[Entry]:
        self._take("{")
        entries = []
        while not self._is("}"):
            optional = self._optional()
            key: Node | str
            if names:
                key = self._field()
            else:
                key = self.expression()
            at = self._take(":")
            entries.append(Entry(at, key, self.expression(), optional))
            if not self._is(","):
                break
            self._next()
        self._take("}")
        return entries


def _balanced(function: str, terms: list[Node], places: list[int]) -> Node:
    if len(terms) == 1:
        return terms[0]
    middle = (len(terms) + 1) // 2
    left = _balanced(function, terms[:middle], places[: middle - 1])
    right = _balanced(function, terms[middle:], places[middle:])
    return Call(places[middle - 1], function, None, [left, right])


def _tokens(text: str) -> list[Token]:
    found: list[Token] = []
    at = 0
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            raise Fault(at, f"Syntax error: token recognition error at: '{text[at : at + 1]}'")
        kind = str(match.lastgroup)
        if kind != "space":
            word = match.group()
            if kind.startswith("string"):
                kind = "string"
            found.append(("in" if word == "in" else kind, word, at))
        at = match.end()
    found.append(("end", "<EOF>", len(text)))
    found.append(("end", "<EOF>", len(text)))
    return found


def _number(kind: str, text: str, at: int) -> Literal:
    if kind == "float":
        return Literal(at, float(text))
    unsigned = text[-1] in "uU"
    value = int(text[:-1] if unsigned else text, 16 if "x" in text else 10)
    if unsigned:
        if value >= 1 << 64:
            raise Fault(at, "invalid uint literal")
        return Literal(at, UInt(value))
    if not -(1 << 63) <= value < 1 << 63:
        raise Fault(at, "invalid int literal")
    return Literal(at, value)
