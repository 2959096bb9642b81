"""What is known about kinds, and what is done with it generically. The front door of four rooms:

* `typedef`: `TypeDef`, `Field`; the built-in types, read lazily from the bundle;
* `structural`: CRDs' schemas as the same `TypeDef`s;
* `decode`: built-in objects checked and made canonical as upstream's typed decoding does;
* `prune`: pruning, defaulting and null removal by schema (custom resources).
"""

from __future__ import annotations

from berg.machinery.decode import WrongType, decode, validate_types, zero
from berg.machinery.prune import default, drop_nulls, prune
from berg.machinery.structural import field_of_schema, type_of_crd
from berg.machinery.typedef import Field, TypeDef, object_meta, type_named, type_of

__all__ = [
    "Field",
    "TypeDef",
    "WrongType",
    "decode",
    "default",
    "drop_nulls",
    "field_of_schema",
    "object_meta",
    "prune",
    "type_named",
    "type_of",
    "type_of_crd",
    "validate_types",
    "zero",
]
