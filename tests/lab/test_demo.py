"""What the README promises of ./demo: an example runs, what a second terminal breaks comes back, and is told."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

CHECKOUT = Path(__file__).parents[2]
_FLOWS = "ovs-ofctl --no-stats --names dump-flows br-ex | sort"


def test_what_is_broken_in_a_second_terminal_comes_back_and_is_told(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with _demo(log, "all-in-one-external") as inside:
        assert eventually(lambda: "all-in-one: converged" in log.read_text(), within=60), log.read_text()
        flows = inside(_FLOWS)
        inside("ovs-vsctl --timeout=5 del-port int-br-ex")
        assert eventually(lambda: inside("ovs-vsctl --timeout=5 port-to-br int-br-ex").strip() == "br-int")
        assert eventually(lambda: "port/int-br-ex" in log.read_text())
        inside("systemctl kill -s KILL reconciler")
        assert eventually(lambda: "no daemon on all-in-one" in log.read_text())
        assert eventually(lambda: "converged" in inside("reconcile status"))
        time.sleep(1)  # it listens again
        inside("ovs-ofctl del-flows br-ex")
        assert eventually(lambda: inside(_FLOWS) == flows), inside(_FLOWS)
        assert eventually(lambda: "flow/br-ex" in log.read_text()), log.read_text()


def test_the_default_is_the_three_node_example_and_each_node_can_be_entered(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with _demo(log) as inside:
        assert eventually(lambda: "Below: what happens on network" in log.read_text(), within=60), log.read_text()
        for node in ("controller", "network", "compute"):
            assert inside("hostname", node).strip() == node
        assert inside("hostname").strip() == "network"
        assert eventually(lambda: "network: converged" in log.read_text(), within=60), log.read_text()
        ping = "ip netns exec qvm-one-a ping -c1 -W1 10.6.0.1"
        assert eventually(lambda: " 0% packet loss" in inside(ping, "compute"), within=30)


def test_what_does_not_exist_is_named_and_told_what_does() -> None:
    for argv, words in (
        (("no-such-example",), "three-node-gre, all-in-one-external"),
        (("--node", "nowhere"), "controller, network, compute"),
        (("shell", "--name", "nobody"), "no demo named 'nobody' runs"),
    ):
        done = subprocess.run(["./demo", *argv], cwd=CHECKOUT, capture_output=True, text=True, timeout=60, check=False)
        assert (done.returncode, words in done.stderr) == (69, True), done.stderr


def eventually(true: Callable[[], object], within: float = 20.0) -> bool:
    deadline = time.monotonic() + within
    while not true():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


@contextlib.contextmanager
def _demo(log: Path, *words: str) -> Iterator[Callable[..., str]]:
    """A running ./demo, and a way to run a shell line in a node; ended by what Ctrl-C sends, with exit code 0."""
    name = f"test-{uuid.uuid4().hex[:8]}"
    null = subprocess.DEVNULL

    def inside(line: str, node: str = "") -> str:
        argv = ["./demo", "shell", *([node] if node else []), "--name", name, "--", "sh", "-c", line]
        return subprocess.run(
            argv, cwd=CHECKOUT, stdin=null, capture_output=True, text=True, timeout=30, check=False
        ).stdout

    with log.open("w") as output:
        argv = ["./demo", *words, "--name", name]
        demo = subprocess.Popen(argv, cwd=CHECKOUT, stdin=null, stdout=output, stderr=output)
        try:
            yield inside
            demo.send_signal(signal.SIGINT)
            assert demo.wait(20) == 0, log.read_text()[-3000:]
        finally:
            if demo.poll() is None:
                demo.kill()
                demo.wait(10)
