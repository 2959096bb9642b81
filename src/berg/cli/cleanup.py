"""What `berg down` takes out of the kernel, by the packages that put it there."""

from __future__ import annotations

from berg.lifecycle.down import Cleaner

CLEANERS: list[Cleaner] = []
