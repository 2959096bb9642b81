"""The schema bundle: all that is known about built-in kinds as data."""

from __future__ import annotations

from berg.machinery.resources import Resource


def resources() -> list[Resource]:
    raise NotImplementedError
