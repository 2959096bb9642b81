"""What can stand in the way of a cluster, each with the way out.

LifecycleError
 ├── NameInUse       the cluster is up already (or an unfinished one holds the name)
 ├── PortTaken
 ├── BadDataDir      of another version, or damaged
 └── NotThere        no cluster of that name
"""

from __future__ import annotations


class LifecycleError(Exception):
    """`hint` says what to do; the command line prints both and exits with 1."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class NameInUse(LifecycleError):
    pass


class PortTaken(LifecycleError):
    pass


class BadDataDir(LifecycleError):
    pass


class NotThere(LifecycleError):
    pass
