"""The whole daemon as its user has it: a private Open vSwitch, a directory of YAML, settings, and `reconcile run`.

`Node` is one machine in small. Everything is done as a user would do it: YAML is written to a file, the verbs are run
as commands, `ovs-vsctl` and `ovs-ofctl` work behind the daemon's back (`Node.ovs`). Only polling is done over the
control socket directly, because a command line takes a quarter of a second. The daemon runs in the namespaces of the
Open vSwitch under test and ends with it; nothing outlives the test, whatever becomes of it.
"""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Self

from reconciler.contract import ActionRecord, PassRecord
from reconciler.doors.client import ControlClient
from reconciler.errors import DriverError
from reconciler.report import NodeStatus
from tests.ovs import PrivateOvs, Spawned

RECONCILE = str(Path(sys.executable).with_name("reconcile"))
PATIENCE = 40.0
"""Seconds that anything may take which nothing asks to be quick: the machine may be busy."""

REPAIR = 5.0
"""Seconds within which drift has to be gone. The resync comes after an hour, so it is the event that repairs."""

DEFAULTS: Mapping[str, Any] = {
    "node": "n1",
    "datapath_type": "netdev",
    "resync_interval": 3600,
    "settle_add": 0.05,
    "settle_remove": 0.2,
    "log_format": "json",
}


