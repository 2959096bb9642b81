"""Calls every path and verb of a server's own OpenAPI document, and checks every answer against its schema there.

    python tools/api_table.py KUBECONFIG [--write]

Objects come from `api_objects.yaml`; they are created in a namespace of their own and gone at the end. An answer is
right when its status is one that the document names (or, for the verbs that want a connection to be upgraded, the
refusal to go on without), and its body fits the schema for that status with no field that the schema does not know.
`--write` puts the table into docs/compatibility.md. Ends with 1 when an answer was not right.
"""

from __future__ import annotations

import asyncio
import base64
import sys
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
import yaml
from jsonschema import Draft202012Validator

from berg.client.rest import Client

Obj = dict[str, Any]
HERE = Path(__file__).parent
DOCUMENT = HERE.parent / "docs" / "compatibility.md"
BEGIN, END = "<!-- api: begin -->", "<!-- api: end -->"
NAMESPACE, NAME, UNBOUND = "api-table", "a", "unbound"
NAMES = {  # where a name says more than who
    "ipaddresses.networking.k8s.io": "192.0.2.77",
    "apiservices.apiregistration.k8s.io": "v1.other.example.com",
    "customresourcedefinitions.apiextensions.k8s.io": "tables.table.example.com",
    "namespaces": "api-table-other",
    "componentstatuses": "etcd-0",
    "services": "served",
    "csidrivers.storage.k8s.io": "x.io",
    "events": "a.1",
    "events.events.k8s.io": "a.2",
    "clustertrustbundles.certificates.k8s.io": "api-table",
}
PATCHES: dict[str, Any] = {
    "application/merge-patch+json": {"metadata": {"annotations": {"merge": "1"}}},
    "application/strategic-merge-patch+json": {"metadata": {"annotations": {"strategic": "1"}}},
    "application/json-patch+json": [{"op": "add", "path": "/metadata/annotations", "value": {"json": "1"}}],
}
WATCH = "watch=1&timeoutSeconds=1&allowWatchBookmarks=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan"
COLUMNS = ("create", "get", "list", "watch", "update", "patch", "apply", "delete", "deletecollection")


@dataclass
class Resource:
    path: str
    """of its collection, with `{namespace}` when it has one"""
    kind: Obj
    verbs: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    """verb, or subresource and verb → what was wrong with the answers to it"""

    @property
    def name(self) -> str:
        group = self.kind["group"]
        plural = self.path.rpartition("/")[2]
        return f"{plural}.{group}" if group else plural

    @property
    def label(self) -> str:
        """What no other resource's objects are labelled with."""
        return f"{self.path.rpartition('/')[2]}_{self.kind['group'].partition('.')[0]}_{self.kind['version']}"

    @property
    def called(self) -> str:
        """The name of the object that is tried."""
        return NAMES.get(self.name, f"{NAME}-{self.kind['version']}")


