"""What a sandboxed node is made of: its root file system and its Open vSwitch. Runs as PID 1 of the sandbox only.

The root is an overlay over the machine's own, written to memory: the node sees the packages and the checkout, and
whatever it changes is gone with it. ``/run``, ``/tmp``, ``/dev``, ``/proc`` and ``/sys`` are its own, so the machine's
D-Bus, Open vSwitch and sockets are not there. ``/proc/sys`` is read-only except for ``net``, which belongs to the
network namespace. Called by ``tests/lab/sandbox.py``.
"""

from __future__ import annotations

import os
import shutil
import signal
import stat
import subprocess
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from tests.lab import kernel
from tests.lab.kernel import Mount

SBIN = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_STAGE = Path("/tmp")  # only a mount point, inside a mount namespace that nobody else sees
_OWN = ("/proc", "/sys", "/dev", "/run", "/tmp", "/var/tmp", "/boot")
_PSEUDO = frozenset({"proc", "sysfs", "devtmpfs", "devpts", "tmpfs", "ramfs", "cgroup", "cgroup2", "mqueue", "autofs"})
_DEVICES = {"null": (1, 3), "zero": (1, 5), "full": (1, 7), "random": (1, 8), "urandom": (1, 9), "tty": (5, 0)}
_PATIENCE = 15.0


class SandboxError(Exception):
    """The sandbox cannot be made on this machine, or its Open vSwitch does not start; the message says which."""


@dataclass(frozen=True, slots=True)
class _Visible:
    """A part of the machine's file tree that the node shall see, below its own copy-on-write layer."""

    path: str
    must: bool = True


def build_root(needed: Iterable[Path], disk: Path | None = None) -> None:
    """Make the node's file system and make it the root of this (new, private) mount namespace.

    `needed` are directories that must be seen at the same path even where the node has its own, such as a checkout
    under ``/tmp``. `disk`, a directory on a tmpfs that outlives this namespace, keeps what the node writes.
    """
    kernel.mount("", "/", "", Mount.RECURSIVE | Mount.PRIVATE)
    shown = [_Visible("/"), *_file_systems()]
    hidden = [_Visible(str(path)) for path in sorted(set(needed)) if _is_own(str(path))]
    # What lies where the node has its own is held open here, before the stage covers it.
    held = {part.path: os.open(part.path, os.O_PATH | os.O_DIRECTORY) for part in hidden}
    if disk is None:
        kernel.mount("sandbox", str(_STAGE), "tmpfs", options="mode=755")
    stage = _STAGE if disk is None else disk
    root = stage / "root"
    root.mkdir(exist_ok=True)
    for number, part in enumerate(shown):
        _overlay(part, part.path, stage, number)
    for path, mode in (("run", "755"), ("tmp", "1777"), ("var/tmp", "1777")):
        kernel.mount("sandbox", str(root / path), "tmpfs", Mount.NO_SUID | Mount.NO_DEV, f"mode={mode}")
    for number, part in enumerate(hidden, start=len(shown)):
        (root / part.path.lstrip("/")).mkdir(parents=True, exist_ok=True)
        _overlay(part, f"/proc/self/fd/{held[part.path]}", stage, number)
        os.close(held[part.path])
    _devices(root / "dev")
    kernel.mount("proc", str(root / "proc"), "proc", Mount.NO_SUID | Mount.NO_DEV | Mount.NO_EXEC)
    kernel.mount("sysfs", str(root / "sys"), "sysfs", Mount.READ_ONLY | Mount.NO_SUID | Mount.NO_DEV | Mount.NO_EXEC)
    kernel.pivot_root(str(root))
    _protect_proc()
    for directory in ("/run/netns", "/run/lock", "/run/openvswitch"):
        Path(directory).mkdir()


def _file_systems() -> list[_Visible]:
    """The other file systems with files in them (a separate ``/home``, ``/var``), in order of mounting."""
    found: dict[str, _Visible] = {}
    for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines():
        before, _, after = line.partition(" - ")
        path = before.split()[4].encode().decode("unicode_escape")
        if path != "/" and not _is_own(path) and after.split()[0] not in _PSEUDO:
            found[path] = _Visible(path, must=False)
    return list(found.values())


def _is_own(path: str) -> bool:
    return any(path == own or path.startswith(own + "/") for own in _OWN)


def _overlay(part: _Visible, lower: str, stage: Path, number: int) -> None:
    """Lay a layer in memory over `lower` and show it at its path; where that is impossible, show it read-only."""
    target = str(stage / "root" / part.path.lstrip("/"))
    if not Path(lower).is_dir():
        kernel.bind_read_only(lower, target)
        return
    upper, work = stage / f"upper{number}", stage / f"work{number}"
    if not upper.is_dir():
        upper.mkdir()
        work.mkdir()
        status = Path(lower).stat()
        upper.chmod(stat.S_IMODE(status.st_mode))
        os.chown(upper, status.st_uid, status.st_gid)
    try:
        kernel.mount("overlay", target, "overlay", options=f"lowerdir={lower},upperdir={upper},workdir={work}")
    except OSError as error:
        if part.must:
            raise SandboxError(
                f"an overlay over {part.path} could not be mounted: {error}. The sandbox needs the kernel's overlay "
                "file system, and root that may mount (in a container: a privileged one)"
            ) from error
        kernel.bind_read_only(lower, target)


