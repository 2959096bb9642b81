"""pytest fixtures: `cluster`, a running test cluster, and `kubeconfig`, the path of a file to reach it with.

pytest finds them by itself where Berg is installed (entry point `pytest11`).
Options for one test: `@pytest.mark.berg(nodes=3, controllers=False)`, the arguments of `Cluster`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import Future
from threading import Thread
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from berg.testing.cluster import Cluster


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "berg(**options): arguments of the test's Cluster")


def _options(request: pytest.FixtureRequest) -> dict[str, Any]:
    marker = request.node.get_closest_marker("berg")
    return dict(marker.kwargs) if marker else {}


try:
    import pytest_asyncio
except ImportError:  # only the fixture for synchronous tests then
    pass
else:

    @pytest_asyncio.fixture
    async def cluster(request: pytest.FixtureRequest) -> AsyncIterator[Cluster]:
        """A `Cluster` on the test's own event loop."""
        from berg.testing.cluster import Cluster

        async with Cluster(**_options(request)) as running:
            yield running


@pytest.fixture
def kubeconfig(request: pytest.FixtureRequest) -> Iterator[str]:
    """The path of a kubeconfig for a cluster that runs in a thread of its own: for tests that block."""
    from berg.testing.cluster import Cluster

    loop = asyncio.new_event_loop()
    thread = Thread(target=loop.run_forever, name="berg test cluster", daemon=True)
    thread.start()

    def run(what: Any) -> Any:
        done: Future[Any] = asyncio.run_coroutine_threadsafe(what, loop)
        return done.result(60)

    running = Cluster(**_options(request))
    try:
        run(running.__aenter__())
        yield running.kubeconfig_path
        run(running.__aexit__(None, None, None))
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()
