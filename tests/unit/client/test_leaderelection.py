from fake_api import FakeAPI

from berg.client.leaderelection import LeaderElector
from berg.client.rest import Client
from berg.machinery import status
from berg.machinery.clock import FakeClock


class Candidate:
    def __init__(self, api: FakeAPI, clock: FakeClock, who: str) -> None:
        self.log: list[str] = []
        self.elector = LeaderElector(
            Client(api, clock=clock), "kcm", who, on_started=self.started, on_stopped=self.stopped, clock=clock
        )

    async def started(self) -> None:
        self.log.append("started")

    async def stopped(self) -> None:
        self.log.append("stopped")


async def test_one_leads_and_the_next_takes_over_when_it_stops():
    clock = FakeClock()
    api = FakeAPI(clock)
    a, b = Candidate(api, clock, "a"), Candidate(api, clock, "b")
    a.elector.start()
    await clock.advance(1)
    b.elector.start()
    await clock.advance(60)
    assert (a.log, b.log) == (["started"], [])
    await a.elector.stop()
    await clock.advance(5)
    assert (a.log, b.log) == (["started", "stopped"], ["started"])
    lease = api.one("leases", "kube-system/kcm", "coordination.k8s.io")
    assert lease is not None
    assert lease["spec"]["holderIdentity"] == "b"
    await b.elector.stop()


async def test_one_who_cannot_renew_stops_before_the_other_starts():
    clock = FakeClock()
    api = FakeAPI(clock)
    a, b = Candidate(api, clock, "a"), Candidate(api, clock, "b")
    a.elector.start()
    await clock.advance(1)
    cut_off = [True]
    api.answer_hook = lambda m, p, doc: (
        status.service_unavailable("cut off")
        if cut_off[0] and m == "PUT" and doc["spec"]["holderIdentity"] in ("a", "")
        else None
    )
    b.elector.start()
    await clock.advance(13)
    assert (a.log, b.log) == (["started", "stopped"], [])
    await clock.advance(8)
    assert b.log == ["started"]
    await a.elector.stop()
    await b.elector.stop()