def _devices(dev: Path) -> None:
    kernel.mount("sandbox", str(dev), "tmpfs", Mount.NO_SUID | Mount.NO_EXEC, "mode=755")
    for name, numbers in _DEVICES.items():
        os.mknod(dev / name, 0o666 | stat.S_IFCHR, os.makedev(*numbers))
        (dev / name).chmod(0o666)
    (dev / "net").mkdir()
    os.mknod(dev / "net/tun", 0o666 | stat.S_IFCHR, os.makedev(10, 200))
    (dev / "net/tun").chmod(0o666)
    for name in ("pts", "shm"):
        (dev / name).mkdir()
    kernel.mount(
        "devpts", str(dev / "pts"), "devpts", Mount.NO_SUID | Mount.NO_EXEC, "newinstance,ptmxmode=666,mode=620"
    )
    kernel.mount("sandbox", str(dev / "shm"), "tmpfs", Mount.NO_SUID | Mount.NO_DEV, "mode=1777")
    for name, to in {
        "ptmx": "pts/ptmx",
        "fd": "/proc/self/fd",
        "stdin": "fd/0",
        "stdout": "fd/1",
        "stderr": "fd/2",
    }.items():
        (dev / name).symlink_to(to)


def _protect_proc() -> None:
    """Settings of the whole machine are read-only; what belongs to the network namespace is not."""
    net = os.open("/proc/sys/net", os.O_PATH)
    kernel.bind_read_only("/proc/sys", "/proc/sys")
    kernel.mount(f"/proc/self/fd/{net}", "/proc/sys/net", "", Mount.BIND)
    os.close(net)
    if Path("/proc/sysrq-trigger").exists():
        kernel.bind_read_only("/proc/sysrq-trigger", "/proc/sysrq-trigger")


@dataclass(slots=True)
class Services:
    """ovsdb-server and ovs-vswitchd of the node, started again when they end, as systemd would."""

    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    ended: dict[str, list[float]] = field(default_factory=dict)

    def start(self) -> None:
        """Start both on an empty database. Raises SandboxError with the end of the log when they do not answer."""
        data, etc = Path("/var/lib/openvswitch"), Path("/etc/openvswitch")
        for directory in (data, etc):
            shutil.rmtree(directory, ignore_errors=True)
            directory.mkdir(parents=True)
        Path("/var/log/openvswitch").mkdir(parents=True, exist_ok=True)
        (etc / "conf.db").symlink_to(data / "conf.db")
        schema = "/usr/share/openvswitch/vswitch.ovsschema"
        subprocess.run(["ovsdb-tool", "create", str(data / "conf.db"), schema], check=True, timeout=_PATIENCE)
        self._spawn("ovsdb-server")
        self._until_it_answers("ovsdb-server", ["ovs-vsctl", "--no-wait", "--timeout=5", "init"])
        self._spawn("ovs-vswitchd")
        # Waits until vswitchd has taken the change over.
        version = ["ovs-vsctl", "--timeout=15", "set", "Open_vSwitch", ".", "system-type=sandbox"]
        self._until_it_answers("ovs-vswitchd", version)

    def revive(self, pid: int) -> None:
        """Start the service again whose process `pid` was just reaped; give up on one that ends again and again."""
        for name, process in self.processes.items():
            if process.pid == pid:
                times = self.ended.setdefault(name, [])
                times.append(time.monotonic())
                if len(times) > 5 and times[-1] - times[-6] < 10:
                    print(f"sandbox: {name} ended 6 times within 10 s and is left alone; see {_log(name)}", flush=True)
                else:
                    self._spawn(name)
                return

    def _spawn(self, name: str) -> None:
        args = {
            "ovsdb-server": ("--remote=punix:/run/openvswitch/db.sock", "/var/lib/openvswitch/conf.db"),
            "ovs-vswitchd": ("unix:/run/openvswitch/db.sock", "--disable-system"),
        }[name]
        quiet = ("-vconsole:off", "-vsyslog:off", "-vfile:info", f"--log-file={_log(name)}")
        argv = [name, *quiet, f"--pidfile=/run/openvswitch/{name}.pid", *args]
        self.processes[name] = spawn(argv, session=True)

    def _until_it_answers(self, name: str, question: list[str]) -> None:
        deadline = time.monotonic() + _PATIENCE
        while True:
            asked = subprocess.run(question, capture_output=True, text=True, timeout=_PATIENCE + 5, check=False)
            if asked.returncode == 0:
                return
            if time.monotonic() > deadline or self.processes[name].poll() is not None:
                log = Path(_log(name))
                said = log.read_text(encoding="utf-8", errors="replace")[-2000:] if log.exists() else "(no log)"
                raise SandboxError(f"{name} did not start in the sandbox: {asked.stderr.strip()}\n{said}")
            time.sleep(0.02)


def spawn(argv: list[str], *, session: bool = False, cwd: Path | None = None) -> subprocess.Popen[bytes]:
    """Start a program with every signal as a program expects it; a `session` of its own has no terminal."""

    def as_a_program_expects() -> None:
        for sig in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGTTOU, signal.SIGPIPE):
            signal.signal(sig, signal.SIG_DFL)
        signal.signal(signal.SIGTSTP, signal.SIG_IGN)  # a stopped sandbox could not be continued by the shell
        signal.pthread_sigmask(signal.SIG_SETMASK, set())
        if not session:
            os.setpgid(0, 0)

    stdin = subprocess.DEVNULL if session else None
    return subprocess.Popen(
        argv,
        stdin=stdin,
        cwd=cwd,
        start_new_session=session,
        preexec_fn=as_a_program_expects,  # noqa: PLW1509 - PID 1 of the sandbox has one thread
    )


def _log(name: str) -> str:
    return f"/var/log/openvswitch/{name}.log"