@dataclass(frozen=True, slots=True)
class Said:
    """What a command ended with and printed."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def text(self) -> str:
        return self.out + self.err


@dataclass(slots=True)
class Repair:
    """One drift and its repair: what to break is done in the block, what became of it is in `entry` and `action`."""

    resource: str
    since: float
    entry: PassRecord | None = None
    action: ActionRecord | None = None

    @property
    def done(self) -> ActionRecord:
        assert self.action is not None
        return self.action


class Node:
    """One node under test. `directory` must be short; `settings` are those of ``reconciler.toml``."""

    def __init__(self, ovs: PrivateOvs, **settings: Any) -> None:
        self.ovs = ovs
        self.directory = ovs.directory
        self.desired = self.directory / "desired"
        self.desired.mkdir(exist_ok=True)
        self.toml = self.directory / "reconciler.toml"
        self.state = self.directory / "state"
        self.log = self.directory / "daemon.log"
        self.daemon: Spawned | None = None
        self._settings: dict[str, Any] = {}
        self.set(**DEFAULTS)
        self.set(
            desired=str(self.desired),
            state_dir=str(self.state),
            run_dir=str(self.directory / "own"),
            ovs_rundir=str(ovs.rundir),
            **settings,
        )
        self.client = ControlClient(self.directory / "own" / "control.sock", lock=self.directory / "own" / "lock")

    # -- what the user writes ---------------------------------------------------------------------------------------

    def set(self, **settings: Any) -> None:
        """Write settings; the daemon takes them at its next start. A table is a dict of plain values."""
        for name, value in settings.items():
            each = (
                {f"{name}.{key}": inner for key, inner in value.items()} if isinstance(value, dict) else {name: value}
            )
            self._settings.update(each)
        lines = [f"{name} = {json.dumps(value)}" for name, value in self._settings.items() if value is not None]
        self.toml.write_text("\n".join(lines) + "\n")

    def write(self, text: str, name: str = "node.yaml") -> None:
        """Write one YAML file, at once (by rename), as an editor does."""
        fresh = self.directory / "fresh"
        fresh.write_text(text)
        fresh.rename(self.desired / name)

    def declare(self, *, name: str = "node.yaml", **sections: Any) -> None:
        """The same from data; JSON is YAML."""
        self.write(json.dumps(sections, indent=1), name)

    # -- the daemon -------------------------------------------------------------------------------------------------

    def start(self, *, converged: bool = True, env: Mapping[str, str] | None = None) -> None:
        """Start `reconcile run`, and wait until all is as declared, or at least until the daemon answers."""
        self.daemon = self.ovs.spawn([RECONCILE, "--config", str(self.toml), "run"], self.log, env)
        if converged:
            self.converged()
        else:
            self.until(self._answers, "the daemon answers")

    def _answers(self) -> bool:
        try:
            self.client.ping()
        except DriverError:
            return False
        return True

    @property
    def running(self) -> Spawned:
        assert self.daemon is not None
        return self.daemon

    def stop(self) -> int:
        return self.running.end(signal.SIGTERM)

    def kill9(self) -> None:
        self.running.end(signal.SIGKILL)

    def log_lines(self) -> list[dict[str, Any]]:
        """Everything the daemon logged, of all its lives."""
        lines = self.log.read_text(errors="replace").splitlines() if self.log.exists() else []
        return [json.loads(line) for line in lines if line.startswith("{")]

    def crashes(self) -> list[str]:
        """Tracebacks, and log lines that say that something was not thought of."""
        text = self.log.read_text(errors="replace") if self.log.exists() else ""
        return [
            line for line in text.splitlines() if "Traceback" in line or "_crashed" in line or "never awaited" in line
        ]

    # -- the verbs --------------------------------------------------------------------------------------------------

    def cli(self, *args: str, timeout: float = 30.0, env: Mapping[str, str] | None = None) -> Said:
        """Run ``reconcile ARGS`` on the node to its end."""
        done = subprocess.run(
            self._command(args),
            env={**self.ovs.env, **(env or {})},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        return Said(done.returncode, done.stdout, done.stderr)

    @contextlib.contextmanager
    def started(self, *args: str) -> Iterator[subprocess.Popen[str]]:
        """Run ``reconcile ARGS`` beside the test; it is killed at the end of the block when it still runs."""
        with subprocess.Popen(
            self._command(args), env=self.ovs.env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True,
        ) as process:  # fmt: skip
            try:
                yield process
            finally:
                process.kill()

    def spawn(self, *args: str) -> Spawned:
        """Run ``reconcile ARGS`` beside the test, its output in a file; it ends with the node."""
        argv = [RECONCILE, "--config", str(self.toml), *args]
        return self.ovs.spawn(argv, self.directory / f"beside-{time.monotonic_ns()}")

    def _command(self, args: Sequence[str]) -> list[str]:
        return [*self.ovs.holder.enter(), RECONCILE, "--config", str(self.toml), *args]

    def status(self) -> NodeStatus:
        return self.client.status()

    def metrics(self) -> dict[str, float]:
        """Every sample by its name with labels, from the TCP listener in the node's network namespace."""
        found = {}
        for line in self.get("/metrics")[1].splitlines():
            if not line.startswith("#"):
                name, _, value = line.rpartition(" ")
                found[name] = float(value)
        return found

    def get(self, path: str, address: str = "127.0.0.1:9464") -> tuple[int, str]:
        """GET over HTTP, in the node's network namespace: (status, text)."""
        text = self.ovs.run(sys.executable, "-S", "-c", _GET, f"http://{address}{path}")
        code, _, body = text.partition("\n")
        return int(code), body

    # -- waiting and looking ----------------------------------------------------------------------------------------

    def until(self, true: Callable[[], Any], what: str, within: float = PATIENCE) -> None:
        """Wait until `true`; AssertionError with the daemon's last words otherwise."""
        deadline = time.monotonic() + within
        while not true():
            if self.daemon is not None and not self.daemon.alive():
                raise AssertionError(f"{what}: the daemon has ended\n{self._last_words()}")
            if time.monotonic() > deadline:
                raise AssertionError(f"not within {within} s: {what}\n{self._last_words()}")
            time.sleep(0.01)

    def _last_words(self) -> str:
        text = self.log.read_text(errors="replace")[-4000:] if self.log.exists() else ""
        with contextlib.suppress(DriverError):
            status = self.status()
            wrong = "\n".join(f"{s.resource}: {s.outcome}: {s.reason}" for s in status.not_right[:20])
            text += f"\nstatus: {status.outcome} {status.revision} {status.config_problems}\n{wrong}"
        return text

    def converged(self, within: float = PATIENCE) -> NodeStatus:
        """Wait until `status` says that all is as declared; the status."""
        found: list[NodeStatus] = []

        def right() -> bool:
            try:
                found[:] = [self.status()]
            except DriverError:
                return False
            return found[0].exit_code == 0

        self.until(right, "converged", within)
        return found[0]

    def outcome(self, resource: str) -> str:
        """The outcome of one resource and why, e.g. ``pending: waits for …``; '' when it is right."""
        found = [s for s in self.status().not_right if str(s.resource) == resource]
        return f"{found[0].outcome}: {found[0].reason}" if found else ""

    def says(self, resource: str, *words: str, within: float = REPAIR) -> None:
        """Wait until the status of `resource` has all these words."""
        self.until(
            lambda: all(word in self.outcome(resource) for word in words), f"{resource} says {', '.join(words)}", within
        )

    def adopts(self, change: Callable[[], object], within: float = REPAIR) -> NodeStatus:
        """Change what is declared, and wait until the node is as is declared now."""
        before = self.status().revision
        change()
        self.until(lambda: self.status().revision != before, "the new revision is taken up", within)
        return self.converged(within)

    def entries(self, resource: str, since: float = 0.0) -> list[PassRecord]:
        """The journal's passes that concerned `resource`, oldest first."""
        return list(reversed(self.client.history(resource=resource, since=since, limit=200)))

    @contextlib.contextmanager
    def repairs(self, resource: str, within: float = REPAIR, *, converged: bool = True) -> Iterator[Repair]:
        """Break something in this block. It is repaired by the event, and the journal says so in full.

        Without `converged` the node need not be as declared afterwards (the YAML has a mistake, something waits).
        """
        repair = Repair(resource, time.time())
        yield repair

        def repaired() -> bool:
            for entry in self.entries(resource, repair.since):
                for action in entry.actions:
                    if str(action.resource) == resource and action.result == "done":
                        repair.entry, repair.action = entry, action
                        return True
            return False

        self.until(repaired, f"{resource} is repaired", within)
        if converged:
            self.converged(within)
        entry, action = repair.entry, repair.done
        assert entry is not None
        assert action.why, "the journal says why"
        assert action.before or action.after, "the journal says what was found or done"
        assert action.drift, "the world changed, not what was declared"
        assert entry.trigger and "resync" not in entry.trigger, "it was the event"
        assert 0 <= entry.since_event < within
        assert 0 < entry.seconds < within

    def is_untouched(self, at_least: float = 0.3) -> None:
        """Assert that no pass does anything for a while."""
        since = time.time()
        time.sleep(at_least)
        passes = self.client.history(resource=None, since=since, limit=50)
        assert [action for entry in passes for action in entry.actions if action.result == "done"] == []


