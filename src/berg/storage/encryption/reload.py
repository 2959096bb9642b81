"""An EncryptionConfiguration that is read again when its file changes, without anything else being opened anew.

Every resource gets a transformer that looks up, at each value, what the configuration in force says of it. A new one
is taken when all of its plugins are well; the old one is closed a while later, since reads may still be under way.

Source: k8s.io/apiserver pkg/server/options/encryptionconfig (DynamicTransformers, controller).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from pathlib import Path

from berg.machinery.clock import Clock, RealClock
from berg.storage.encryption.config import Encryption, ResourceTransformer, load
from berg.storage.encryption.providers import Identity

GRACE_S = 10.0
"""at least that long plugins may take to become well, and the old configuration stays open"""
LOOK_S = 0.1


class PluginsNotWell(Exception):
    """The new configuration is not taken."""


class Reloading:
    def __init__(self, path: Path, clock: Clock | None = None) -> None:
        """Raises InvalidConfiguration, OSError."""
        self._path = path
        self._clock = clock or RealClock()
        self._current = load(path, clock)
        self._rotated: Callable[[], None] = lambda: None
        self._closing: set[asyncio.Task[None]] = set()

    def transformer(self, group: str, plural: str) -> Following:
        return Following(self, group, plural)

    def found(self, group: str, plural: str) -> tuple[Encryption, ResourceTransformer | None]:
        return self._current, self._current.transformer(group, plural)

    @property
    def current(self) -> Encryption:
        return self._current

    async def start(self) -> None:
        await self._current.start()

    async def reload(self) -> None:
        """Raises InvalidConfiguration, OSError, PluginsNotWell."""
        new = load(self._path, self._clock)
        grace_s = max(GRACE_S, 2 * new.timeouts_s())
        await new.start()
        until = self._clock.monotonic() + grace_s
        while new.problems():
            if self._clock.monotonic() >= until:
                told = "; ".join(new.problems())
                await new.close()
                raise PluginsNotWell(f"health check for new transformers failed, polling error: {told}")
            await self._clock.sleep(LOOK_S)
            await new.poll()
        new.on_rotated(self._rotated)
        old, self._current = self._current, new
        task = asyncio.get_running_loop().create_task(self._close_later(old, grace_s))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    async def _close_later(self, old: Encryption, grace_s: float) -> None:
        try:
            await self._clock.sleep(grace_s)
        finally:
            await old.close()

    async def close(self) -> None:
        for task in list(self._closing):
            task.cancel()
        await asyncio.gather(*self._closing, return_exceptions=True)
        await self._current.close()

    def on_rotated(self, call: Callable[[], None]) -> None:
        self._rotated = call
        self._current.on_rotated(call)

    def uses_plugins(self) -> bool:
        return self._current.uses_plugins()

    def problems(self) -> list[str]:
        return self._current.problems()


class Following:
    """The `Transformer` of one resource, whatever configuration is in force."""

    def __init__(self, owner: Reloading, group: str, plural: str) -> None:
        self._owner = owner
        self._group = group
        self._plural = plural
        self._of: Encryption | None = None
        self._found: ResourceTransformer | Identity = Identity()

    def _now(self) -> ResourceTransformer | Identity:
        if self._of is not self._owner.current:
            self._of, found = self._owner.found(self._group, self._plural)
            self._found = found or Identity()
        return self._found

    def to_storage(self, key: bytes, value: bytes) -> bytes:
        now = self._now()
        return now.encrypt(key, value) if isinstance(now, Identity) else now.to_storage(key, value)

    def from_storage(self, key: bytes, data: bytes) -> tuple[bytes, bool]:
        now = self._now()
        return now.decrypt(key, data) if isinstance(now, Identity) else now.from_storage(key, data)

    async def prepare(self, values: Iterable[bytes]) -> None:
        now = self._now()
        if not isinstance(now, Identity):
            await now.prepare(values)
