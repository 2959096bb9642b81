"""NetworkPolicies.

Source: kubernetes pkg/registry/networking/networkpolicy, pkg/apis/networking/v1/defaults.go.
"""

from __future__ import annotations

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
