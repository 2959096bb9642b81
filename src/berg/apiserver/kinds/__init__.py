"""What each built-in kind does: defaults, validation, life cycle, table columns.

One file for each kind, by API group. Importing this package registers all of them; what only some requests need
(validation of pods and the like) is imported where it is used, so that a server is ready soon.
"""

from importlib import import_module

ROOMS = (
    "admissionregistration.admission_policy",
    "admissionregistration.webhook_configuration",
    "apiregistration.api_service",
    "apps.controller_revision",
    "apps.daemon_set",
    "apps.deployment",
    "apps.replica_set",
    "apps.stateful_set",
    "autoscaling.horizontal_pod_autoscaler",
    "batch.cron_job",
    "batch.job",
    "certificates.certificate_signing_request",
    "certificates.trust",
    "coordination.lease",
    "core.component_status",
    "core.config_map",
    "core.endpoints",
    "core.event",
    "core.limit_range",
    "core.namespace",
    "core.node",
    "core.persistent_volume",
    "core.persistent_volume_claim",
    "core.pod",
    "core.pod_template",
    "core.replication_controller",
    "core.resource_quota",
    "core.secret",
    "core.service",
    "core.service_account",
    "discovery.endpoint_slice",
    "flowcontrol.priority_and_fairness",
    "networking.ingress",
    "networking.ingress_class",
    "networking.ip_address",
    "networking.network_policy",
    "networking.service_cidr",
    "node.runtime_class",
    "policy.pod_disruption_budget",
    "rbac.bindings",
    "rbac.roles",
    "resource.dynamic_resources",
    "scheduling.priority_class",
    "scheduling.workload",
    "storage.csi",
    "storagemigration.storage_version_migration",
    "storage.storage_class",
    "storage.volume_attachment",
    "storage.volume_attributes_class",
    "storage_version",
)
"""the modules that register strategies"""

for _room in ROOMS:
    import_module(f"{__name__}.{_room}")