_GET = """
import sys, urllib.request, urllib.error
try:
    answer = urllib.request.urlopen(sys.argv[1], timeout=5)
except urllib.error.HTTPError as error:
    answer = error
sys.stdout.write(f"{answer.status}\\n{answer.read().decode()}")
"""


@dataclass
class Watch:
    """Sees every write to a node's Open vSwitch: an OVSDB monitor and an OpenFlow monitor for each bridge.

    What vswitchd itself writes (statistics, its own status) is not among the columns it looks at.
    """

    node: Node
    bridges: Sequence[str]
    _running: list[tuple[Spawned, Path]] = field(default_factory=list)
    _past: dict[Path, int] = field(default_factory=dict)

    COLUMNS: ClassVar[Mapping[str, str]] = {
        "Bridge": "name,ports,fail_mode,datapath_type,protocols,external_ids,other_config,controller",
        "Port": "name,interfaces,tag,trunks,vlan_mode,external_ids,other_config",
        "Interface": "name,type,options,external_ids,ofport_request,mtu_request",
        "Open_vSwitch": "bridges,external_ids,other_config",
    }

    def __enter__(self) -> Self:
        ovs, started = self.node.ovs, time.monotonic_ns()
        for number, (table, columns) in enumerate(self.COLUMNS.items()):
            output = ovs.directory / f"watch-{started}-{number}"
            argv = ["ovsdb-client", "--format=json", "monitor", ovs.db, "Open_vSwitch", table, columns]
            self._running.append((ovs.spawn(argv, output), output))
        for bridge in self.bridges:
            output = ovs.directory / f"watch-{started}-{bridge}"
            argv = ["ovs-ofctl", "-OOpenFlow14", "monitor", bridge, "watch:!initial"]
            self._running.append((ovs.spawn(argv, output), output))
        self._ready()
        return self

    def _ready(self) -> None:
        """Each has printed what was there when it began to listen."""
        for _, output in self._running:
            self.node.until(lambda output=output: output.exists() and output.stat().st_size, f"{output} listens")  # type: ignore[misc]
        time.sleep(0.05)
        self._past = {output: output.stat().st_size for _, output in self._running}

    def __exit__(self, *exc: object) -> None:
        for process, _ in self._running:
            if process.alive():
                process.end(signal.SIGKILL)

    def seen(self) -> str:
        """Everything that was written since the watch began; '' when nothing was."""
        time.sleep(0.1)
        found = []
        for process, output in self._running:
            assert process.alive(), f"the watch itself ended: {output.read_text()}"
            with output.open() as file:
                file.seek(self._past[output])
                found.append(file.read())
        return "".join(found).strip()