class Caller:
    def __init__(self, client: Client, documents: dict[str, Obj]) -> None:
        self.client = client
        self.documents = documents
        self.groups = {path: group for group, document in documents.items() for path in document["paths"]}
        self.called = 0
        self.node = ""
        self.seen: set[tuple[str, str]] = set()
        self._validators: dict[tuple[str, str], Draft202012Validator] = {}
        self.objects: dict[str, Obj] = yaml.safe_load((HERE / "api_objects.yaml").read_text())

    async def send(
        self, method: str, template: str, body: Any = None, *, query: dict[str, str] | None = None, media: str = "",
        name: str = NAME,
    ) -> tuple[int, bytes]:  # fmt: skip
        path = template.replace("{namespace}", NAMESPACE).replace("{name}", name).replace("{path}", "")
        headers = {"Content-Type": media or "application/json", "Accept": "application/json"}
        data = None if body is None else orjson.dumps(body)
        answer = await self.client.transport.request(method, path, query=query, headers=headers, body=data)
        return answer.status, await answer.read()

    async def call(
        self,
        r: Resource,
        column: str,
        method: str,
        template: str,
        body: Any = None,
        *,
        query: str = "",
        media: str = "",
        name: str = "",
    ) -> None:
        """What was wrong with the answer is noted at the resource."""
        asked = dict(part.split("=", 1) for part in query.split("&")) if query else None
        status, text = await self.send(method, template, body, query=asked, media=media, name=name or r.called)
        self.note(r, column, method, template, status, text)

    def note(self, r: Resource, column: str, method: str, template: str, status: int, text: bytes) -> None:
        self.called += 1
        self.seen.add((method, template))
        problems = r.verbs[column]
        if wrong := self._wrong(template, method, status, text, column):
            problems.append(f"{method} {template} ({r.name}): {wrong}")

    async def until(self, template: str, r: Resource | None, condition: Callable[[Obj], bool]) -> None:
        text = b""
        for _ in range(600):
            _, text = await self.send("GET", template, name=r.called if r else NAME)
            if condition(orjson.loads(text)):
                return
            await asyncio.sleep(0.1)
        raise TimeoutError(f"{template}: {text.decode()}")

    async def gone(self, template: str, r: Resource) -> None:
        await self.until(template, r, lambda o: o.get("reason") == "NotFound")

    def _wrong(self, template: str, method: str, status: int, text: bytes, column: str) -> str:
        group = self.groups[template]
        operation = self.documents[group]["paths"][template][method.lower()]
        responses = operation["responses"]
        if operation.get("x-kubernetes-action") == "connect":
            ours = b'"kind":"Status"' in text and b"upgrade" not in text.lower()
            return f"{status} {text[:200]!r}" if ours and (status >= 500 or status in (404, 405)) else ""
        if str(status) not in responses or status >= 300:
            return f"{status} {text[:300]!r}"
        schema = responses[str(status)].get("content", {}).get("application/json", {}).get("schema")
        if schema is None or "watch" in column:
            return ""
        if schema.get("type") == "string":
            return ""
        answer = orjson.loads(text)
        if method in ("DELETE", "POST"):  # a Status, a list or an object where it says another
            schema = self._schema_of(group, answer)
        name = schema["$ref"].rpartition("/")[2]
        validator = self._validators.get((group, name))
        if validator is None:
            whole = {"$ref": schema["$ref"], "components": self.documents[group]["components"]}
            validator = self._validators[group, name] = Draft202012Validator(whole)
        errors = [
            f"{'.'.join(map(str, e.absolute_path))}: {e.message[:200]}"
            for e in validator.iter_errors(answer)
            if e.instance is not None  # what is not set may be null, which no document says
        ]
        return f"{status} {'; '.join(errors[:3])}" if errors else ""

    def _schema_of(self, group: str, obj: Obj) -> Obj:
        named, _, version = obj["apiVersion"].rpartition("/")
        kind = {"group": named, "version": version, "kind": obj["kind"]}
        for name, schema in self.documents[group]["components"]["schemas"].items():
            if kind in schema.get("x-kubernetes-group-version-kind", ()):
                return {"$ref": f"#/components/schemas/{name}"}
        return {"$ref": f"no schema of {kind}"}

    def body(self, r: Resource) -> Obj:
        metadata: Obj = {"name": r.called, "labels": {"api-table": r.label}, "annotations": {"a": "b"}}
        text = orjson.dumps(self.objects[r.name]).replace(b"NAMESPACE", NAMESPACE.encode())
        if any(word in text for word in (b"CERTIFICATE", b"REQUEST", b"STUB")):
            for word, value in _credentials().items():
                text = text.replace(orjson.dumps(word), orjson.dumps(value))
        return {**_head(r.kind), "metadata": metadata, **orjson.loads(text)}


def _head(kind: Obj) -> Obj:
    group = f"{kind['group']}/" if kind["group"] else ""
    return {"apiVersion": group + kind["version"], "kind": kind["kind"]}


def _credentials() -> dict[str, str]:
    """What cannot stand in a file: it must be valid now, or fit together."""
    import datetime

    from cryptography import x509
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ed25519

    key = ed25519.Ed25519PrivateKey.generate()
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "a")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key()).serial_number(1)
        .not_valid_before(now).not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), True).sign(key, None)
    )  # fmt: skip
    request = x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, None)
    stub = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, None)
    pem, der = serialization.Encoding.PEM, serialization.Encoding.DER
    return {
        "CERTIFICATE": certificate.public_bytes(pem).decode(),
        "REQUEST": base64.b64encode(request.public_bytes(pem)).decode(),
        "STUB": base64.b64encode(stub.public_bytes(der)).decode(),
    }


def strict(schema: Any) -> None:
    """Objects with named fields have no others; dates and bytes are not looked into."""
    if isinstance(schema, dict):
        if "properties" in schema and "x-kubernetes-preserve-unknown-fields" not in schema:
            schema.setdefault("additionalProperties", False)
        for value in schema.values():
            strict(value)
    elif isinstance(schema, list):
        for value in schema:
            strict(value)


