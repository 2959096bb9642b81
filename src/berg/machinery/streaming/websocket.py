"""WebSocket messages over a ByteStream whose handshake is done; and `Tunnel`, a ByteStream inside a WebSocket."""

from __future__ import annotations

import asyncio

from wsproto.connection import Connection, ConnectionState, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Message, Ping, TextMessage
from wsproto.frame_protocol import CloseReason
from wsproto.utilities import LocalProtocolError, RemoteProtocolError

from berg.machinery.streaming.stream import ByteStream

_MAX_MESSAGE = 32 << 20


class WebSocket:
    def __init__(self, stream: ByteStream, *, client: bool = False) -> None:
        self._stream = stream
        self._ws = Connection(ConnectionType.CLIENT if client else ConnectionType.SERVER)
        self._events = self._ws.events()
        self._parts: list[bytes] = []
        self._size = 0

    async def receive(self) -> bytes | str | None:
        """The next whole message; None when the connection has ended in whatever way. Pings are answered."""
        while True:
            for event in self._events:
                if isinstance(event, Message):
                    message = self._collect(event)
                    if message is not None:
                        return message
                elif isinstance(event, Ping):
                    self._send(self._ws.send(event.response()))
                elif isinstance(event, CloseConnection):
                    if self._ws.state is ConnectionState.REMOTE_CLOSING:
                        self._send(self._ws.send(event.response()))
                    return None
            try:
                data = await self._stream.reader.read(65536)
                self._ws.receive_data(data or None)
            except (OSError, RemoteProtocolError):
                return None
            if not data:
                return None
            self._events = self._ws.events()

    def _collect(self, event: Message) -> bytes | str | None:
        data = event.data if isinstance(event, BytesMessage) else str(event.data).encode()
        self._size += len(data)
        if self._size > _MAX_MESSAGE:
            self.close(CloseReason.MESSAGE_TOO_BIG)
            return None
        if not event.message_finished:
            self._parts.append(bytes(data))
            return None
        whole = b"".join([*self._parts, data]) if self._parts else bytes(data)
        self._parts.clear()
        self._size = 0
        return whole.decode() if isinstance(event, TextMessage) else whole

    async def send(self, message: bytes | str) -> None:
        """Raises ConnectionError when the connection is closed."""
        event: Message = TextMessage(message) if isinstance(message, str) else BytesMessage(message)
        try:
            self._send(self._ws.send(event))
        except LocalProtocolError:
            raise ConnectionResetError("the WebSocket is closed") from None
        await self._stream.drain()

    def _send(self, data: bytes) -> None:
        self._stream.write(data)

    def close(self, code: int = CloseReason.NORMAL_CLOSURE, reason: str = "") -> None:
        """Says goodbye; the connection itself stays until the other side has answered (`receive` gives None)."""
        try:
            self._send(self._ws.send(CloseConnection(code=code, reason=reason or None)))
        except (LocalProtocolError, OSError):
            pass

    def abort(self) -> None:
        self._stream.close()


class Tunnel:
    """A ByteStream whose bytes travel as binary messages: SPDY inside WebSocket."""

    def __init__(self, ws: WebSocket) -> None:
        self._ws = ws
        self.reader = asyncio.StreamReader()
        self.reader.set_transport(_Brake(self))
        self.flowing = asyncio.Event()
        self.flowing.set()
        self._out: list[bytes] = []
        self._task = asyncio.create_task(self._pump())

    async def _pump(self) -> None:
        try:
            while (message := await self._ws.receive()) is not None:
                self.reader.feed_data(message if isinstance(message, bytes) else message.encode())
                await self.flowing.wait()
        finally:
            self.reader.feed_eof()

    def write(self, data: bytes) -> None:
        self._out.append(data)

    async def drain(self) -> None:
        if self._out:
            data, self._out = b"".join(self._out), []
            await self._ws.send(data)

    def close(self) -> None:
        self._ws.close()
        self._ws.abort()
        self._task.cancel()


class _Brake(asyncio.ReadTransport):
    """Lets the StreamReader of a tunnel hold up the WebSocket when nobody reads."""

    def __init__(self, tunnel: Tunnel) -> None:
        super().__init__()
        self._tunnel = tunnel

    def pause_reading(self) -> None:
        self._tunnel.flowing.clear()

    def resume_reading(self) -> None:
        self._tunnel.flowing.set()
