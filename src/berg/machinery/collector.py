"""Python's garbage collector, held while a great many objects are made that are no garbage: imports, start-up, the
replay of a log. Looking through them again and again takes a tenth of a start and finds nothing."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def held() -> Iterator[None]:
    """Collects nothing inside; afterwards as before. Spans that overlap are fine: the first one that ends lets go."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            if not gc.get_freeze_count():  # to the oldest generation at once, without being looked through
                gc.freeze()
                gc.unfreeze()
            gc.enable()


def settled() -> None:
    """For programs that have started: what is there now stays, and collections, from now on, need not look at it."""
    gc.collect()
    gc.freeze()
    gc.enable()
