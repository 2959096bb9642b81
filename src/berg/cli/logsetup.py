"""Where log lines go: one file for each component of a process, in klog's shape.

    I1121 20:15:04.123456   4711 kubelet.pleg] message

Files are rotated at 20 MiB, three are kept.
"""

from __future__ import annotations

import logging
import logging.handlers
import os
import sys
from datetime import UTC, datetime
from pathlib import Path

_LETTER = {
    logging.DEBUG: "D",
    logging.INFO: "I",
    logging.WARNING: "W",
    logging.ERROR: "E",
    logging.CRITICAL: "F",
}


class Klog(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        t = datetime.fromtimestamp(record.created, UTC)
        where = record.name.removeprefix("berg.")
        stamp = f"{t:%m%d %H:%M:%S.%f}"
        line = f"{_LETTER.get(record.levelno, 'I')}{stamp} {os.getpid():>7} {where}] {record.getMessage()}"
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


class Json(logging.Formatter):
    """One object a line, in the fields that upstream's `--logging-format=json` has."""

    def format(self, record: logging.LogRecord) -> str:
        import orjson

        where = f"{record.name.removeprefix('berg.').replace('.', '/')}.py:{record.lineno}"
        line: dict[str, object] = {"ts": round(record.created * 1000, 3), "caller": where, "msg": record.getMessage()}
        if record.levelno >= logging.ERROR:
            line["err"] = self.formatException(record.exc_info) if record.exc_info else ""
        else:
            line["v"] = 4 if record.levelno < logging.INFO else 0
        return orjson.dumps(line).decode()


def to_stderr(level: int = logging.INFO, *, json: bool = False) -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Json() if json else Klog())
    logging.basicConfig(level=level, handlers=[handler], force=True)


def to_files(directory: Path, components: dict[str, str], rest: str, level: int = logging.INFO) -> None:
    """`components`: logger name below `berg` → log file's name; everything else goes to `rest`."""
    logging.basicConfig(level=level, handlers=[_file(directory, rest)], force=True)
    for logger_name, name in components.items():
        if name == rest:
            continue
        logger = logging.getLogger(f"berg.{logger_name}")
        logger.addHandler(_file(directory, name))
        logger.propagate = False


def _file(directory: Path, name: str) -> logging.Handler:
    handler = logging.handlers.RotatingFileHandler(directory / f"{name}.log", maxBytes=20 << 20, backupCount=2)
    handler.setFormatter(Klog())
    return handler
