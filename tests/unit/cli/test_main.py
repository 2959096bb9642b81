"""The command: what it says when it can't."""

from __future__ import annotations

import os
import sys

import pytest

from berg.cli.main import main
from berg.lifecycle.errors import LifecycleError
from berg.lifecycle.host import choose_runtime
from berg.lifecycle.layout import Layout


def test_files_of_others_are_a_message_and_no_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(*_: object) -> Layout:
        raise PermissionError(13, "Permission denied", "/root/x/spec.json")

    monkeypatch.setattr(Layout, "of", refused)
    monkeypatch.setattr(sys, "argv", ["berg", "down", "--data-dir", "/root/x"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 1
    said = capsys.readouterr().err
    assert "Error: [Errno 13] Permission denied: '/root/x/spec.json'" in said
    assert "choose another place with --data-dir" in said


def test_containerd_needs_root_before_it_is_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(LifecycleError, match="need root"):
        choose_runtime("containerd", "/nonexistent.sock", print)
