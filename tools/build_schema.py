"""Builds the schema bundle: `src/berg/machinery/data/types.json`, `types_old.json` and
`resources.json`.

    python tools/build_schema.py --facts DIR [--go DIR]

From the facts in DIR (discovery-v1.36.json, protobuf.json), from the PyPI packages `kubernetes-validate` (the
types of v1.37) and `kubernetes` (every path and verb of v1.37), and, when `--go` names a directory that holds
Kubernetes' Go packages by import path (k8s.io/api/…), from the declarations of the structs there (which field
is a pointer, which is omitted when empty, what a named type is called in messages). Names, types and numbers
only: no prose goes into the bundle. How a line of the bundle reads is said in `berg/machinery/bundle.py`.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import re
from collections import defaultdict
from pathlib import Path
from typing import Any

OUT = Path(__file__).parent.parent / "src/berg/machinery/data"
VALIDATE = "kubernetes-json-schema/v1.37.0-local/_definitions.json"
META = "io.k8s.apimachinery.pkg.apis.meta.v1."
EXTENSIONS = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1."

WIRE = {
    "io.k8s.apimachinery.pkg.api.resource.Quantity": "quantity",
    META + "Time": "time",
    META + "MicroTime": "microtime",
    META + "Duration": "duration",
    META + "FieldsV1": "fieldsv1",
    "io.k8s.apimachinery.pkg.runtime.RawExtension": "raw",
    "io.k8s.apimachinery.pkg.util.intstr.IntOrString": "intorstring",
    EXTENSIONS + "JSON": "json",
    EXTENSIONS + "JSONSchemaPropsOrArray": "schemaorarray",
    EXTENSIONS + "JSONSchemaPropsOrBool": "schemaorbool",
    EXTENSIONS + "JSONSchemaPropsOrStringArray": "schemaorstrings",
}
WIRE |= {n.replace(".v1.", ".v1beta1."): w for n, w in WIRE.items() if n.startswith(EXTENSIONS)}
SCALARS = {
    ("string", None): "string",
    ("string", "byte"): "bytes",
    ("integer", "int32"): "int32",
    ("integer", "int64"): "int64",
    ("number", "double"): "double",
    ("boolean", None): "bool",
    ("object", None): "json",
}
NAMED = ("string", "int32", "int64", "bool", "double")
"""scalars that may have a name of their own in Go"""
EXTRA_PACKAGES = (  # messages that no path of the OpenAPI document mentions, but that travel
    "io.k8s.api.admission.v1.",
    "io.k8s.api.apidiscovery.",
    "io.k8s.api.core.v1.",
    META,
    "io.k8s.metrics.pkg.apis.",
)
OLD_IGNORED = (
    "io.k8s.apimachinery.pkg.",
    "io.k8s.api.imagepolicy.",
    "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.",
)
DEFAULTS = {  # declared with the type; upstream's key fields of list maps depend on some of them
    "core.v1.AzureDiskVolumeSource": {"cachingMode": "ReadWrite", "fsType": "ext4", "kind": "Shared"},
    "core.v1.ContainerPort": {"protocol": "TCP"},
    "core.v1.ISCSIPersistentVolumeSource": {"iscsiInterface": "default"},
    "core.v1.ISCSIVolumeSource": {"iscsiInterface": "default"},
    "core.v1.RBDPersistentVolumeSource": {"keyring": "/etc/ceph/keyring", "pool": "rbd", "user": "admin"},
    "core.v1.RBDVolumeSource": {"keyring": "/etc/ceph/keyring", "pool": "rbd", "user": "admin"},
    "core.v1.ReplicationControllerSpec": {"replicas": 1},
    "core.v1.ScaleIOPersistentVolumeSource": {"fsType": "xfs", "storageMode": "ThinProvisioned"},
    "core.v1.ScaleIOVolumeSource": {"fsType": "xfs", "storageMode": "ThinProvisioned"},
    "core.v1.ServicePort": {"protocol": "TCP"},
    "certificates.v1.PodCertificateRequestSpec": {"maxExpirationSeconds": 86400},
    "certificates.v1beta1.PodCertificateRequestSpec": {"maxExpirationSeconds": 86400},
    "resource.v1.DeviceToleration": {"operator": "Equal"},
    "resource.v1beta1.DeviceToleration": {"operator": "Equal"},
    "resource.v1beta2.DeviceToleration": {"operator": "Equal"},
    "resource.v1alpha3.ResourcePoolStatusRequestSpec": {"limit": 100},
}

# The legacy group is not in the facts' discovery file: plural -> (short names, categories).
CORE_NAMES: dict[str, tuple[list[str], list[str]]] = {
    "componentstatuses": (["cs"], []),
    "configmaps": (["cm"], []),
    "endpoints": (["ep"], []),
    "events": (["ev"], []),
    "limitranges": (["limits"], []),
    "namespaces": (["ns"], []),
    "nodes": (["no"], []),
    "persistentvolumeclaims": (["pvc"], []),
    "persistentvolumes": (["pv"], []),
    "pods": (["po"], ["all"]),
    "replicationcontrollers": (["rc"], ["all"]),
    "resourcequotas": (["quota"], []),
    "serviceaccounts": (["sa"], []),
    "services": (["svc"], ["all"]),
}
CONNECT_KINDS = {"exec": "PodExecOptions", "attach": "PodAttachOptions", "portforward": "PodPortForwardOptions"}
PROXY_KINDS = {"nodes": "NodeProxyOptions", "pods": "PodProxyOptions", "services": "ServiceProxyOptions"}


def package_file(package: str, path: str) -> Path:
    spec = importlib.util.find_spec(package)
    assert spec and spec.origin
    return Path(spec.origin).parent / path


# ---- types ----------------------------------------------------------------------------------------------


def proto_name(openapi_name: str) -> str:
    return "k8s.io." + openapi_name.removeprefix("io.k8s.").replace("-apiserver", "_apiserver").replace(
        "kube-aggregator", "kube_aggregator"
    )


def openapi_name(proto: str) -> str:
    return "io.k8s." + proto.removeprefix("k8s.io.").replace("_apiserver", "-apiserver").replace(
        "kube_aggregator", "kube-aggregator"
    )


class GoSource:
    """The structs of Kubernetes' API packages: `field(type, json name)` -> (Go type, options of its json tag)."""

    PATTERN = re.compile(r'^\t(?:(\w+)\s+)?([\w.*\[\]]+)\s+`(?:[^`]*\s)?json:"([^"]*)"', re.M)

    def __init__(self, root: Path | None) -> None:
        self.root = root
        self.packages: dict[str, dict[str, str]] = {}

    def structs(self, package: str) -> dict[str, str]:
        if package not in self.packages:
            found = {}
            # io.k8s.api.apps.v1 -> k8s.io/api/apps/v1
            path = "k8s.io/" + package.removeprefix("io.k8s.").replace(".", "/")
            for file in sorted((self.root / path).glob("*.go")) if self.root else []:
                if file.name.startswith("zz_") or file.name.endswith("_test.go") or ".pb." in file.name:
                    continue
                text = file.read_text()
                for m in re.finditer(r"^type (\w+) struct \{\n(.*?)^\}", text, re.M | re.S):
                    found[m[1]] = m[2]
                for m in re.finditer(r"^type (\w+) ([\w.\[\]]+)$", text, re.M):
                    found.setdefault("=" + m[1], m[2])
            self.packages[package] = found
        return self.packages[package]

    def fields(self, package: str, name: str) -> dict[str, tuple[str, list[str]]]:
        body = self.structs(package).get(name)
        result: dict[str, tuple[str, list[str]]] = {}
        for _, go_type, tag in self.PATTERN.findall(body or ""):
            json_name, *options = tag.split(",")
            if json_name:
                result[json_name] = (go_type, options)
            elif not go_type.startswith(("*", "[", "map")):  # embedded, with or without the option `inline`
                prefix, _, bare = go_type.lstrip("*").rpartition(".")
                home = package
                if prefix == "metav1" or bare in ("TypeMeta", "ObjectMeta", "ListMeta"):
                    home = META[:-1]
                elif prefix in ("v1", "core", "corev1"):
                    home = "io.k8s.api.core.v1"
                result.update(self.fields(home, bare))
        return result

    def display(self, package: str, go_type: str) -> str:
        """How Go prints a named type in a message: `v1.Protocol`; empty for plain types."""
        bare = go_type.lstrip("*")
        prefix, _, name = bare.rpartition(".")
        if bare in ("string", "int32", "int64", "int", "bool", "float64") or "[" in bare:
            return "int" if bare == "int" else ""
        if prefix in ("types", "intstr", "resource"):
            return bare
        return f"{'v1' if prefix else package.rsplit('.', 1)[1]}.{name}"