def gather(documents: dict[str, Obj]) -> dict[str, tuple[Resource, dict[str, Obj]]]:
    """Collection path → the resource, and all templates that belong to it with their operations."""
    found: dict[str, tuple[Resource, dict[str, Obj]]] = {}
    for group, document in documents.items():
        for template, item in sorted(document["paths"].items()):
            base = template.replace("/watch/", "/").split("/{name}")[0]
            operations = {m: o for m, o in item.items() if m != "parameters"}
            if not operations:
                continue
            action = next(iter(operations.values()))
            if action["operationId"].endswith("ForAllNamespaces"):
                root = "/" + group
                base = base.replace(root, f"{root}/namespaces/{{namespace}}")
            kind = action.get("x-kubernetes-group-version-kind") or {"group": "", "version": "", "kind": ""}
            known = found.setdefault(base, (Resource(base, kind), {}))
            if template == base:
                known[0].kind = kind
            known[1][template] = operations
    return found


async def exercise(caller: Caller, r: Resource, templates: dict[str, Obj]) -> None:
    base, one = r.path, f"{r.path}/{{name}}"
    collection, single = templates.get(base, {}), templates.get(one, {})
    if not r.kind["kind"]:  # discovery, the version, keys
        await caller.call(r, "get", "GET", base)
        return
    if "post" in collection and "post" not in single and not single:  # reviews; bindings
        body = caller.body(r)
        body["metadata"] = {"name": f"{UNBOUND}-too"} if r.name == "bindings" else {}
        await caller.call(r, "create", "POST", base, body)
        return
    if "post" in collection:
        body = caller.body(r)
        await caller.call(r, "create", "POST", base, body)
        if r.verbs["create"]:
            return
    for template, operations in templates.items():
        if "get" in operations and operations["get"]["x-kubernetes-action"] == "list":
            await caller.call(r, "list", "GET", template)
            await caller.call(r, "list", "GET", template, query="limit=1")
            if r.name != "componentstatuses":  # nobody can watch those
                await caller.call(r, "watch", "GET", template, query=WATCH)
    for template in templates:
        if "/watch/" in template:  # deprecated since v1.11
            await caller.call(r, "watch", "GET", template, query="timeoutSeconds=1")
    if "get" in single:
        await caller.call(r, "get", "GET", one)
    if "put" in single:
        await put(caller, r, "update", one, one)
    if "patch" in single:
        for media, patch in PATCHES.items():
            await caller.call(r, "patch", "PATCH", one, patch, media=media)
        applied = {**_head(r.kind), "metadata": {"labels": {"applied": "1"}}}
        await caller.call(
            r,
            "apply",
            "PATCH",
            one,
            applied,
            query="fieldManager=table&force=true",
            media="application/apply-patch+yaml",
        )
    for template, operations in templates.items():
        if template.startswith(f"{one}/"):
            await subresource(caller, r, template, operations)
    if "delete" in single:
        await caller.call(r, "delete", "DELETE", one)
    if "delete" in collection:
        await caller.gone(one, r)
        await caller.send("POST", base, caller.body(r))
        await caller.call(r, "deletecollection", "DELETE", base, query=f"labelSelector=api-table={r.label}")


async def put(caller: Caller, r: Resource, column: str, read: str, write: str) -> None:
    """Writes back what is there. Controllers write too; a conflict is not an answer to this."""
    for _ in range(5):
        live = orjson.loads((await caller.send("GET", read, name=r.called))[1])
        status, text = await caller.send("PUT", write, live, name=r.called)
        if status != 409:
            break
    caller.note(r, column, "PUT", write, status, text)


async def subresource(caller: Caller, r: Resource, template: str, operations: Obj) -> None:
    one, _, name = template.replace("/{path}", "").partition("/{name}/")
    one += "/{name}"
    if name == "log":
        await caller.until(one, r, lambda o: o.get("status", {}).get("phase") == "Running")
    if name == "proxy" and r.name == "services":
        endpoints = "/api/v1/namespaces/{namespace}/endpoints/{name}"
        await caller.until(endpoints, r, lambda o: bool(o.get("subsets")))
    for method, operation in operations.items():
        connects = operation["x-kubernetes-action"] == "connect"
        column = f"{name}: {'connect' if connects else method}"
        if connects or method == "get":
            node = caller.node if r.name == "nodes" and connects else ""
            await caller.call(r, column, method.upper(), template, name=node)
        elif method == "put":
            await put(caller, r, column, template if "get" in operations else one, template)
        elif method == "patch":
            for media, patch in PATCHES.items():
                await caller.call(r, column, "PATCH", template, patch, media=media)
        else:
            body = {**_head(operation["x-kubernetes-group-version-kind"]), "metadata": {"name": r.called}}
            body |= caller.objects[name]
            if name == "binding":  # of a pod that no scheduler has bound
                await caller.call(r, column, "POST", template, body | {"metadata": {"name": UNBOUND}}, name=UNBOUND)
                continue
            await caller.call(r, column, "POST", template, body)
            if name == "eviction":
                await caller.gone(one, r)
                await caller.send("POST", r.path, caller.body(r))


