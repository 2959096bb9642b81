"""Names of fields as expressions can write them: `self.__namespace__`, `self.a__dot__b`.

Source: k8s.io/apiserver pkg/cel/escaping.go.
"""

from __future__ import annotations

import re

RESERVED = frozenset(
    ("true", "false", "null", "in", "as", "break", "const", "continue", "else", "for", "function", "if", "import")
    + ("let", "loop", "package", "namespace", "return", "var", "void", "while")
)
_WRITABLE = re.compile(r"[a-zA-Z_./-][a-zA-Z0-9_./-]*")
_MARKS = (("__", "__underscores__"), (".", "__dot__"), ("-", "__dash__"), ("/", "__slash__"))
_MARK = re.compile("__|[./-]")
_ESCAPED = re.compile(r"__(underscores|dot|dash|slash)__")
_RAW = {"underscores": "__", "dot": ".", "dash": "-", "slash": "/"}


def is_escapable(name: str) -> bool:
    return _WRITABLE.fullmatch(name) is not None


def escape_name(name: str) -> str:
    if name in RESERVED:
        return f"__{name}__"
    marks = dict(_MARKS)
    return _MARK.sub(lambda m: marks[m.group()], name)


def unescape_name(name: str) -> str:
    if name.startswith("__") and name.endswith("__") and name[2:-2] in RESERVED:
        return name[2:-2]
    return _ESCAPED.sub(lambda m: _RAW[m[1]], name)
