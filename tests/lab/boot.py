"""Becomes a booted node: namespaces, its own root, its three NICs, and systemd as PID 1. ``python -m tests.lab.boot``.

Runs as a child of the lab's `Holder` and ends with it: the process that was spawned waits for PID 1, which the kernel
kills with it. Only the standard library, and only what must happen before systemd runs; everything a node can do for
itself is in the units of ``tests/lab/firstboot.py``. ``tests/lab/cluster.py`` starts it.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import uuid
from dataclasses import dataclass
from pathlib import Path

from tests.lab import firstboot, kernel
from tests.lab.kernel import Clone, Mount
from tests.lab.node import SBIN, SandboxError, build_root

SYSTEMD = "/lib/systemd/systemd"
CGROUPS = Path("/run/cgroup")
"""Where the holder shows the cgroup tree (version 2) that nodes are put into."""

NICS = (("eth0", "mgmt", 1500), ("eth1", "data", 1600), ("eth2", "ext", 1500))
"""Device in the node, the bridge its other end is a port of, MTU."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What node to become. `holder` is a pid on the machine; `disk` outlives the node; `number` makes addresses."""

    name: str
    number: int
    holder: int
    disk: Path
    wants: tuple[str, ...]
    hosts: str

    @property
    def cgroup(self) -> Path:
        return CGROUPS / f"reconciler-lab-{self.holder}" / self.name


def main() -> int:
    """Arguments: name number holder disk wants hosts. Ends when PID 1 does, with 0; with 69 when there is no node."""
    name, number, holder, disk, wants, hosts = sys.argv[1:]
    plan = Plan(name, int(number), int(holder), Path(disk), tuple(wants.split()), hosts.replace(";", "\n"))
    checkout = Path.cwd()
    _enter_namespaces(plan)
    kernel.unshare(Clone.PID)
    node = os.fork()
    if node == 0:
        try:
            _be_init(plan, checkout)
        except (SandboxError, OSError, subprocess.SubprocessError) as error:
            print(f"boot: {plan.name}: {error}", file=sys.stderr, flush=True)
        os._exit(69)
    # Out of the node's cgroup: systemd could not hand out its controllers with a process of ours in its root.
    (plan.cgroup.parent / "cgroup.procs").write_text(str(os.getpid()), encoding="ascii")
    (plan.disk / "pid.new").write_text(str(node), encoding="ascii")
    (plan.disk / "pid.new").rename(plan.disk / "pid")
    _, status = os.waitpid(node, 0)
    return 69 if os.waitstatus_to_exitcode(status) == 69 else 0


def _enter_namespaces(plan: Plan) -> None:
    """A cgroup first, or all nodes' systemds share one tree; then everything that NICs can be made in."""
    plan.cgroup.mkdir(parents=True, exist_ok=True)
    (plan.cgroup / "cgroup.procs").write_text(str(os.getpid()), encoding="ascii")
    kernel.unshare(Clone.CGROUP | Clone.NET | Clone.UTS | Clone.IPC)
    holder = f"/proc/{plan.holder}/ns/net"
    inside, outside, left = ["link set lo up"], [], []
    for index, (device, bridge, mtu) in enumerate(NICS):
        outer = f"{plan.name[:10]}.{bridge}"
        mac = f"02:1a:b0:00:{index:02x}:{plan.number:02x}"  # a NIC keeps its own over a power cut; others remember it
        near, far = f"link add {device} address {mac} mtu {mtu}", f"peer name {outer} mtu {mtu} netns {holder}"
        inside.append(f"{near} type veth {far}")
        left.append(f"link del {outer}")
        outside.append(f"link set {outer} master {bridge} up")
    inside += ["link set eth0 up", f"addr add {address('mgmt', plan.number)}/24 dev eth0"]
    inside += ["link set eth1 up", "link set eth2 up"]
    # After a power cut the kernel takes the old ones away by and by.
    _ip(["nsenter", f"--net={holder}", "ip", "-force"], left, check=False)
    _ip(["ip"], inside)
    _ip(["nsenter", f"--net={holder}", "ip"], outside)


def address(network: str, number: int) -> str:
    """Node `number` (from 1) on mgmt or data; its br-phy has the latter."""
    return {"mgmt": f"172.31.0.{10 * number}", "data": f"10.10.10.{10 * number}"}[network]


def _ip(argv: list[str], lines: list[str], *, check: bool = True) -> None:
    complaints = None if check else subprocess.DEVNULL
    subprocess.run(
        [*argv, "-batch", "-"], input="\n".join(lines), text=True, check=check, timeout=10, stderr=complaints
    )


def _be_init(plan: Plan, checkout: Path) -> None:
    """Returns only by an exception: the end is an exec of systemd."""
    kernel.die_with_parent(signal.SIGKILL)
    os.setsid()
    kernel.unshare(Clone.MOUNT)  # here, not before the fork: pivot_root moves everybody in the namespace
    build_root({checkout, Path(sys.base_prefix), Path(sys.prefix)}, plan.disk)
    kernel.mount("cgroup2", "/sys/fs/cgroup", "cgroup2", Mount.NO_SUID | Mount.NO_DEV | Mount.NO_EXEC)
    # `ip netns add` makes its mounts shared, and systemd gives units slaves of what is shared.
    kernel.mount("", "/", "", Mount.RECURSIVE | Mount.SHARED)
    boot_id = Path("/run/lab-boot-id")
    boot_id.write_text(f"{uuid.uuid4()}\n", encoding="ascii")
    kernel.bind_read_only(str(boot_id), "/proc/sys/kernel/random/boot_id")
    Path("/proc/self/oom_score_adj").write_text("0", encoding="ascii")
    firstboot.prepare(plan.name, address("data", plan.number), plan.wants, plan.hosts)
    socket.sethostname(plan.name)
    _refuse_the_machine_itself()
    kernel.drop_capabilities()
    environment = {"container": "lab", "PATH": SBIN, "SYSTEMD_LOG_TARGET": "journal-or-kmsg"}
    os.execve(SYSTEMD, ["/sbin/init"], environment)


def _refuse_the_machine_itself() -> None:
    """systemd's tmpfiles service empties /tmp and /var/tmp, and others write what they see: never the machine's."""
    mounts = {}
    for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines():
        before, _, after = line.partition(" - ")
        mounts[before.split()[4]] = after.split()[0]
    wanted = {"/": "overlay", "/tmp": "tmpfs", "/var/tmp": "tmpfs", "/run": "tmpfs", "/dev": "tmpfs"}
    found = {path: mounts.get(path, "not mounted") for path in wanted}
    if found != wanted or os.getpid() != 1:
        raise SandboxError(f"systemd is not started: mounts must be {wanted}, and are {found}")
    for path in ("/tmp", "/var/tmp"):
        own = [entry for entry in Path(path).iterdir() if not any(mount.startswith(str(entry)) for mount in mounts)]
        if own:
            raise SandboxError(f"systemd is not started: {path} must be empty, and has {own[0]}")


if __name__ == "__main__":
    sys.exit(main())
