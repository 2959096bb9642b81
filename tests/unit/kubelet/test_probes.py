"""Probe workers against a clock that stands still; the prober against real sockets."""

import asyncio

import pytest

from berg.kubelet.probes import prober
from berg.kubelet.probes.manager import ProbeManager
from berg.machinery.clock import FakeClock, rfc3339
from berg.runtime.cri import Code, CRIError

from .fakes import Events, FakeCRI, pod


class Rig:
    def __init__(self, **probes):
        self.clock = FakeClock()
        self.cri = FakeCRI(self.clock)
        self.events = Events()
        self.changes = []
        self.manager = ProbeManager(self.cri, self.clock, self.events, self.changes.append)
        self.pod = pod(containers=[{"name": "c", "image": "i", **probes}])
        self.manager.add_pod(self.pod)

    def status(self, id="1", started=True):
        state = {"running": {"startedAt": rfc3339(self.clock.now())}}
        s = {"name": "c", "containerID": f"fake://{id}", "state": state, "started": started}
        self.manager.status_changed(self.pod, {"containerStatuses": [s]})

    def answer(self, code):
        self.cri.exec_results["probe",] = (code, b"words")


EXEC = {"exec": {"command": ["probe"]}, "periodSeconds": 10, "failureThreshold": 3, "successThreshold": 1}


async def test_readiness():
    rig = Rig(readinessProbe=EXEC)
    rig.answer(1)
    await rig.clock.advance(0)
    assert rig.cri.calls == []  # nothing runs yet
    rig.status()
    await rig.clock.advance(0)
    assert rig.manager.result("readiness", "1") is None
    rig.answer(0)
    await rig.clock.advance(10)
    assert rig.manager.result("readiness", "1") is True
    rig.answer(1)
    await rig.clock.advance(20)
    assert rig.manager.result("readiness", "1") is True
    await rig.clock.advance(10)
    assert rig.manager.result("readiness", "1") is False
    assert rig.changes == ["uid-p", "uid-p"]
    assert ("Warning", "Unhealthy", "Readiness probe failed: words") in rig.events
    await rig.manager.stop()


async def test_liveness_holds_until_there_is_a_new_container():
    rig = Rig(livenessProbe={**EXEC, "failureThreshold": 1, "initialDelaySeconds": 5})
    rig.answer(1)
    rig.status()
    await rig.clock.advance(4)
    assert rig.cri.calls == []
    await rig.clock.advance(1)
    assert rig.manager.result("liveness", "1") is False
    await rig.clock.advance(100)
    assert len(rig.cri.calls) == 1
    rig.answer(0)
    rig.status("2")
    await rig.clock.advance(6)
    assert len(rig.cri.calls) == 2
    assert rig.manager.result("liveness", "2") is True
    await rig.manager.stop()


async def test_the_others_wait_for_startup():
    rig = Rig(startupProbe=EXEC, livenessProbe=EXEC)
    rig.answer(0)
    rig.status(started=False)
    await rig.clock.advance(0)
    assert rig.manager.result("startup", "1") is True
    assert len(rig.cri.calls) == 1
    rig.status(started=True)
    await rig.clock.advance(0)
    assert len(rig.cri.calls) == 2
    await rig.manager.stop()


async def test_a_probe_that_cannot_run_changes_nothing():
    rig = Rig(readinessProbe=EXEC)
    rig.cri.fail["exec_sync"] = CRIError(Code.UNKNOWN, "gone")
    rig.status()
    await rig.clock.advance(0)
    assert len(rig.cri.calls) == 3  # it was tried again at once
    assert rig.manager.result("readiness", "1") is None
    assert rig.events.reasons == ["Unhealthy"]
    await rig.manager.stop()


async def test_what_was_ready_before_a_restart_stays_ready():
    rig = Rig(readinessProbe=EXEC)
    s = {"name": "c", "containerID": "fake://1", "state": {"running": {}}, "ready": True, "started": True}
    rig.manager.adopt({**rig.pod, "status": {"containerStatuses": [s]}})
    assert rig.manager.result("readiness", "1") is True
    assert rig.manager.result("startup", "1") is True
    await rig.manager.stop()


async def serve(text):
    async def handle(reader, writer):
        try:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(text)
            await writer.drain()
        except asyncio.IncompleteReadError:
            pass  # a TCP probe only connects
        finally:
            writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    return server, server.sockets[0].getsockname()[1]


@pytest.mark.parametrize(
    ("text", "ok", "warning", "output"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", True, False, "hi"),
        (b"HTTP/1.1 500 No\r\nContent-Length: 2\r\n\r\nno", False, False, "HTTP probe failed with statuscode: 500"),
        (
            b"HTTP/1.1 302 Found\r\nLocation: http://elsewhere/\r\nContent-Length: 0\r\n\r\n",
            True,
            True,
            "Probe terminated redirects, Response body: ",
        ),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n", True, False, "hi"),
    ],
)
async def test_http(text, ok, warning, output):
    server, port = await serve(text)
    action = {"httpGet": {"port": "web", "path": "/x"}}
    c = {"name": "c", "ports": [{"name": "web", "containerPort": port}]}
    result = await prober.run(None, action, c, "1", "127.0.0.1")
    assert (result.ok, result.warning, result.output, result.error) == (ok, warning, output, "")
    server.close()
    await server.wait_closed()


async def test_tcp():
    server, port = await serve(b"")
    probe = {"tcpSocket": {"port": port}}
    assert (await prober.run(None, probe, {"name": "c"}, "1", "127.0.0.1")).ok
    server.close()
    await server.wait_closed()
    result = await prober.run(None, probe, {"name": "c"}, "1", "127.0.0.1")
    assert result.output == f"dial tcp 127.0.0.1:{port}: connect: connection refused"
