"""Structured logging: a constant event name and keys from the glossary, as JSON lines or, on a terminal, to be read.

Everything goes to standard error, so that standard output stays the answer of a verb. What libraries say through the
standard library's logging arrives as the event ``library`` from level warning on. A log line that cannot be written
(disk full, terminal gone) is counted and given up: no repair fails because of it.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Mapping, MutableMapping
from typing import Any, TextIO

import structlog
from structlog.typing import Processor

from reconciler.errors import ConfigError

LEVELS: Mapping[str, int] = {"debug": 10, "info": 20, "warning": 30, "error": 40}


class _State:
    """The threshold and the counter of lost lines; one per process, as logging is."""

    level: str = "info"
    threshold: int = LEVELS["info"]
    lost: int = 0


class Logger(structlog.BoundLoggerBase):
    """What `get_logger` returns. The level is asked at each call, so that it can be changed while the daemon runs."""

    def debug(self, event: str, **values: Any) -> None:
        self._say("debug", event, values)

    def info(self, event: str, **values: Any) -> None:
        self._say("info", event, values)

    def warning(self, event: str, **values: Any) -> None:
        self._say("warning", event, values)

    def error(self, event: str, **values: Any) -> None:
        self._say("error", event, values)

    def exception(self, event: str, **values: Any) -> None:
        """An error with the traceback of the exception being handled."""
        self._say("error", event, {"exc_info": True, **values})

    def _say(self, level: str, event: str, values: dict[str, Any]) -> None:
        if LEVELS[level] >= _State.threshold:
            self._proxy_to_logger(level, event, **values)


class _Output:
    """Writes whole lines; never raises."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def _line(self, message: str) -> None:
        try:
            self._stream.write(message + "\n")
            self._stream.flush()
        except (OSError, ValueError):  # full disk, closed terminal: the daemon's work goes on without the line
            _State.lost += 1

    debug = info = warning = error = _line


class _Library(logging.Handler):
    """Hands what libraries log to structlog."""

    def emit(self, record: logging.LogRecord) -> None:
        level = "error" if record.levelno >= logging.ERROR else "warning"
        values: dict[str, Any] = {"component": record.name, "message": record.getMessage()}
        if record.exc_info:
            values["exc_info"] = record.exc_info
        structlog.get_logger()._say(level, "library", values)  # noqa: SLF001 (the class above)


def configure(level: str = "info", fmt: str = "auto", stream: TextIO | None = None) -> None:
    """Set logging up for this process. `fmt` is auto (console on a terminal), json or console."""
    output = stream or sys.stderr
    console = fmt == "console" or (fmt == "auto" and output.isatty())
    structlog.configure(
        processors=[*_common(), *(_console(output) if console else _json())],
        wrapper_class=Logger,
        logger_factory=lambda *_: _Output(output),
        cache_logger_on_first_use=False,
    )
    set_level(level)
    root = logging.getLogger()
    root.handlers = [_Library(logging.WARNING)]
    root.setLevel(logging.WARNING)
    logging.captureWarnings(capture=True)


def set_level(level: str) -> str:
    """Change the level now, for every logger; returns the one before. Raises ConfigError for an unknown one."""
    wanted = level.lower()
    if wanted not in LEVELS:
        raise ConfigError(f"there is no log level {level!r}; there are {', '.join(LEVELS)}")
    before, _State.level, _State.threshold = _State.level, wanted, LEVELS[wanted]
    return before


def get_level() -> str:
    return _State.level


def lost_lines() -> int:
    """How many lines could not be written."""
    return _State.lost


def get_logger(name: str, **values: Any) -> Logger:
    """A logger that puts ``component=name`` and `values` on every line. Cheap; may be made before `configure`."""
    logger: Logger = structlog.get_logger(component=name, **values)
    return logger


def _common() -> list[Processor]:
    return [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.StackInfoRenderer(),
    ]


def _json() -> list[Processor]:
    return [
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="at"),
        structlog.processors.format_exc_info,
        structlog.processors.JSONRenderer(default=str, ensure_ascii=False),
    ]


def _console(stream: TextIO) -> list[Processor]:
    colors = stream.isatty() and not os.environ.get("NO_COLOR")
    return [
        structlog.processors.TimeStamper(fmt="%H:%M:%S.%f", utc=False, key="timestamp"),
        _short_time,
        structlog.dev.ConsoleRenderer(
            colors=colors, exception_formatter=structlog.dev.plain_traceback, sort_keys=False
        ),
    ]


def _short_time(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Milliseconds are enough for a person."""
    event["timestamp"] = str(event["timestamp"])[:-3]
    return event
