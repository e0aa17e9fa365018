"""`./demo` changes nothing on the machine, however it ends: a look at the machine before and after."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.lab.demo import DemoError, find
from tests.lab.holder import NeedsRootError

CHECKOUT = Path(__file__).parents[2]
EXAMPLE, NODE = "all-in-one-external", "all-in-one"
TOKEN = "DEMO_TEST_TOKEN"
"""Marks every process that a demo started, through its environment."""


@pytest.fixture
def name() -> str:
    """Demos of parallel tests, and a person's own, do not meet."""
    if os.geteuid() != 0:
        raise NeedsRootError("needs root: ./demo makes namespaces and mounts")
    return f"test-{uuid.uuid4().hex[:8]}"


@pytest.fixture(autouse=True)
def untouched(name: str) -> Iterator[None]:
    """Before and after each test, the machine looks the same and nothing that carries the token runs."""
    before, switches = look(name), set(_switches())
    yield
    assert eventually(lambda: not marked(name)), f"still running: {marked(name)}"
    # Other tests of this run may have something there for a moment: only what stays is a difference.
    assert eventually(lambda: look(name) == before), _difference(before, look(name))
    assert eventually(lambda: not set(_switches()) - switches), "an Open vSwitch runs in the machine's own network"


def test_a_demo_that_ends_by_itself_leaves_nothing(name: str) -> None:
    done = _demo(name, "--for", "8", "--", "sh", "-c", _busy(name))
    assert done.returncode == 0, done.stdout
    assert "br-demo" in done.stdout


@pytest.mark.parametrize("sig", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_demo_that_is_ended_in_the_middle_leaves_nothing(name: str, sig: signal.Signals) -> None:
    with _running(name) as demo:
        assert marked(name)
        node = find(name)[0][NODE]
        assert Path(f"/proc/{node}/ns/net").readlink() != Path("/proc/self/ns/net").readlink()
        demo.send_signal(sig)
        demo.wait(30)
    assert eventually(lambda: not _is_found(name))
    assert eventually(lambda: not Path(f"/proc/{node}/exe").exists())


def test_a_second_demo_of_the_same_name_is_refused_and_the_first_goes_on(name: str) -> None:
    with _running(name):
        second = _demo(name, "--", "true")
        assert second.returncode == 69
        assert "runs already" in second.stdout
        inside = _demo(name, "--", "sh", "-c", "ovs-vsctl list-br; hostname; command -v reconcile", verb="shell")
        assert {"br-demo", NODE, "/opt/reconciler/current/bin/reconcile"} <= {*inside.stdout.split()}


def test_the_exit_code_is_the_commands(name: str) -> None:
    assert _demo(name, "--", "sh", "-c", "exit 7").returncode == 7


def _is_found(name: str) -> bool:
    try:
        find(name)
    except DemoError:
        return False
    return True


def _demo(name: str, *args: str, verb: str = "") -> subprocess.CompletedProcess[str]:
    argv = ["./demo", verb or EXAMPLE, "--name", name, *args]
    env = {**os.environ, TOKEN: name}
    both = subprocess.STDOUT
    return subprocess.run(
        argv, cwd=CHECKOUT, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=both, text=True,
        timeout=100, check=False,
    )  # fmt: skip


@contextlib.contextmanager
def _running(name: str) -> Iterator[subprocess.Popen[str]]:
    """A demo whose node has done what `_busy` does."""
    argv = ["./demo", EXAMPLE, "--name", name, "--", "sh", "-c", _busy(name)]
    env = {**os.environ, TOKEN: name}
    pipe, null = subprocess.PIPE, subprocess.DEVNULL
    with subprocess.Popen(argv, cwd=CHECKOUT, env=env, stdin=null, stdout=pipe, text=True) as demo:
        assert demo.stdout is not None
        assert any(line.strip() == "ready" for line in iter(demo.stdout.readline, ""))
        try:
            yield demo
        finally:
            demo.terminate()
            demo.wait(30)


def _busy(name: str) -> str:
    """Do to the node what would show on the machine if anything leaked."""
    return f"""set -e
    ovs-vsctl --timeout=10 add-br br-demo -- set bridge br-demo datapath_type=netdev
    ip netns add {name}; ip link add v-demo type veth peer name eth0 netns {name}
    ip addr add 10.99.0.1/24 dev v-demo; ip link set v-demo up; ip route add 10.98.0.0/24 dev v-demo
    iptables -t nat -A POSTROUTING -s 10.99.0.0/24 -j MASQUERADE
    echo 1 > /proc/sys/net/ipv4/ip_forward
    test ! -w /proc/sys/vm/swappiness
    mkdir -p /etc/reconciler; echo {name} > /etc/reconciler/leak; echo {name} > /usr/leak; touch /run/leak /tmp/leak
    ln -s /dev/null /etc/systemd/system/leak.service
    ovs-vsctl list-br; echo ready
    exec sleep 100"""


def look(name: str) -> dict[str, str]:
    """What the machine is, as far as a leaking demo could change it."""
    rules = "iptables-save; ip6tables-save; command -v nft >/dev/null && nft list ruleset; true"
    return {
        "links": _say("ip -o link | sed 's/ state .*//'"),
        "addresses": _say("ip -o addr | sed 's/valid_lft.*//'"),
        "routes": _say("ip route show table all; ip -6 route show table all; ip rule; ip -6 rule"),
        "namespaces": _say("ls -A /run/netns /var/run/netns 2>/dev/null"),
        "rules": re.sub(r"#.*|\[\d+:\d+\]", "", _say(rules)),
        "settings": _say("cat /proc/sys/net/ipv4/ip_forward /proc/sys/vm/swappiness /proc/sys/kernel/hostname"),
        "mounts": _say("cut -d' ' -f5- /proc/self/mountinfo"),
        "units": _say("find /etc/systemd /etc/rc?.d -type l | sort"),
        "policy": _say("ls -l /usr/sbin/policy-rc.d 2>&1; cat /usr/sbin/policy-rc.d 2>&1"),
        "files": _say(
            "ls -ld /run/openvswitch /run/reconciler /var/lib/reconciler /etc/reconciler /etc/openvswitch/* "
            "/var/lib/openvswitch/* /usr/leak /run/leak /tmp/leak 2>&1"
        ),
        "listening": _say(f"ss -Hlntu 'sport = :6640'; ss -Hlx | grep -o '@reconciler-demo/{name}.*'"),
    }


def _switches() -> Iterator[str]:
    """Open vSwitch's processes in the machine's own network (those of parallel tests have their own)."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            comm = (process / "comm").read_text().strip()
            if (
                comm in {"ovs-vswitchd", "ovsdb-server"}
                and (process / "ns/net").readlink() == Path("/proc/self/ns/net").readlink()
            ):
                yield f"{process.name} {comm}"
        except (FileNotFoundError, ProcessLookupError):
            continue


def marked(name: str) -> list[str]:
    """Processes anywhere on the machine that descend from this demo."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if f"{TOKEN}={name}".encode() in (process / "environ").read_bytes().split(b"\0"):
                found.append((process / "cmdline").read_text().replace("\0", " "))
        except (FileNotFoundError, ProcessLookupError, PermissionError):  # ended, or a machine's PID 1 that hides
            continue
    return found


def eventually(true: Callable[[], bool], within: float = 30.0) -> bool:
    deadline = time.monotonic() + within
    while not true():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


def _say(command: str) -> str:
    return subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=20, check=False).stdout


def _difference(before: dict[str, str], after: dict[str, str]) -> str:
    return "\n".join(f"{key}:\n{before[key]}\nbecame\n{after[key]}" for key in before if before[key] != after[key])
