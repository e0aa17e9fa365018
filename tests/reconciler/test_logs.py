"""The log: one JSON object a line, the level changeable under way, and never a reason for a repair to fail."""

import contextlib
import io
import json
import logging
from pathlib import Path

import pytest
import structlog

from reconciler import logs
from reconciler.errors import ConfigError


@pytest.fixture
def stream():
    """Logging set up to a buffer, and everything put back afterwards."""
    root = logging.getLogger()
    before, level = root.handlers, root.level
    yield io.StringIO()
    logging.captureWarnings(capture=False)
    root.handlers = before
    root.setLevel(level)
    structlog.reset_defaults()


def lines(stream: io.StringIO) -> list[dict]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_off_a_terminal_a_line_is_one_json_object(stream):
    logs.configure("info", "auto", stream)
    logs.get_logger("engine").info("repaired", scope="flow/br-int", text="two\nlines")
    (line,) = lines(stream)
    assert line["event"] == "repaired"
    assert line["component"] == "engine"
    assert line["text"] == "two\nlines"
    assert line["level"] == "info"


def test_the_level_changes_for_loggers_that_exist(stream):
    logger = logs.get_logger("engine", node="n1")
    bound = logger.bind(scope="a")
    logs.configure("warning", "json", stream)
    bound = logger.bind(scope="a")
    logger.info("unheard")
    assert logs.set_level("debug") == "warning"
    logger.debug("heard")
    bound.debug("heard_too")
    assert [line["event"] for line in lines(stream)] == ["heard", "heard_too"]
    with pytest.raises(ConfigError, match="there are debug, info, warning, error"):
        logs.set_level("chatty")


def test_console_lines_are_for_people(stream):
    logs.configure("info", "console", stream)
    logs.get_logger("engine").info("repaired", scope="flow/br-int")
    assert "repaired" in stream.getvalue()
    assert "scope=flow/br-int" in stream.getvalue()
    assert "\x1b" not in stream.getvalue()


def test_libraries_are_heard_from_warning_on(stream):
    logs.configure("info", "json", stream)
    logging.getLogger("aiohttp.access").info("GET /")
    logging.getLogger("aiohttp.server").warning("odd %s", "request")
    (line,) = lines(stream)
    assert (line["event"], line["component"], line["message"]) == ("library", "aiohttp.server", "odd request")


def test_an_exception_is_told_with_its_traceback(stream):
    logs.configure("info", "json", stream)
    try:
        int("broken")
    except ValueError:
        logs.get_logger("engine").exception("worker_failed")
    assert "ValueError: invalid literal" in lines(stream)[0]["exception"]


def test_a_full_disk_loses_lines_and_nothing_else(stream):
    full = Path("/dev/full").open("w")  # noqa: SIM115 (closing it fails too, which is the point)
    logs.configure("info", "json", full)
    before = logs.lost_lines()
    logs.get_logger("engine").info("repaired")
    assert logs.lost_lines() == before + 1
    with contextlib.suppress(OSError):
        full.close()
