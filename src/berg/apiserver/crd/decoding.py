"""A custom resource's body made canonical: metadata as every object has it, the rest pruned, freed of nulls and
defaulted by the schema of its version.

Source: k8s.io/apiextensions-apiserver pkg/apiserver (schemaCoercingDecoder, unstructuredDefaulter).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from berg.machinery import schema
from berg.machinery.resources import Resource
from berg.machinery.status import Obj

if TYPE_CHECKING:
    from berg.apiserver.registry.registry import Registry


def canonical(registry: Registry, obj: Obj, resource: Resource) -> list[str]:
    """In place; returns what strict decoding complains of. Raises ApiError 400 for malformed metadata."""
    from berg.apiserver.crd import embedding
    from berg.apiserver.crd.strategy import CustomStrategy
    from berg.apiserver.registry.decoding import cannot_handle

    type_ = registry.custom_types[resource.version]
    meta = obj.get("metadata")
    if meta is not None:
        if not isinstance(meta, dict):
            raise cannot_handle(resource, embedding.not_metadata(meta))
        try:
            unknown = [f"metadata.{p}" for p in schema.decode(schema.object_meta(), meta)]
        except schema.WrongType as e:
            raise cannot_handle(resource, str(e)) from None
    else:
        unknown = []
        obj["metadata"] = {}
    pruned = schema.prune(type_, obj)
    strategy = registry.strategy
    assert isinstance(strategy, CustomStrategy)
    version = strategy.versions[resource.version]
    if version.embeds:
        heads = tuple(f"{path}.metadata." for _, path in embedding.walk(obj, version.schema))
        pruned.sort(key=lambda path: path.startswith(heads))  # what is embedded is looked at later
        try:
            pruned += embedding.coerce(obj, version.schema)
        except embedding.Unfit as e:
            raise cannot_handle(resource, str(e)) from None
    unknown += pruned
    schema.drop_nulls(type_, obj)
    schema.default(type_, obj)
    return [f'unknown field "{path}"' for path in unknown]
