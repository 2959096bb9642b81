"""An HTTP/2 client for the tests, over the `h2` library: it says what it is told to, and remembers what it hears."""

from __future__ import annotations

import asyncio
import ssl
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions
import h2.settings


class Heard:
    """Of one stream."""

    def __init__(self) -> None:
        self.headers: list[tuple[str, str]] = []
        self.data = b""
        self.ended = False
        self.reset: int | None = None
        self.informed: list[str] = []

    @property
    def status(self) -> str:
        return dict(self.headers).get(":status", "")

    @property
    def over(self) -> bool:
        return self.ended or self.reset is not None


class Http2Client:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, reads: bool) -> None:
        self.reader, self.writer = reader, writer
        self.reads = reads
        """whether it opens the windows again for what it has read"""
        config = h2.config.H2Configuration(
            header_encoding="utf-8", validate_outbound_headers=False, normalize_outbound_headers=False
        )
        self.h2 = h2.connection.H2Connection(config)
        # The library hears nothing any more after GOAWAY, where the protocol lets streams end that are under way.
        table, state = self.h2.state_machine._transitions, h2.connection.ConnectionState.CLIENT_OPEN
        goaway = (state, h2.connection.ConnectionInputs.RECV_GOAWAY)
        self.h2.state_machine._transitions = {**table, goaway: (None, state)}
        self.streams: dict[int, Heard] = defaultdict(Heard)
        self.settings: dict[Any, int] = {}
        self.goaway: h2.events.ConnectionTerminated | None = None
        self.eof = False

    @classmethod
    async def connect(cls, port: int, *, window: int = 65535, reads: bool = True) -> Http2Client:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.set_alpn_protocols(["h2", "http/1.1"])
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
        assert writer.get_extra_info("ssl_object").selected_alpn_protocol() == "h2"
        client = cls(reader, writer, reads)
        client.h2.local_settings = h2.settings.Settings(
            client=True, initial_values={h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: window}
        )
        client.h2.initiate_connection()
        client.flush()
        await client.until(lambda: bool(client.settings))
        return client

    def flush(self) -> None:
        self.writer.write(self.h2.data_to_send())

    def raw(self, data: bytes) -> None:
        self.flush()
        self.writer.write(data)

    def ask(
        self,
        path: str = "/",
        method: str = "GET",
        body: bytes = b"",
        headers: Sequence[tuple[str, str]] = (),
        *,
        end: bool = True,
    ) -> int:
        number = self.h2.get_next_available_stream_id()
        head = [(":method", method), (":scheme", "https"), (":authority", "berg"), (":path", path), *headers]
        self.h2.send_headers(number, head, end_stream=end and not body)
        if body:
            self.h2.send_data(number, body, end_stream=end)
        self.flush()
        return number

    async def answer(self, number: int) -> Heard:
        await self.until(lambda: self.streams[number].over)
        return self.streams[number]

    async def get(self, path: str = "/", **more: Any) -> Heard:
        return await self.answer(self.ask(path, **more))

    async def until(self, heard: Callable[[], bool]) -> None:
        async with asyncio.timeout(30):
            while not heard() and not self.eof:
                try:
                    data = await self.reader.read(1 << 16)
                except (ConnectionError, ssl.SSLError):
                    data = b""
                if not data:
                    self.eof = True
                    break
                for event in self.h2.receive_data(data):
                    self._hear(event)
                self.flush()

    def _hear(self, event: h2.events.Event) -> None:
        if isinstance(event, h2.events.ResponseReceived):
            self.streams[event.stream_id].headers = [(str(k), str(v)) for k, v in event.headers]
        elif isinstance(event, h2.events.InformationalResponseReceived):
            self.streams[event.stream_id].informed.append(str(dict(event.headers)[":status"]))  # type: ignore[index]
        elif isinstance(event, h2.events.DataReceived):
            self.streams[event.stream_id].data += event.data
            if self.reads and event.flow_controlled_length:
                self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        elif isinstance(event, h2.events.StreamEnded):
            self.streams[event.stream_id].ended = True
        elif isinstance(event, h2.events.StreamReset):
            self.streams[event.stream_id].reset = int(event.error_code)
        elif isinstance(event, h2.events.RemoteSettingsChanged):
            self.settings |= {int(k): v.new_value for k, v in event.changed_settings.items()}
        elif isinstance(event, h2.events.ConnectionTerminated):
            self.goaway = event

    async def close(self) -> None:
        self.writer.transport.abort()
