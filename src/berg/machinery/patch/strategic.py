"""Strategic merge patch: a merge patch that knows, by the type of the object, which lists are merged and by which
key, and that understands directives:

* `$patch: replace | delete | merge` in a map or as an element of a merged list,
* `$retainKeys: [names]`: fields of the map that are not named go,
* `$deleteFromPrimitiveList/NAME: [values]`,
* `$setElementOrder/NAME: [keys]`: order of the list NAME; comes first before the order in the patch, and that
  before the order in the object.

Source: k8s.io/apimachinery pkg/util/strategicpatch; design-proposals-archive/cli/
preserve-order-in-strategic-merge-patch.md.
"""

from __future__ import annotations

from typing import Any

from berg.machinery.codec.json import SyntaxFault, clone
from berg.machinery.patch.fault import Unprocessable, malformed, unexpected
from berg.machinery.status import Obj
from berg.machinery.typedef import Field, TypeDef

_DIRECTIVE = "$patch"
_RETAIN = "$retainKeys"
_DELETE_FROM = "$deleteFromPrimitiveList"
_ORDER = "$setElementOrder"


def apply(doc: Obj, patch: Any, type_: TypeDef) -> Obj:
    """`doc` with `patch`. Shares unchanged parts with `doc`; neither argument is changed. Raises ApiError."""
    return followed(doc, patch, type_)[0]


def followed(doc: Obj, patch: Any, type_: TypeDef) -> tuple[Obj, Obj]:
    """As `apply`, and what is left of the patch when its lists' orders have been followed, which upstream shows."""
    if not isinstance(patch, dict):
        raise malformed("invalid JSON document")
    try:
        own = clone(patch)
    except SyntaxFault as e:
        raise malformed(str(e)) from None
    return _map(doc, own, type_), own


def _field(type_: TypeDef | Field | None, key: str) -> Field | None:
    """How `key` is typed inside `type_`; None where nothing is known (free-form content)."""
    if type_ is None:
        return None
    if isinstance(type_, Field):  # a map by string
        return type_.item
    field = type_.fields.get(key)
    if field is None and not type_.open:
        raise unexpected(f'unable to find api field in struct {type_.short} for the json field "{key}"')
    return field


def _inner(field: Field | None) -> TypeDef | Field | None:
    if field is None:
        return None
    return field if field.type == "map" else field.struct


def _map(original: Obj, patch: Obj, type_: TypeDef | Field | None) -> Obj:
    if _DIRECTIVE in patch:
        return _directive(patch)
    merged = dict(original)
    _retain_keys(merged, patch)
    for key in [k for k in patch if k.startswith(_ORDER)]:
        _ordered_list(merged, key, patch.pop(key), patch, type_)
    for key, value in patch.items():
        deletes = key.startswith(_DELETE_FROM)
        if deletes:
            key = _name_in(key, _DELETE_FROM, "invalid patch format of primitive list")
        if value is None:
            merged.pop(key, None)
            continue
        old = merged.get(key)
        if isinstance(old, dict) and isinstance(value, dict):
            field = _field(type_, key)
            if field is not None and "replace" in field.patch_strategy:
                merged[key] = value
            else:
                merged[key] = _map(old, value, _inner(field))
        elif isinstance(old, list) and isinstance(value, list):
            merged[key] = _list(old, value, _field(type_, key), deletes)
        elif not deletes:
            new, keep = _without_directives(_without_nulls(value))
            if keep:
                merged[key] = new
            else:
                merged.pop(key, None)
    return merged


def _directive(patch: Obj) -> Obj:
    directive = patch[_DIRECTIVE]
    if directive == "replace":
        return {k: v for k, v in patch.items() if k != _DIRECTIVE}
    if directive == "delete":
        return {}
    raise unexpected(f"unknown patch type: {_go_string(directive)} in map: {go_value(patch)}")


def _retain_keys(merged: Obj, patch: Obj) -> None:
    if _RETAIN not in patch:
        return
    keep = patch.pop(_RETAIN)
    if not isinstance(keep, list):
        raise malformed("invalid patch format of retainKeys")
    for key, value in patch.items():
        if value is not None and key not in keep and not key.startswith((_DELETE_FROM, _ORDER)):
            raise malformed("invalid patch format of retainKeys")
    for key in [k for k in merged if k not in keep]:
        del merged[key]


