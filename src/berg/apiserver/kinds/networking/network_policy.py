"""NetworkPolicies.

Source: kubernetes pkg/registry/networking/networkpolicy, pkg/apis/networking/v1/defaults.go.
"""

from __future__ import annotations

from collections.abc import Sequence

from berg.apiserver.kinds import cells
from berg.apiserver.registry.strategy import Column, Context, Strategy, strategy_for
from berg.machinery.status import FieldError, Obj


@strategy_for("networking.k8s.io", "networkpolicies")
class NetworkPolicyStrategy(Strategy):
    has_status = False
    columns = [
        cells.NAME,
        Column("Pod-Selector", lambda o: cells.label_selector((o.get("spec") or {}).get("podSelector"))),
        cells.AGE,
    ]

    def default(self, obj: Obj) -> None:
        spec = obj.get("spec")
        if spec is None:
            return
        spec.setdefault("podSelector", {})
        for key in ("ingress", "egress"):
            for rule in spec.get(key) or ():
                for port in rule.get("ports") or ():
                    if port.get("protocol") is None:
                        port["protocol"] = "TCP"
        if not spec.get("policyTypes"):
            spec["policyTypes"] = ["Ingress", "Egress"] if spec.get("egress") else ["Ingress"]

    def validate(self, ctx: Context, obj: Obj) -> list[FieldError]:
        from berg.apiserver.kinds.networking.network_policy_validation import validate_network_policy

        return validate_network_policy(obj)

    def validate_update(self, ctx: Context, obj: Obj, old: Obj) -> list[FieldError]:
        from berg.apiserver.kinds.networking.network_policy_validation import validate_network_policy

        return validate_network_policy(obj, old)

    def warnings(self, ctx: Context, obj: Obj, old: Obj | None) -> Sequence[str]:
        from berg.apiserver.kinds import addresses

        spec = obj.get("spec") or {}
        found: list[str] = []
        for direction, peers in (("ingress", "from"), ("egress", "to")):
            for i, rule in enumerate(spec.get(direction) or ()):
                for j, peer in enumerate(rule.get(peers) or ()):
                    at, block = f"spec.{direction}[{i}].{peers}[{j}].ipBlock", peer.get("ipBlock") or {}
                    found += addresses.cidr_warnings(f"{at}.cidr", block["cidr"]) if block.get("cidr") else []
                    for k, text in enumerate(block.get("except") or ()):
                        found += addresses.cidr_warnings(f"{at}.except[{k}]", text)
        return found
