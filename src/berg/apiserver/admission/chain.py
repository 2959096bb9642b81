"""The admission chain: which plugins there are, in which order, and running a write through them.

The order is upstream's and fixed; `enable` and `disable` only choose. What a plugin looks at is declared by the
plugin (`resources`, `operations`, `subresources`), so for each kind of request the chain knows the few that matter.
What only does what objects tell it to (webhooks, policies, quotas) sleeps, not even imported, until there is one.

Source: kubernetes pkg/kubeapiserver/options/plugins.go.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from time import perf_counter

from berg.apiserver.admission.interface import Api, Attributes, Plugin, StillAsked
from berg.machinery.metrics import Cell, Labels, Recent, Registry, Summed
from berg.machinery.resources import resource
from berg.machinery.status import ApiError, Obj


@dataclass(frozen=True, slots=True)
class Entry:
    name: str
    room: str
    """the module under berg.apiserver.admission, its class called like the plugin"""
    default_on: bool = True
    until: str = ""
    """the resource of which there must be an object before the plugin has anything to do"""


_GROUP = "admissionregistration.k8s.io"

PLUGINS: tuple[Entry, ...] = (
    Entry("AlwaysAdmit", "always", False),
    Entry("NamespaceAutoProvision", "namespace_lifecycle", False),
    Entry("NamespaceLifecycle", "namespace_lifecycle"),
    Entry("NamespaceExists", "namespace_lifecycle", False),
    Entry("LimitPodHardAntiAffinityTopology", "anti_affinity", False),
    Entry("LimitRanger", "limit_ranger", until="limitranges"),
    Entry("ServiceAccount", "service_account"),
    Entry("NodeRestriction", "node_restriction"),  # Differs from upstream: on, as kubeadm switches it on everywhere
    Entry("TaintNodesByCondition", "taint_nodes_by_condition"),
    Entry("AlwaysPullImages", "always_pull_images", False),
    Entry("ImagePolicyWebhook", "image_policy", False),
    Entry("PodSecurity", "pod_security.plugin"),
    Entry("PodNodeSelector", "pod_node_selector", False),
    Entry("Priority", "priority"),
    Entry("DefaultTolerationSeconds", "tolerations"),
    Entry("PodTolerationRestriction", "toleration_restriction", False),
    Entry("EventRateLimit", "event_rate_limit", False),
    Entry("ExtendedResourceToleration", "tolerations", False),
    Entry("DefaultStorageClass", "storage"),
    Entry("StorageObjectInUseProtection", "storage"),
    Entry("OwnerReferencesPermissionEnforcement", "owner_references", False),
    Entry("PersistentVolumeClaimResize", "storage"),
    Entry("RuntimeClass", "runtime_class"),
    Entry("CertificateApproval", "certificates"),
    Entry("CertificateSigning", "certificates"),
    Entry("ClusterTrustBundleAttest", "certificates"),
    Entry("CertificateSubjectRestriction", "certificates"),
    Entry("DefaultIngressClass", "default_ingress_class"),
    Entry("DenyServiceExternalIPs", "service_external_ips", False),
    Entry("PodTopologyLabels", "pod_topology_labels"),
    Entry("PodResizeValidator", "pod_resize"),
    Entry("MutatingAdmissionPolicy", "policy.mutating", until=f"mutatingadmissionpolicies.{_GROUP}"),
    Entry("MutatingAdmissionWebhook", "webhook.mutating", until=f"mutatingwebhookconfigurations.{_GROUP}"),
    Entry("ValidatingAdmissionPolicy", "policy.validating", until=f"validatingadmissionpolicies.{_GROUP}"),
    Entry("ValidatingAdmissionWebhook", "webhook.validating", until=f"validatingwebhookconfigurations.{_GROUP}"),
    Entry("ResourceQuota", "quota.plugin", until="resourcequotas"),
    Entry("AlwaysDeny", "always", False),
)

_TIMES = (0.005, 0.025, 0.1, 0.5, 1.0, 2.5)
_Ask = Callable[[Attributes], Awaitable[None]]
_Asked = tuple[tuple[tuple[Plugin, _Ask, Cell], ...], Cell]
_ORDER = {entry.name: position for position, entry in enumerate(PLUGINS)}


class UnknownPlugin(ValueError):
    """A flag names a plugin that there is not."""


class UnfitPlugin(ValueError):
    """A plugin cannot begin as it is configured."""


class AdmissionChain:
    def __init__(
        self,
        api: Api,
        enable: Iterable[str] = (),
        disable: Iterable[str] = (),
        config: Mapping[str, Obj] | None = None,
    ) -> None:
        """`config`: plugin name → its configuration. Raises UnknownPlugin, UnfitPlugin."""
        wanted, unwanted = set(enable), set(disable)
        if faults := list(_misnamed(wanted, unwanted)):
            raise UnknownPlugin(faults[0] if len(faults) == 1 else f"[{', '.join(faults)}]")
        self._api, self._config = api, config or {}
        self.plugins: list[Plugin] = []
        self._asleep: list[tuple[Entry, Callable[[], int]]] = []
        self._times: dict[tuple[str, str, str, str], Cell] = {}
        """(plugin or "" for all, operation, step, rejected) → durations"""
        self._mutating: dict[tuple[str, str, str], _Asked] = {}
        self._validating: dict[tuple[str, str, str], _Asked] = {}
        for entry in PLUGINS:
            if entry.name in wanted or (entry.default_on and entry.name not in unwanted):
                if entry.until and entry.name not in self._config:
                    self._asleep.append((entry, api.counter(resource(entry.until))))
                else:
                    self._load(entry)

    def _load(self, entry: Entry) -> None:
        make: type[Plugin] = getattr(import_module(f"berg.apiserver.admission.{entry.room}"), entry.name)
        try:
            plugin = make(self._api, self._config.get(entry.name))
        except (OSError, ValueError) as e:
            why = f'couldn\'t init admission plugin "{entry.name}": {e}'
            raise UnfitPlugin(f"failed to initialize admission: {why}") from None
        self.plugins.append(plugin)
        self.plugins.sort(key=lambda plugin: _ORDER[plugin.name])
        self._mutating.clear()
        self._validating.clear()

    def _wake(self) -> None:
        for entry, wanted in self._asleep:
            if wanted():
                self._rouse(entry)

    def _rouse(self, entry: Entry) -> None:
        self._asleep = [other for other in self._asleep if other[0] is not entry]
        self._load(entry)

    def plugin(self, name: str) -> Plugin | None:
        """Awake, for who asks. None for one that is off."""
        for entry, _ in self._asleep:
            if entry.name == name:
                self._rouse(entry)
        return next((p for p in self.plugins if p.name == name), None)

    async def run_mutating(self, a: Attributes) -> None:
        """Raises ApiError at the first refusal."""
        if self._asleep:
            self._wake()
        key = (a.resource.group_resource, a.subresource, a.operation)
        found = self._mutating.get(key)
        if found is None:
            found = self._mutating[key] = self._asked(key, "admit", (p for p in self.plugins if p.mutating))
        await self._ask_all(found, a, "admit")
        if a.rounds is not None and a.rounds.wanted:
            a.rounds.second = True
            await self._ask_all(found, a, "admit")

    async def run_validating(self, a: Attributes) -> None:
        """Raises ApiError at the first refusal."""
        if self._asleep:
            self._wake()
        key = (a.resource.group_resource, a.subresource, a.operation)
        found = self._validating.get(key)
        if found is None:
            found = self._validating[key] = self._asked(key, "validate", (p for p in self.plugins if p.validating))
        await self._ask_all(found, a, "validate")

    def _asked(self, key: tuple[str, str, str], step: str, plugins: Iterable[Plugin]) -> _Asked:
        """Who is asked about requests of one kind, and where the time that each takes is noted."""
        asked = [p for p in plugins if _looks_at(p, *key)]
        steps = tuple((p, getattr(p, step), self._time(p.name, key[2], step, "false")) for p in asked)
        return steps, self._time("", key[2], step, "false")

    async def _ask_all(self, asked: _Asked, a: Attributes, step: str) -> None:
        """One after the other, the time of each and of all measured."""
        steps, all_ = asked
        first = started = perf_counter()
        plugin: Plugin | None = None
        try:
            for plugin, ask, took in steps:
                if plugin.handles(a):
                    try:
                        await ask(a)
                    except StillAsked as waiting:
                        await _run_again(ask, a, waiting)
                    now = perf_counter()
                    took.observe(now - started)
                    started = now
        except ApiError:
            now = perf_counter()
            self._time(plugin.name if plugin else "", a.operation, step, "true").observe(now - started)
            self._time("", a.operation, step, "true").observe(now - first)
            raise
        all_.observe(perf_counter() - first)

    def _time(self, name: str, operation: str, step: str, rejected: str) -> Cell:
        key = (name, operation, step, rejected)
        cell = self._times.get(key)
        if cell is None:
            cell = self._times[key] = Cell(_TIMES) if name else Recent(_TIMES)
        return cell

    def describe(self, registry: Registry) -> None:
        def times(*, steps: bool) -> Iterator[tuple[Labels, Cell]]:
            for (name, operation, step, rejected), cell in self._times.items():
                if steps != bool(name) and cell.count:
                    labels = (operation, step, rejected)
                    yield labels if steps else (name, *labels), cell

        def recent() -> Iterator[Summed]:
            for labels, cell in times(steps=True):
                assert isinstance(cell, Recent)
                yield labels, cell.last, cell.count, cell.total

        prefix, labels = "apiserver_admission", ("operation", "type", "rejected")
        name, help = f"{prefix}_step_admission_duration_seconds", "[STABLE] Duration of admission, by step."
        registry.distribution(name, help, _TIMES, labels, lambda: times(steps=True))
        help = "[ALPHA] Duration of admission, by step: quantiles of the last ones."
        registry.summary(f"{name}_summary", help, labels, recent)
        name, help = f"{prefix}_controller_admission_duration_seconds", "[STABLE] Duration of admission, by plugin."
        registry.distribution(name, help, _TIMES, ("name", *labels), lambda: times(steps=False))

    async def close(self) -> None:
        """Lets go what plugins hold (connections to webhooks)."""
        for plugin in self.plugins:
            await plugin.close()


async def _run_again(ask: _Ask, a: Attributes, waiting: StillAsked) -> None:
    while True:
        a.decisions = {**(a.decisions or {}), waiting.key: await waiting.answer}
        try:
            return await ask(a)
        except StillAsked as next_:
            waiting = next_


def _misnamed(wanted: set[str], unwanted: set[str]) -> Iterator[str]:
    known = {e.name for e in PLUGINS}
    for flag, names in (("enable", wanted), ("disable", unwanted)):
        for name in sorted(names - known):
            yield f'{flag}-admission-plugins plugin "{name}" is unknown'
    if both := sorted(wanted & unwanted):
        yield f"[{' '.join(both)}] in enable-admission-plugins and disable-admission-plugins overlapped"


def _looks_at(plugin: Plugin, resource: str, subresource: str, operation: str) -> bool:
    return (
        operation in plugin.operations
        and (plugin.resources is None or resource in plugin.resources)
        and (plugin.subresources is None or subresource in plugin.subresources)
    )
