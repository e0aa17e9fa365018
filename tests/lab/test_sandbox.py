"""The sandboxed node: what it is inside, and how it ends on a terminal."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
import time
import uuid
from pathlib import Path

from tests.lab.kernel import Capability

CHECKOUT = Path(__file__).parents[2]


def test_the_exit_code_is_the_commands() -> None:
    assert _inside("exit 7").returncode == 7
    assert _inside("kill -TERM $$").returncode == 143


def test_a_command_that_does_not_exist_is_named() -> None:
    done = subprocess.run(
        _argv("no-such-command"), cwd=CHECKOUT, capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 69
    assert "no-such-command" in done.stderr


def test_inside_is_a_node_of_its_own() -> None:
    done = _inside("""
        hostname; ls /sys/class/net; ps -e -o comm= | grep -c . ; ls -A /run /tmp | tr '\\n' ' '
        test -S /run/dbus/system_bus_socket || echo no-dbus
        ip tuntap add tap0 mode tap && echo tap
        ovs-vsctl --timeout=10 add-br br0 -- set bridge br0 datapath_type=netdev && ovs-appctl dpif/show | grep -c br0
    """)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n")[:2] == ["network", "lo"]
    assert "no-dbus\ntap\n" in done.stdout
    assert "netns openvswitch" in done.stdout


def test_what_belongs_to_the_whole_machine_cannot_be_written_inside() -> None:
    done = _inside("""
        for file in /proc/sys/kernel/panic /proc/sys/vm/swappiness /proc/sysrq-trigger /sys/kernel/uevent_helper; do
            test -w $file && echo "could write $file"
        done
        sysctl -qw net.ipv4.ip_forward=1 && sysctl -n net.ipv4.ip_forward
    """)
    assert done.stdout == "1\n"


def test_the_capabilities_that_act_on_the_whole_machine_are_not_there() -> None:
    # Looked at, not tried: what would be tried is the machine's clock, its memory, its modules.
    name = uuid.uuid4().hex[:8]
    outer = [sys.executable, "-m", "tests.lab.sandbox"]
    look = "grep CapEff: /proc/self/status"
    with subprocess.Popen(
        [*outer, "run", "--name", name, "--", "sh", "-c", f"{look}; sleep 60"],
        cwd=CHECKOUT,
        stdout=subprocess.PIPE,
        text=True,
    ) as node:
        assert node.stdout is not None
        command = node.stdout.readline()
        entered = subprocess.run(
            [*outer, "enter", "--name", name, "--", "sh", "-c", look],
            cwd=CHECKOUT,
            stdout=subprocess.PIPE,
            text=True,
            timeout=30,
            check=True,
        ).stdout
        node.terminate()
    assert len(Capability) == 6
    for line in (command, entered):
        held = int(line.split()[1], 16)
        assert [capability.name for capability in Capability if held >> capability & 1] == []
        assert held >> 21 & 1  # CAP_SYS_ADMIN: the node mounts and makes namespaces


def test_a_checkout_under_tmp_is_seen_inside_and_never_written(tmp_path: Path) -> None:
    (tmp_path / "seen").write_text("x")
    program = [sys.executable, "-m", "tests.lab.sandbox", "run", "--name", uuid.uuid4().hex[:8], "--dir", str(tmp_path)]
    done = subprocess.run(
        [*program, "--", "sh", "-c", "pwd; cat seen; echo y >seen; cat seen"],
        cwd=CHECKOUT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.stdout == f"{tmp_path}\nxy\n", done.stderr
    assert (tmp_path / "seen").read_text() == "x"


def test_ctrl_c_reaches_the_command_once_and_the_shell_has_its_terminal_back() -> None:
    command = "trap 'echo interrupted; sleep 0.3; exit 5' INT; echo up; while :; do sleep 0.05; done"
    line = f'{" ".join(_argv())} sh -c "{command}"; echo code-$?; stty -a >/dev/null && echo terminal-is-back; exit\n'
    master, slave = pty.openpty()
    shell = subprocess.Popen(
        ["setsid", "--ctty", "--wait", "bash", "--norc", "--noediting", "-i"],
        cwd=CHECKOUT,
        stdin=slave,
        stdout=slave,
        stderr=slave,
    )
    os.close(slave)
    try:
        os.write(master, line.encode())
        _read(master, r"up\r")
        os.write(master, b"\x03")
        said = _read(master, r"terminal-is-back\r|no job control")
    finally:
        os.close(master)
        shell.wait(20)
    assert said.count("interrupted\r") == 1
    assert "code-5" in said


def _argv(*command: str) -> list[str]:
    name = uuid.uuid4().hex[:8]
    return [sys.executable, "-m", "tests.lab.sandbox", "run", "--name", name, "--", *command]


def _inside(script: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        _argv("sh", "-c", script),
        cwd=CHECKOUT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def _read(terminal: int, until: str) -> str:
    """What the terminal showed up to and with a match of `until`, within 15 seconds."""
    text, deadline = "", time.monotonic() + 15
    os.set_blocking(terminal, False)
    while not re.search(until, text):
        assert time.monotonic() < deadline, text
        try:
            text += os.read(terminal, 4096).decode(errors="replace")
        except BlockingIOError:
            time.sleep(0.01)
    os.set_blocking(terminal, True)
    return text
