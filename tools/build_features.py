"""Builds `src/berg/machinery/data/features.json`: every feature gate with its stage, default, and what it needs.

    python tools/build_features.py FACTS

FACTS is upstream's own list of v1.36 (test/compatibility_lifecycle/reference/versioned_feature_list.yaml). Added here:
the gates of client-go, which every component knows too; the gates whose names in the list are not those of the flag;
what depends on what; and what is known of v1.37.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import yaml

OUT = Path(__file__).parent.parent / "src/berg/machinery/data/features.json"
STAGES = {"Alpha": "ALPHA", "Beta": "BETA", "GA": "", "Deprecated": "DEPRECATED"}
RENAMED = {"CPUCFSQuotaPeriod": "CustomCPUCFSQuotaPeriod", "RuntimeClassInImageCriAPI": "RuntimeClassInImageCriApi"}
"""Go's name of the constant → the gate's"""
MORE: dict[str, tuple[str, bool, bool]] = {
    "AllAlpha": ("ALPHA", False, False),
    "AllBeta": ("BETA", False, False),
    "AtomicFIFO": ("BETA", True, False),
    "ClientsAllowCARotation": ("BETA", True, False),
    "ClientsAllowCBOR": ("ALPHA", False, False),
    "ClientsAllowTLSCacheGC": ("BETA", True, False),
    "ClientsPreferCBOR": ("ALPHA", False, False),
    "InOrderInformers": ("", True, True),
    "InOrderInformersBatchProcess": ("BETA", True, False),
    "InformerResourceVersion": ("", True, False),
    "UnlockWhileProcessingFIFO": ("BETA", True, False),
    "WatchListClient": ("BETA", True, False),
    # v1.37
    "AllowUnsafeMalformedObjectDeletion": ("BETA", True, False),
    "AtomicWriteVolumeUserFields": ("ALPHA", False, False),
    "CgroupOptions": ("ALPHA", False, False),
    "ClusterTrustBundle": ("", True, False),
    "ClusterTrustBundleProjection": ("", True, False),
    "CompositePodGroup": ("ALPHA", False, False),
    "ConcurrentWatchObjectDecode": ("BETA", True, False),
    "ConditionalAuthorization": ("ALPHA", False, False),
    "DRADerivedAttributes": ("ALPHA", False, False),
    "DRADeviceCompatibilityGroups": ("ALPHA", False, False),
    "DRADeviceTaintRules": ("", True, False),
    "DRADeviceTaints": ("", True, False),
    "DRAExtendedResource": ("", True, True),
    "DRAFractionalCapacityRange": ("BETA", False, False),
    "DRAOptionalNodeOperations": ("ALPHA", False, False),
    "DRAPrioritizedList": ("", True, True),
    "DRAResourceClaimDeviceStatus": ("", True, True),
    "DRASharedConsumableCapacity": ("ALPHA", False, False),
    "DRAWorkloadResourceClaims": ("BETA", False, False),
    "DeclarativeValidationTakeover": ("DEPRECATED", False, True),
    "DefaultPodSysctls": ("ALPHA", False, False),
    "DownwardAPIAssignedResources": ("ALPHA", False, False),
    "EmptyDirVolumeMode": ("ALPHA", False, False),
    "EtcdRangeStream": ("BETA", True, False),
    "GenericWorkload": ("BETA", False, False),
    "HPAConfigurableTolerance": ("", True, True),
    "HugepageAwareEviction": ("BETA", True, False),
    "InPlacePodVerticalScalingSchedulerPreemption": ("ALPHA", False, False),
    "InterPodAffinityHostnameFastPath": ("ALPHA", False, False),
    "KubeProxyNFTablesLocalhostNodePorts": ("ALPHA", False, False),
    "MemoryQoS": ("BETA", True, False),
    "NativeHistograms": ("BETA", True, False),
    "NodeDeclaredFeatures": ("", True, True),
    "NodeLifecycleConditions": ("ALPHA", False, False),
    "PerPodPIDLimit": ("ALPHA", False, False),
    "PodCertificateRequest": ("", True, False),
    "PodGroupPreemptionPolicy": ("ALPHA", False, False),
    "PodReadyToStartContainersCondition": ("", True, False),
    "SELinuxMount": ("", True, False),
    "SchedulerPreQueueingHints": ("ALPHA", False, False),
    "StatefulSetRecreateStrategy": ("ALPHA", False, False),
    "StorageCapacityScoring": ("BETA", True, False),
    "StorageVersionMigrator": ("", True, False),
    "VolumeLimitScaling": ("BETA", True, False),
    "WatchCacheInitializationPostStartHook": ("", True, True),
}
GONE = {"AnyVolumeDataSource"}
_DRA, _DECLARED, _RESIZE = "DynamicResourceAllocation", "NodeDeclaredFeatures", "InPlacePodVerticalScaling"
NEEDS: dict[str, list[str]] = {
    "AuthorizeNodeWithSelectors": ["AuthorizeWithSelectors"],
    "ClusterTrustBundleProjection": ["ClusterTrustBundle"],
    **{
        f"DRA{feature}": [_DRA]
        for feature in (
            "AdminAccess",
            "ConsumableCapacity",
            "DeviceTaints",
            "ExtendedResource",
            "ListTypeAttributes",
            "NodeAllocatableResources",
            "PartitionableDevices",
            "PrioritizedList",
            "ResourcePoolStatus",
            "SchedulerFilterTimeout",
        )
    },
    "DRADeviceBindingConditions": [_DRA, "DRAResourceClaimDeviceStatus"],
    "DRADeviceTaintRules": ["DRADeviceTaints"],
    "DRAResourceClaimGranularStatusAuthorization": [_DRA, "DRAResourceClaimDeviceStatus"],
    "DRAWorkloadResourceClaims": [_DRA, "GenericWorkload"],
    "DeclarativeValidationBeta": ["DeclarativeValidation"],
    "DeclarativeValidationTakeover": ["DeclarativeValidation"],
    "DisableAllocatorDualWrite": ["MultiCIDRServiceAllocator"],
    "ExtendWebSocketsToKubelet": [_DECLARED],
    "GangScheduling": ["GenericWorkload"],
    "GracefulNodeShutdownBasedOnPodPriority": ["GracefulNodeShutdown"],
    "ImageVolumeWithDigest": ["ImageVolume"],
    "InPlacePodLevelResourcesVerticalScaling": [_RESIZE, _DECLARED, "PodLevelResources"],
    "InPlacePodVerticalScalingExclusiveCPUs": [_RESIZE],
    "InPlacePodVerticalScalingExclusiveMemory": [_RESIZE],
    "InPlacePodVerticalScalingInitContainers": [_RESIZE, _DECLARED],
    "MatchLabelKeysInPodTopologySpreadSelectorMerge": ["MatchLabelKeysInPodTopologySpread"],
    "PodCertificateRequest": ["AuthorizeNodeWithSelectors"],
    "PodLevelResourceManagers": ["PodLevelResources"],
    "PodLifecycleSleepActionAllowZero": ["PodLifecycleSleepAction"],
    "ProcMountType": ["UserNamespacesSupport"],
    "ResourceHealthStatus": [_DRA],
    "ResourceHealthStatusMessage": ["ResourceHealthStatus"],
    "RestartAllContainersOnContainerExits": ["ContainerRestartRules", _DECLARED],
    "ServiceAccountTokenNodeBinding": ["ServiceAccountTokenNodeBindingValidation"],
    **{
        f"StaleControllerConsistency{kind}": ["AtomicFIFO"]
        for kind in ("DaemonSet", "Job", "ReplicaSet", "StatefulSet")
    },
    "StorageVersionAPI": ["APIServerIdentity"],
    "StructuredAuthenticationConfigurationEgressSelector": ["StructuredAuthenticationConfiguration"],
    "StructuredAuthenticationConfigurationJWKSMetrics": ["StructuredAuthenticationConfiguration"],
    "TopologyAwareWorkloadScheduling": ["GenericWorkload"],
    "UnknownVersionInteroperabilityProxy": ["APIServerIdentity"],
    "UserNamespacesHostNetworkSupport": [_DECLARED, "UserNamespacesSupport"],
    "WindowsGracefulNodeShutdown": ["GracefulNodeShutdown"],
    "WorkloadAwarePreemption": ["GangScheduling"],
    "WorkloadWithJob": ["GenericWorkload"],
}


def rows(facts: list[dict[str, Any]]) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {}
    for gate in facts:
        now = gate["versionedSpecs"][-1]
        if gate["name"] not in GONE:
            name = RENAMED.get(gate["name"], gate["name"])
            found[name] = [STAGES[now["preRelease"]], now["default"], now["lockToDefault"], NEEDS.get(name, [])]
    for name, row in MORE.items():
        found[name] = [*row, NEEDS.get(name, [])]
    if unknown := {n for name in NEEDS for n in (name, *NEEDS[name])} - found.keys():
        raise SystemExit(f"no such gates: {sorted(unknown)}")
    return dict(sorted(found.items()))


def main() -> int:
    if len(sys.argv) != 2:
        print(__doc__, file=sys.stderr)
        return 2
    lines = (
        f"{json.dumps(k)}: {json.dumps(v)}" for k, v in rows(yaml.safe_load(Path(sys.argv[1]).read_text())).items()
    )
    OUT.write_text("{\n" + ",\n".join(lines) + "\n}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
