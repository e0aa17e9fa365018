"""Running the node's tools: never a shell, never for ever, and what went wrong in words."""

import pytest

from controllers.drivers import tools
from reconciler.errors import DriverError


def test_output_and_code_are_returned():
    said = tools.run(["sh", "-c", "cat; echo no >&2; exit 3"], timeout=5, stdin="yes", check=False)
    assert said == tools.Said(3, "yes", "no\n")


def test_arguments_are_never_words_for_a_shell():
    assert tools.run(["echo", "$(id); a b", "*"], timeout=5).out == "$(id); a b *\n"


def test_a_failing_tool_is_quoted():
    with pytest.raises(DriverError, match=r"'sh -c echo bad news >&2; exit 7' ended with 7 and said: bad news$"):
        tools.run(["sh", "-c", "echo bad news >&2; exit 7"], timeout=5)


def test_a_tool_that_hangs_is_stopped_and_named():
    with pytest.raises(DriverError, match=r"'sleep 60' did not answer within 0\.05 s and was stopped"):
        tools.run(["sleep", "60"], timeout=0.05)


def test_a_missing_tool_is_named():
    with pytest.raises(tools.ToolMissingError, match="ovs-nothing is not installed") as caught:
        tools.run(["ovs-nothing"], timeout=1)
    assert caught.value.tool == "ovs-nothing"


def test_tools_of_administrators_are_found_without_their_path(monkeypatch):
    monkeypatch.setenv("PATH", "/nonexistent")
    assert tools.find("ip") or tools.find("sysctl")


def test_the_locale_is_c_and_the_environment_can_be_added_to(monkeypatch):
    monkeypatch.setenv("LC_ALL", "de_DE.UTF-8")
    assert tools.run(["sh", "-c", "echo $LC_ALL $OVS_RUNDIR"], timeout=5, env={"OVS_RUNDIR": "/x"}).out == "C /x\n"
