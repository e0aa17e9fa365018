"""What the README promises of ./demo: the example is applied, and what a second terminal breaks comes back."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

CHECKOUT = Path(__file__).parents[2]
_FLOWS = "ovs-ofctl --no-stats --names dump-flows br-tun | sort"


def test_the_example_is_applied_and_what_is_broken_in_a_second_terminal_comes_back(tmp_path: Path) -> None:
    with _demo(tmp_path / "log") as inside:
        assert _eventually(lambda: "priority" in inside(_FLOWS) and inside("ovs-vsctl get interface patch-tun options"))
        assert _eventually(lambda: "patch-tun" in inside("ovs-vsctl show"))
        flows = _settled(lambda: inside(_FLOWS))
        inside("ovs-vsctl --timeout=5 del-port patch-tun")
        assert _eventually(lambda: inside("ovs-vsctl --timeout=5 port-to-br patch-tun").strip() == "br-int")
        inside("ovs-ofctl del-flows br-tun")
        assert _eventually(lambda: inside(_FLOWS) == flows), inside(_FLOWS)
        inside("ovs-appctl exit")
        assert _eventually(lambda: inside(_FLOWS) == flows), inside(_FLOWS)
        assert "CONVERGED" in inside("reconcile status").upper()
        assert "patch-tun" in inside("reconcile history")


def _eventually(true: Callable[[], object], within: float = 15.0) -> bool:
    deadline = time.monotonic() + within
    while not true():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


def _settled(look: Callable[[], str]) -> str:
    """What is seen when two looks, half a second apart, see the same."""
    seen = look()
    for _ in range(20):
        time.sleep(0.5)
        before, seen = seen, look()
        if seen == before:
            return seen
    raise AssertionError(f"it keeps changing:\n{seen}")


@contextlib.contextmanager
def _demo(log: Path) -> Iterator[Callable[[str], str]]:
    """A running ./demo, and a way to run a shell line in its node; ended by what Ctrl-C sends, with exit code 0."""
    name = f"test-{uuid.uuid4().hex[:8]}"
    null = subprocess.DEVNULL

    def inside(line: str) -> str:
        argv = ["./demo", "shell", "--name", name, "--", "sh", "-c", line]
        return subprocess.run(
            argv, cwd=CHECKOUT, stdin=null, capture_output=True, text=True, timeout=30, check=False
        ).stdout

    with log.open("w") as output:
        demo = subprocess.Popen(["./demo", "--name", name], cwd=CHECKOUT, stdin=null, stdout=output, stderr=output)
        try:
            yield inside
            demo.send_signal(signal.SIGINT)
            assert demo.wait(20) in {0, 130}, log.read_text()[-3000:]
        finally:
            if demo.poll() is None:
                demo.kill()
                demo.wait(10)
