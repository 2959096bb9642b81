"""The registry of metrics, as controllers know it."""

from berg.machinery.metrics import Registry, Samples

__all__ = ["Registry", "Samples"]
