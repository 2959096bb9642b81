"""The wire protocols of exec, attach and port-forward. How the rooms are used:

Serving (a runtime's streaming server, a kubelet, the API server):

    handshake = handshake_for_exec(method, headers)       # raises ApiError: answer with its status
    # answer 101 with handshake.headers, then with the raw connection (a ByteStream):
    await remotecommand.serve_exec(stream, handshake, ExecOptions(stdin=True, stdout=True), handler)

    handshake = handshake_for_port_forward(method, headers)
    await portforward.serve_port_forward(stream, handshake, connect, ports=[80])

`handler(session: ExecSession) -> int` runs the command: it reads `session.stdin`, calls
`session.write_stdout/_stderr`, follows `session.sizes()` and returns the exit code; what it raises is told to the
client. `connect(port) -> ByteStream` dials into the pod. Attach is exec with another handler.

    handshake = handshake_for_reader(method, headers)     # a log or a watch, when is_websocket(headers)
    await reader.serve_chunks(stream, handshake, chunks)

Calling (a kubelet in front of containerd, `berg kubectl`-like tools): `remotecommand_client.connect_exec`,
`portforward_client.connect_port_forward`, both over a ByteStream that is already connected (`stream.dial`).
A proxy that need not look inside passes the upgrade request on and uses `stream.relay`.

Protocols: WebSocket `v5. v4. (none) channel.k8s.io`, the same with `base64.`, `SPDY/3.1+portforward.k8s.io`;
SPDY/3.1 with `v4. v3. v2. (none) channel.k8s.io` and `portforward.k8s.io`.
"""

from berg.machinery.streaming.handshake import (
    Handshake,
    handshake_for_exec,
    handshake_for_port_forward,
    handshake_for_reader,
    is_websocket,
)
from berg.machinery.streaming.stream import ByteStream, dial, relay

__all__ = [
    "ByteStream",
    "Handshake",
    "dial",
    "handshake_for_exec",
    "handshake_for_port_forward",
    "handshake_for_reader",
    "is_websocket",
    "relay",
]
