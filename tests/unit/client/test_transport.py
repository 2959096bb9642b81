import os
from pathlib import Path

import pytest

from berg.client.transport import ConnectionFailed, HTTPTransport, TokenFile
from berg.machinery.clock import FakeClock


async def test_a_rotated_token_is_read_again(tmp_path: Path):
    clock = FakeClock()
    (tmp_path / "token").write_text("one\n")
    token = TokenFile(str(tmp_path / "token"), clock)
    assert token() == "one"
    (tmp_path / "token").write_text("two\n")
    assert token() == "one"
    await clock.advance(61)
    assert token() == "two"
    os.unlink(tmp_path / "token")
    await clock.advance(61)
    assert token() == "two", "what was read last serves while the file is being replaced"


async def test_no_answer_is_an_error_of_its_own():
    http = HTTPTransport("http://127.0.0.1:1")
    with pytest.raises(ConnectionFailed) as e:
        await http.request("GET", "/api")
    assert e.value.code == 503
    await http.close()
