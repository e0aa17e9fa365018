"""The daemon under measurement: `reconcile run` as shipped, in its own process, seen through /proc and /metrics.

Only what must differ on a private switch is set: directories, the datapath type, and no TCP listener (the control
socket serves /metrics, too). Gates, rates, pace and store are the defaults.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import shutil
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from tests.ovs import PrivateOvs, Spawned

CHECKOUT = Path(__file__).parents[2]
PATIENCE = 60.0
OVS_NICE = -10
"""What ovs-ctl, and so every distribution, starts ovsdb-server and ovs-vswitchd with."""
_TICK = os.sysconf("SC_CLK_TCK")
_SAMPLE = re.compile(r"^(\w+)(?:\{(.*)\})? (\S+)$", re.MULTILINE)


def unit_nice() -> int:
    """The niceness that the shipped unit gives the daemon; the floor programs get the same. $BENCH_NICE is tried."""
    if tried := os.environ.get("BENCH_NICE"):
        return int(tried)
    unit = CHECKOUT / "systemd" / "reconciler.service"
    found = re.search(r"^Nice=(-?\d+)$", unit.read_text(), re.MULTILINE) if unit.exists() else None
    return int(found[1]) if found else 0


class Daemon:
    """Starts stopped; `start`, then `settled`. All paths are below the switch's directory."""

    def __init__(self, ovs: PrivateOvs, name: str = "node") -> None:
        self.ovs = ovs
        self.home = ovs.directory / name
        self.desired = self.home / "desired"
        self.desired.mkdir(parents=True)
        self._process: Spawned | None = None
        self.env: dict[str, str] = {}
        """What it gets in its environment besides."""
        self.settings = self.home / "reconciler.toml"
        self.settings.write_text(
            f'node = "bench"\ndesired = "{self.desired}"\nstate_dir = "{self.home}"\nrun_dir = "{self.home}"\n'
            f'ovs_rundir = "{ovs.rundir}"\ndatapath_type = "netdev"\nlisten = ""\n'
        )

    def declare(self, text: str) -> None:
        """Make `text` (YAML) all that is declared; replaced in one step."""
        beside = self.home / "node.yaml"
        beside.write_text(text)
        beside.rename(self.desired / "node.yaml")

    def argv(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "reconciler.doors.cli", "--config", str(self.settings), *words]

    def start(self, *, fresh: bool = False) -> None:
        """Spawn it. `fresh`: without a database of an earlier run."""
        if fresh:
            for left in self.home.glob("state.db*"):
                left.unlink()
        path = os.pathsep.join([str(CHECKOUT), *filter(None, [os.environ.get("PYTHONPATH")])])
        env = {"PYTHONPATH": path, **self.env}
        nice = ("nice", "-n", str(unit_nice()))
        self._process = self.ovs.spawn([*nice, *self.argv("run")], self.home / "log", env)

    def end(self, sig: signal.Signals = signal.SIGTERM) -> None:
        if self._process is not None:
            self._process.end(sig)
            self._process = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @contextlib.contextmanager
    def stopped(self) -> Iterator[None]:
        """Within this it gets no CPU at all; afterwards it has caught up with what happened meanwhile."""
        os.kill(self.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self.pid, signal.SIGCONT)
            self.quiet()

    # What it says

    def get(self, path: str, timeout: float = 10.0) -> bytes:
        """GET on the control socket. Raises OSError while nobody listens there."""
        return self._ask("GET", path, None, timeout)

    def _answers(self, path: str) -> bool:
        connection = _UnixConnection(self.home / "control.sock", 10.0)
        try:
            connection.request("GET", path)
            return connection.getresponse().status == 200
        finally:
            connection.close()

    def post(self, path: str, body: Mapping[str, Any], timeout: float = PATIENCE) -> bytes:
        """POST on the control socket."""
        return self._ask("POST", path, json.dumps(body), timeout)

    def _ask(self, method: str, path: str, body: str | None, timeout: float) -> bytes:
        connection = _UnixConnection(self.home / "control.sock", timeout)
        try:
            connection.request(method, path, body, {"Content-Type": "application/json"} if body else {})
            return connection.getresponse().read()
        finally:
            connection.close()

    def status(self) -> dict[str, Any]:
        return dict(json.loads(self.get("/api/v1/status")))

    def metrics(self) -> dict[str, float]:
        """Every sample, by ``name{labels}`` as Prometheus prints it."""
        text = self.get("/metrics").decode()
        return {
            f"{name}{{{labels}}}" if labels else name: float(value) for name, labels, value in _SAMPLE.findall(text)
        }

    def converged(self) -> bool:
        """Rendering all metrics costs ten milliseconds: they are asked for only once it says that it is ready."""
        try:
            if not self._answers("/readyz"):
                return False
            return self.metrics().get("reconciler_converged") == 1.0
        except (OSError, http.client.HTTPException):
            return False

    def settled(self, within: float = PATIENCE) -> float:
        """Wait until it says that all is converged; when that was seen (monotonic)."""
        self.until(self.converged, "did not converge", within)
        return time.monotonic()

    def until(self, true: Callable[[], bool], what: str, within: float = PATIENCE) -> None:
        deadline = time.monotonic() + within
        while not true():
            if time.monotonic() > deadline or not self.alive():
                raise RuntimeError(f"the daemon {what} within {within:g} s\n{self.tail()}")
            time.sleep(0.01)

    def alive(self) -> bool:
        return self._process is not None and self._process.alive()

    def tail(self) -> str:
        return self._process.text()[-4000:] if self._process is not None else ""

    # What /proc says

    def quiet(self, within: float = PATIENCE) -> None:
        """Wait until it has used (nearly) no CPU for a tenth of a second: all that happened is taken in."""
        deadline = time.monotonic() + within
        calm, before = 0, self.cpu()
        while calm < 5 and time.monotonic() < deadline:
            time.sleep(0.05)
            now = self.cpu()
            calm, before = (calm + 1 if now - before <= 0.01 else 0), now

    def cpu(self) -> float:
        """Seconds of CPU used so far, in steps of 0.01."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(") ")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICK

    def cpu_exact(self) -> float:
        """Seconds of CPU used so far by all threads, as the scheduler counts them."""
        tasks = Path(f"/proc/{self.pid}/task").iterdir()
        return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9

    def pss(self) -> int:
        """Proportional set size in bytes."""
        found = re.search(r"^Pss:\s*(\d+) kB", Path(f"/proc/{self.pid}/smaps_rollup").read_text(), re.MULTILINE)
        assert found is not None
        return int(found[1]) * 1024


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


@contextlib.contextmanager
def switch(directory: Path, name: str) -> Iterator[PrivateOvs]:
    """A private switch in a fresh directory of this name, removed afterwards."""
    home = directory / name
    home.mkdir()
    try:
        with PrivateOvs(home) as ovs:
            for process in (ovs.ovsdb, ovs.vswitchd):
                for task in Path(f"/proc/{process.pid}/task").iterdir():
                    os.setpriority(os.PRIO_PROCESS, int(task.name), OVS_NICE)
            yield ovs
    finally:
        shutil.rmtree(home, ignore_errors=True)


@contextlib.contextmanager
def meanwhile(work: Callable[[threading.Event], None], name: str) -> Iterator[None]:
    """Have a thread do `work` within this; it returns when the event that it is given is set."""
    stop = threading.Event()
    thread = threading.Thread(target=work, args=(stop,), name=name)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