def _name_in(key: str, prefix: str, fault: str) -> str:
    head, slash, name = key.partition("/")
    if not slash or head != prefix:
        raise malformed(fault)
    return name


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _without_nulls(v) for k, v in value.items() if v is not None}
    if isinstance(value, list):
        return [_without_nulls(v) for v in value]
    return value


def _without_directives(value: Any) -> tuple[Any, bool]:
    """A value that is new in the object, without directives; (…, False) when a directive says that it is not there."""
    if isinstance(value, dict):
        if _DIRECTIVE in value:
            return None, False
        pairs = ((k, _without_directives(v)) for k, v in value.items())
        return {k: v for k, (v, keep) in pairs if keep}, True
    if isinstance(value, list):
        return [v for v, keep in map(_without_directives, value) if keep], True
    return value, True


# ---- lists ----------------------------------------------------------------------------------------------


def _list(original: list[Any], patch: list[Any], field: Field | None, deletes: bool) -> list[Any]:
    merges = field is not None and "merge" in field.patch_strategy
    if not merges and not deletes:
        return patch
    if not original and not patch:
        return original
    if not _of_maps(original, patch):
        if deletes:
            return [v for v in original if v not in patch]
        merged = _unique([*original, *patch])
        return _in_order(merged, patch, original, "")
    key = field.patch_key if field else ""
    if not key:
        name = field.item.struct.short if field and field.item and field.item.struct else ""
        raise unexpected(f"cannot merge lists without merge key for {name}")
    original, patch = _special_elements(original, patch, key)
    merged = list(original)
    struct = field.item.struct if field and field.item else None
    for element in patch:
        if key not in element:
            raise unexpected(f"map: {go_value(element)} does not contain declared merge key: {key}")
        at = _find(merged, key, element[key])
        if at < 0:
            merged.append(element)
        else:
            merged[at] = _map(merged[at], element, struct)
    return _in_order(merged, patch, original, key)


def _special_elements(original: list[Any], patch: list[Any], key: str) -> tuple[list[Any], list[Any]]:
    """Carries out `$patch` elements of a patched list; returns the object's list and the patch without them."""
    plain, replace = [], False
    for element in patch:
        directive = element.get(_DIRECTIVE)
        if _DIRECTIVE not in element:
            plain.append(element)
        elif directive == "delete":
            if key not in element:
                raise unexpected(f"map: {go_value(element)} does not contain declared merge key: {key}")
            original = [e for e in original if e.get(key) != element[key] or key not in e]
        elif directive == "replace":
            replace = True
        elif directive == "merge":
            raise unexpected("merging lists cannot yet be specified in the patch")
        else:
            raise unexpected(f"unknown patch type: {_go_string(directive)} in map: {go_value(element)}")
    return (plain, []) if replace else (original, plain)


def _ordered_list(merged: Obj, directive: str, order: Any, patch: Obj, type_: TypeDef | Field | None) -> None:
    """One `$setElementOrder/NAME`: merges the list NAME of the patch, then sorts the result."""
    name = _name_in(directive, _ORDER, "invalid patch format of setElementOrder list")
    old, new = merged.get(name), patch.get(name)
    for given, there in ((order, True), (old, name in merged), (new, name in patch)):
        if there and not isinstance(given, list):
            raise unexpected(f"expected a []interface {{}}, but received a {_go_type(given)}")
    field = _field(type_, name)
    if isinstance(type_, Field) or (field is not None and field.type in ("map", "object")):
        raise unexpected("expected slice or array type, but got: struct")
    key = field.patch_key if field else ""
    if key and (bad := next((i for i, e in enumerate(order) if not isinstance(e, dict)), None)) is not None:
        raise unexpected(f"value for key {bad} is not a map")
    _check_order(new or [], order, key)
    if old is None and new is None:
        return
    if new is None:
        result = list(old or ())
    elif old is None:
        result = _without_directives(_without_nulls(new))[0]
    else:
        result = _list(old, new, field, False)
    patch.pop(name, None)
    merged[name] = _in_order(result, order, old or [], key)