def squash(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


class Types:
    def __init__(self, definitions: dict[str, Any], protobuf: dict[str, Any], go: GoSource) -> None:
        self.definitions, self.protobuf, self.go = definitions, protobuf, go
        self.names = [n for n in definitions if n not in WIRE]
        self.names += [
            n
            for p in protobuf
            if (n := openapi_name(p)) not in definitions
            and n not in WIRE
            and n.startswith(EXTRA_PACKAGES)
            and not (n.startswith(META) and n[len(META) :] in ("Timestamp", "Verbs"))
        ]
        embedded = {
            openapi_name(self.qualified(n, f[2]))
            for n in self.names
            for f in protobuf.get(proto_name(n), ())
            if f[3] == "optional" and f[2][0].isupper() and proto_name(n).split(".")[2] != "metrics"
        }
        self.names += sorted(embedded - set(self.names) - set(WIRE))
        self.names.sort()
        self.old = sorted(
            n
            for p in protobuf
            if (n := openapi_name(p)) not in self.names
            and n not in WIRE
            and not n.startswith(META)
            and not self.wrapped(p)
            and not n.startswith(OLD_IGNORED)
        )
        """types of versions that are not served any more: objects in old snapshots have them"""
        self.index = {n: i for i, n in enumerate(self.names + self.old)}

    def wrapped(self, proto: str) -> bool:
        """A message that only carries a list: `ExtraValue`, `Verbs`."""
        fields = self.protobuf.get(proto)
        return bool(fields) and len(fields) == 1 and fields[0][1] == "items" and fields[0][2] == "string"

    def qualified(self, owner: str, proto: str) -> str:
        package = proto_name(owner).rsplit(".", 1)[0]
        while package:
            if f"{package}.{proto}" in self.protobuf:
                return f"{package}.{proto}"
            package = package.rpartition(".")[0]
        return proto

    def of_property(self, prop: dict[str, Any], proto: str) -> str:
        ref = prop.get("$ref")
        if ref:
            name = ref.rsplit("/", 1)[1]
            return WIRE.get(name) or f"#{self.index[name]}"
        kinds = prop.get("type")
        kind = next((k for k in kinds if k != "null"), None) if isinstance(kinds, list) else kinds
        if kind == "array":
            return ("~" if self.wrapped(proto) else "") + "[]" + self.of_property(prop["items"], proto)
        if kind == "object" and isinstance(prop.get("additionalProperties"), dict):
            return "{}" + self.of_property(prop["additionalProperties"], proto)
        if WIRE.get(openapi_name(proto)) == "duration":
            return "duration"
        if kind is None and "oneOf" in prop:
            return "intorstring"
        return SCALARS[kind, prop.get("format")] if kind else "json"

    def of_proto(self, proto: str) -> str:
        if "." in proto:
            if self.wrapped(proto):
                return "~[]string"
            name = openapi_name(proto)
            if name == META + "Timestamp":
                return "time"
            return WIRE.get(name) or f"#{self.index[name]}"
        return proto

    def row(self, name: str) -> dict[str, Any]:
        definition = self.definitions.get(name, {})
        properties: dict[str, Any] = definition.get("properties", {})
        required = set(definition.get("required", ()))
        package, _, bare = name.rpartition(".")
        go_fields = self.go.fields(package, bare)
        proto_fields: dict[str, list[Any]] = {squash(f[1]): f for f in self.protobuf.get(proto_name(name), ())}
        if not properties and name not in self.definitions:  # only protobuf knows it
            by_squash = {squash(j): j for j in go_fields}
            properties = {by_squash.get(squash(f[1]), f[1]): None for f in proto_fields.values()}
            if go_fields:  # what has no name in JSON is an embedded struct
                properties = {j: None for j in properties if j in go_fields}
            if "kind" in go_fields and "apiVersion" in go_fields:
                properties |= {"apiVersion": {"type": "string"}, "kind": {"type": "string"}}
        row: dict[str, Any] = {}
        gvks = definition.get("x-kubernetes-group-version-kind", [])
        if len(gvks) == 1:
            row["k"] = [gvks[0]["group"], gvks[0]["version"], gvks[0]["kind"]]
        if definition.get("x-kubernetes-map-type"):
            row["mt"] = definition["x-kubernetes-map-type"]
        fields, used = [], set()
        short = re.sub(r"^io\.k8s\.api\.", "", name)
        for field, prop in properties.items():
            pf = proto_fields.get(squash(field))
            number, proto = 0, ""
            if pf:
                used.add(squash(field))
                number, proto = pf[0], pf[2]
                if proto not in ("string", "int32", "int64", "bool", "bytes", "double"):
                    proto = self.qualified(name, proto)
            if prop is not None:
                expr = self.of_property(prop, proto)
            else:
                expr = self.of_proto(proto)
                expr = {"repeated": "[]", "map": "{}"}.get(pf[3] if pf else "", "") + expr
                prop = {}
            flags, extra = self.flags(field, expr, go_fields.get(field), field in required, bool(go_fields))
            for key, source in (
                ("lt", "x-kubernetes-list-type"),
                ("lk", "x-kubernetes-list-map-keys"),
                ("mt", "x-kubernetes-map-type"),
                ("ps", "x-kubernetes-patch-strategy"),
                ("pk", "x-kubernetes-patch-merge-key"),
            ):
                if prop.get(source):
                    extra[key] = prop[source]
            if field in DEFAULTS.get(short, {}):
                extra["d"] = DEFAULTS[short][field]
            if field in go_fields:
                go_type = go_fields[field][0]
                shown = self.go.display(package, go_type)
                if shown and (expr in NAMED or expr.startswith(("[", "{", "~"))):
                    extra["g"] = shown
                element = re.sub(r"^\*?(\[\]|map\[\w+\])", "", go_type)
                if element != go_type and expr[2:] in NAMED and (shown := self.go.display(package, element)):
                    extra["ge"] = shown
            fields.append([field, expr, number, flags] + ([extra] if extra else []))
        row["f"] = fields
        # a message field without a JSON name of its own is an embedded struct: its fields stand among ours
        inline = [
            [f[0], self.index[openapi_name(self.qualified(name, f[2]))]]
            for key, f in proto_fields.items()
            if key not in used and openapi_name(self.qualified(name, f[2])) in self.index
        ]
        if inline:
            row["in"] = inline
            if name not in self.definitions:
                for _, inner in inline:
                    own = {f[0] for f in fields}
                    fields += [
                        [f[0], f[1], 0, *f[3:]]
                        for f in self.row((self.names + self.old)[inner])["f"]
                        if f[0] not in own
                    ]
        return row

    def flags(
        self, field: str, expr: str, go: tuple[str, list[str]] | None, required: bool, known: bool
    ) -> tuple[int, dict[str, Any]]:
        """1 required, 2 pointer, 4 omitempty, 8 omitzero."""
        if go:
            go_type, options = go
            flags = (2 if go_type.startswith("*") else 0) | (4 if "omitempty" in options else 0)
            flags |= 8 if "omitzero" in options else 0
        else:  # a field younger than the sources: conventions of API fields say it nearly always
            pointer = not required and expr[0] not in "[{~" and expr not in ("raw", "bytes")
            if field in ("metadata", "status", "kind", "apiVersion"):
                pointer = False
            flags = (2 if pointer else 0) | (0 if required else 4)
        return flags | (1 if required else 0), {}


# ---- resources ------------------------------------------------------------------------------------------


def version_order(version: str) -> tuple[int, int, int]:
    """Kubernetes' order: v2, v1, v1beta2, v1beta1, v1alpha1."""
    m = re.fullmatch(r"v(\d+)(?:(alpha|beta)(\d+))?", version)
    assert m, version
    return ({None: 0, "beta": 1, "alpha": 2}[m[2]], -int(m[1]), -int(m[3] or 0))


def client_calls() -> list[tuple[str, str]]:
    """(method, path) of every call of the generated client."""
    calls = []
    for file in sorted(package_file("kubernetes", "client/api").glob("*_api.py")):
        text = file.read_text()
        for block in re.split(r"\n    (?:async )?def _\w+_serialize\(", text)[1:]:
            m = re.search(r"method='(\w+)',\s+resource_path='([^']+)'", block)
            if m:
                calls.append((m[1], m[2]))
    return list(dict.fromkeys(calls))


def resources(facts: Path, definitions: dict[str, Any]) -> list[Any]:
    seen: dict[tuple[str, str], dict[str, dict[str, Any]]] = defaultdict(dict)
    for method, path in client_calls():
        m = re.fullmatch(
            r"/(?:api|apis/([^/]+))/(v\w+)(/namespaces/\{namespace\})?/([a-z]+)(/\{name\})?(?:/([a-z]+))?(/\{path\})?",
            path,
        )
        if not m:
            continue
        group, version, namespaced, plural, named, sub, _tail = m.groups()
        entry = seen[group or "", version].setdefault(plural, {"namespaced": False, "verbs": set(), "subs": {}})
        entry["namespaced"] |= bool(namespaced)
        if sub:
            verb = {"GET": "get", "PUT": "update", "PATCH": "patch", "POST": "create", "DELETE": "delete"}.get(method)
            if verb:
                entry["subs"].setdefault(sub, set()).add(verb)
        else:
            verb = {
                ("GET", True): "get",
                ("GET", False): "list",
                ("POST", False): "create",
                ("PUT", True): "update",
                ("PATCH", True): "patch",
                ("DELETE", True): "delete",
                ("DELETE", False): "deletecollection",
            }.get((method, bool(named)))
            if verb:
                entry["verbs"].add(verb)
                if verb == "list" and plural != "componentstatuses":
                    entry["verbs"].add("watch")
    kinds: dict[tuple[str, str], list[str]] = defaultdict(list)
    for d in definitions.values():
        for gvk in d.get("x-kubernetes-group-version-kind", ()):
            kinds[gvk["group"], gvk["version"]].append(gvk["kind"])
    order, known = [""], {}
    for item in json.loads((facts / "discovery-v1.36.json").read_text())["items"]:
        group = item["metadata"]["name"]
        order.append(group)
        for v in item["versions"]:
            for r in v["resources"]:
                known[group, v["version"], r["resource"]] = r
                known.setdefault((group, "", r["resource"]), r)
    order += sorted({g for g, _ in seen} - set(order))
    rows = []
    for group, version in sorted(seen, key=lambda gv: (order.index(gv[0]), version_order(gv[1]))):
        for plural, entry in sorted(seen[group, version].items()):
            facts_of = known.get((group, version, plural)) or known.get((group, "", plural)) or {}
            short, categories = facts_of.get("shortNames", []), facts_of.get("categories", [])
            if not group:
                short, categories = CORE_NAMES.get(plural, ([], []))
            kind = (facts_of.get("responseKind") or {}).get("kind") or kind_of(plural, kinds[group, version])
            subs = []
            for sub, verbs in sorted(entry["subs"].items()):
                g, v, k = group, version, kind
                for s in facts_of.get("subresources", ()):
                    if s["subresource"] == sub and s["responseKind"]["kind"] != kind:
                        g, v, k = (s["responseKind"][key] for key in ("group", "version", "kind"))
                if sub == "scale":
                    g, v, k = "autoscaling", "v1", "Scale"
                elif sub == "eviction":
                    g, v, k = "policy", "v1", "Eviction"
                elif sub == "token":
                    g, v, k = "authentication.k8s.io", "v1", "TokenRequest"
                elif sub == "binding":
                    k = "Binding"
                elif sub in CONNECT_KINDS:
                    k = CONNECT_KINDS[sub]
                elif sub == "proxy":
                    k = PROXY_KINDS[plural]
                subs.append([sub, g, v, k, sorted(verbs)])
            rows.append(
                [group, version, plural, kind, entry["namespaced"], facts_of.get("singularResource") or kind.lower()]
                + [sorted(entry["verbs"]), short, categories, subs]
            )
    return rows


def kind_of(plural: str, kinds: list[str]) -> str:
    for kind in kinds:
        low = kind.lower()
        if plural in (low, low + "s", low + "es", low.removesuffix("y") + "ies"):
            return kind
    raise SystemExit(f"no kind for {plural} among {kinds}")


def dump(path: Path, rows: list[tuple[str, Any]] | list[Any]) -> None:
    """One row a line, so that a change of the bundle reads as a change."""
    lines = [json.dumps(r, separators=(",", ":"), ensure_ascii=False) for r in rows]
    path.write_text("[\n" + ",\n".join(lines) + "\n]\n")
    print(path, len(rows), "rows", path.stat().st_size, "bytes")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--facts", type=Path, required=True)
    parser.add_argument("--go", type=Path)
    args = parser.parse_args()
    definitions = json.loads(package_file("kubernetes_validate", VALIDATE).read_text())["$defs"]
    protobuf = json.loads((args.facts / "protobuf.json").read_text())
    types = Types(definitions, protobuf, GoSource(args.go))
    OUT.mkdir(exist_ok=True)
    dump(OUT / "types.json", [[n, types.row(n)] for n in types.names])
    dump(OUT / "types_old.json", [[n, types.row(n)] for n in types.old])
    dump(OUT / "resources.json", resources(args.facts, definitions))


if __name__ == "__main__":
    main()