def table(resources: list[Resource]) -> list[str]:
    lines = [f"| group/version | resource | {' | '.join(COLUMNS)} | subresources |", "|---" * (len(COLUMNS) + 3) + "|"]
    for r in resources:
        cells = ["" if v not in r.verbs else "✗" if r.verbs[v] else "✓" for v in COLUMNS]
        subs: dict[str, list[str]] = defaultdict(list)
        for column, problems in r.verbs.items():
            name, colon, verb = column.partition(": ")
            if colon:
                subs[name].append(f"{verb} {'✗' if problems else '✓'}")
        shown = "; ".join(f"{name}: {', '.join(verbs)}" for name, verbs in sorted(subs.items()))
        group = f"{r.kind['group']}/" if r.kind["group"] else ""
        lines.append(f"| {group}{r.kind['version']} | {r.path.rpartition('/')[2]} | {' | '.join(cells)} | {shown} |")
    return lines


async def main() -> int:
    client = Client.from_kubeconfig(sys.argv[1])
    try:
        index = orjson.loads(await client.request("GET", "/openapi/v3"))["paths"]
        documents: dict[str, Obj] = {}
        for group, entry in index.items():
            path, _, query = entry["serverRelativeURL"].partition("?")
            document = orjson.loads(
                await client.request("GET", path, query=dict([query.split("=", 1)]) if query else None)
            )
            strict(document["components"].get("schemas", {}))
            documents[group] = document
        caller = Caller(client, documents)
        await caller.send("POST", "/api/v1/namespaces", {"metadata": {"name": NAMESPACE}})
        account = "/api/v1/namespaces/{namespace}/serviceaccounts/default"
        await caller.until(account, None, lambda o: o["kind"] == "ServiceAccount")
        pod = caller.objects["pods"]["spec"]
        for name in (UNBOUND, f"{UNBOUND}-too"):
            body = {"metadata": {"name": name}, "spec": {**pod, "schedulerName": "none"}}
            await caller.send("POST", "/api/v1/namespaces/{namespace}/pods", body)
        body = {"metadata": {"name": "backend", "labels": {"backend": "yes"}}, "spec": pod}
        await caller.send("POST", "/api/v1/namespaces/{namespace}/pods", body)
        nodes = orjson.loads((await caller.send("GET", "/api/v1/nodes"))[1])["items"]
        caller.node = nodes[0]["metadata"]["name"]
        found = gather(documents)
        await asyncio.gather(*(exercise(caller, r, templates) for r, templates in found.values()))
        await caller.send("DELETE", f"/api/v1/namespaces/{NAMESPACE}")
        await caller.send("DELETE", f"/api/v1/nodes/{NAME}")
    finally:
        await client.close()
    resources = [r for r, _ in found.values() if r.verbs and r.kind["kind"]]
    wrong = [problem for r, _ in found.values() for problems in r.verbs.values() for problem in problems]
    missed = sorted(set(_operations(documents)) - caller.seen)
    said = (
        f"{caller.called} calls of {len(caller.seen)} operations on {len(resources)} resources; "
        f"{len(wrong)} answers were not as the document says."
    )
    print("\n".join([*table(resources), "", said, *wrong, *(f"never called: {m} {p}" for m, p in missed)]))
    if "--write" in sys.argv:
        before, _, rest = DOCUMENT.read_text().partition(BEGIN)
        _, _, after = rest.partition(END)
        DOCUMENT.write_text("\n".join([before + BEGIN, said, "", *table(resources), END + after]))
    return 1 if wrong or missed else 0


def _operations(documents: dict[str, Obj]) -> list[tuple[str, str]]:
    return [
        (method.upper(), template)
        for document in documents.values()
        for template, item in document["paths"].items()
        for method in item
        if method != "parameters"
    ]


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