def _check_order(patch: list[Any], order: list[Any], key: str) -> None:
    """What the patch sets must stand in `order`, in the same relative order."""
    if not patch or not order:
        return
    left = [e for e in patch if not (isinstance(e, dict) and _DIRECTIVE in e)]
    at = 0
    for wanted in order:
        if at < len(left) and _same(left[at], wanted, key):
            at += 1
    if at < len(left):
        raise unexpected(
            f"The order in patch list:\n{_go_list(patch)}\n doesn't match {_ORDER} list:\n{_go_list(order)}\n"
        )


def _same(a: Any, b: Any, key: str) -> bool:
    if not key:
        return bool(a == b)
    for element in (a, b):
        if not isinstance(element, dict):
            raise unexpected(f"expected a map[string]interface {{}}, but received a {_go_type(element)}")
        if key not in element:
            raise unexpected(f"map: {go_value(element)} does not contain declared merge key: {key}")
    return bool(a[key] == b[key])


def _in_order(merged: list[Any], patch_order: list[Any], server_order: list[Any], key: str) -> list[Any]:
    """Elements named in `patch_order` in that order, the others where they stood among them on the server."""
    rank = _ranks(patch_order, key)
    server = _ranks(server_order, key)
    named = sorted((e for e in merged if _id(e, key) in rank), key=lambda e: rank[_id(e, key)])
    others = [e for e in merged if _id(e, key) not in rank]
    others.sort(key=lambda e: server.get(_id(e, key), len(server)))
    result: list[Any] = []
    i = j = 0
    while i < len(others) and j < len(named):
        here, there = server.get(_id(others[i], key)), server.get(_id(named[j], key))
        if here is not None and there is not None and here < there:
            result.append(others[i])
            i += 1
        else:
            result.append(named[j])
            j += 1
    return result + others[i:] + named[j:]


def _ranks(order: list[Any], key: str) -> dict[Any, int]:
    ranks: dict[Any, int] = {}
    for i, element in enumerate(order):
        ranks.setdefault(_id(element, key), i)
    return ranks


def _id(element: Any, key: str) -> Any:
    if not key:
        value = element
    elif isinstance(element, dict) and key in element:
        value = element[key]
    else:
        raise unexpected(f"map: {go_value(element)} does not contain declared merge key: {key}")
    return repr(value) if isinstance(value, (dict, list)) else (type(value), value)


def _find(elements: list[Any], key: str, value: Any) -> int:
    for i, element in enumerate(elements):
        if isinstance(element, dict) and key in element and element[key] == value:
            return i
    return -1


def _of_maps(*lists: list[Any]) -> bool:
    kinds = {type(e) for elements in lists for e in elements}
    if len(kinds) > 1:
        raise unexpected(f"list element types are not identical: {_go_list(list(lists))}")
    if list in kinds:
        raise Unprocessable("lists of lists are not supported")
    return dict in kinds


def _unique(values: list[Any]) -> list[Any]:
    seen: dict[Any, Any] = {}
    for value in values:
        seen.setdefault((type(value), value), value)
    return list(seen.values())


def _go_string(value: Any) -> str:
    """Go's `%s`, which complains of what is no text."""
    if isinstance(value, str) or value is None:
        return value if value is not None else "%!s(<nil>)"
    return f"%!s({_go_type(value)}={go_value(value)})" if not isinstance(value, (dict, list)) else go_value(value)


def _go_type(value: Any) -> str:
    names = {dict: "map[string]interface {}", list: "[]interface {}", str: "string", bool: "bool", int: "int64"}
    return "%!s(<nil>)" if value is None else names.get(type(value), "float64")


def go_value(value: Any) -> str:
    """Go's `%v` of a decoded value, keys in order."""
    if isinstance(value, dict):
        return f"map[{' '.join(f'{k}:{go_value(v)}' for k, v in sorted(value.items()))}]"
    if isinstance(value, list):
        return _go_list(value)
    if value is None:
        return "<nil>"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _go_list(values: list[Any]) -> str:
    return f"[{' '.join(map(go_value, values))}]"
