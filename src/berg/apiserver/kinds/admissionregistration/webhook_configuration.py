"""MutatingWebhookConfigurations and ValidatingWebhookConfigurations.

Source: kubernetes pkg/apis/admissionregistration/v1/defaults.go, validation.
"""

from __future__ import annotations

from berg.apiserver.kinds import cells
from berg.apiserver.registry.strategy import Column, Context, Strategy, strategy_for
from berg.machinery.status import FieldError, Obj

GROUP = "admissionregistration.k8s.io"


def client_config_defaults(config: Obj | None) -> None:
    service = (config or {}).get("service")
    if service and service.get("port") is None:
        service["port"] = 443


def webhook_defaults(webhook: Obj) -> None:
    if webhook.get("failurePolicy") is None:
        webhook["failurePolicy"] = "Fail"
    if webhook.get("matchPolicy") is None:
        webhook["matchPolicy"] = "Equivalent"
    if webhook.get("namespaceSelector") is None:
        webhook["namespaceSelector"] = {}
    if webhook.get("objectSelector") is None:
        webhook["objectSelector"] = {}
    if webhook.get("timeoutSeconds") is None:
        webhook["timeoutSeconds"] = 10
    client_config_defaults(webhook.get("clientConfig"))
    for rule in webhook.get("rules") or ():
        if rule.get("scope") is None:
            rule["scope"] = "*"


class _WebhookConfigurationStrategy(Strategy):
    namespaced = False
    has_status = False
    allow_unconditional_update = False
    columns = [cells.NAME, Column("Webhooks", lambda o: len(o.get("webhooks") or ()), "integer"), cells.AGE]

    def default(self, obj: Obj) -> None:
        for webhook in obj.get("webhooks") or ():
            webhook_defaults(webhook)

    def validate(self, ctx: Context, obj: Obj) -> list[FieldError]:
        from berg.apiserver.kinds.admissionregistration.validation import validate_webhooks

        return validate_webhooks(obj)


@strategy_for(GROUP, "validatingwebhookconfigurations")
class ValidatingWebhookConfigurationStrategy(_WebhookConfigurationStrategy):
    pass


@strategy_for(GROUP, "mutatingwebhookconfigurations")
class MutatingWebhookConfigurationStrategy(_WebhookConfigurationStrategy):
    def default(self, obj: Obj) -> None:
        super().default(obj)
        for webhook in obj.get("webhooks") or ():
            if webhook.get("reinvocationPolicy") is None:
                webhook["reinvocationPolicy"] = "Never"
