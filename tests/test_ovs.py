from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.lab.holder import Holder, ToolFailedError
from tests.ovs import PrivateOvs


def test_a_private_switch_forwards_between_two_hosts_without_loss(ovs: PrivateOvs) -> None:
    ovs.add_bridge("br0", "fail_mode=secure")
    left = ovs.add_host("left", "10.0.0.1/24", "br0")
    right = ovs.add_host("right", "10.0.0.2/24", "br0")
    assert not left.reaches(right, within=0.3)
    ovs.ofctl("add-flow", "br0", "actions=NORMAL")
    with left.pinging(right) as ping:
        time.sleep(0.5)
    assert ping.tally is not None
    assert ping.tally.lost == ()
    assert ping.tally.sent > 20


def test_a_ping_through_a_missing_flow_is_counted_as_lost(ovs: PrivateOvs) -> None:
    ovs.add_bridge("br0", "fail_mode=secure")
    left = ovs.add_host("left", "10.0.0.1/24", "br0")
    right = ovs.add_host("right", "10.0.0.2/24", "br0")
    ovs.ofctl("add-flow", "br0", "actions=NORMAL")
    with left.pinging(right) as ping:
        ovs.ofctl("del-flows", "br0")
        time.sleep(0.2)
        ovs.ofctl("add-flow", "br0", "actions=NORMAL")
        time.sleep(0.2)
    assert ping.tally is not None
    assert len(ping.tally.lost) > 5


def test_flows_of_a_secure_bridge_are_gone_after_vswitchd_restarts(ovs: PrivateOvs) -> None:
    ovs.add_bridge("br0", "fail_mode=secure")
    ovs.ofctl("add-flow", "br0", "table=3,actions=drop")
    assert any("table=3" in flow for flow in ovs.flows("br0"))
    before = ovs.vswitchd.pid
    ovs.restart_vswitchd(signal.SIGKILL)
    assert ovs.vswitchd.pid != before
    assert ovs.flows("br0") == []
    ovs.restart_ovsdb()
    assert ovs.vsctl("list-br") == "br0"
    assert "ovs-vswitchd" in ovs.appctl("version")
    assert "ovsdb-server" in ovs.appctl("version", target="ovsdb-server")


async def test_a_frozen_ovsdb_answers_nobody_and_restarts_work_from_a_thread(ovs: PrivateOvs) -> None:
    with ovs.ovsdb.frozen(), pytest.raises(ToolFailedError):
        ovs.vsctl("show", timeout=1)
    await asyncio.to_thread(ovs.restart_vswitchd)
    await asyncio.to_thread(ovs.add_bridge, "br1")
    assert ovs.vsctl("list-br") == "br1"


def test_nothing_shows_on_the_machine_itself(ovs: PrivateOvs) -> None:
    ovs.add_bridge("br-private")
    ovs.add_veth("veth-private", "10.0.0.1/24")
    links = subprocess.run(["ip", "-o", "link"], capture_output=True, text=True, check=True).stdout
    assert "br-private" not in links
    assert "veth-private" not in links
    assert "br-private" in ovs.run("ip", "-o", "link")
    assert not Path("/run/netns/veth-private").exists()


def test_everything_ends_with_a_killed_owner(tmp_path_factory: pytest.TempPathFactory) -> None:
    program = (
        "import sys, time; from pathlib import Path; from tests.ovs import PrivateOvs\n"
        "ovs = PrivateOvs(Path(sys.argv[1])); print(ovs.holder.pid, ovs.vswitchd.pid, ovs.ovsdb.pid, flush=True)\n"
        "time.sleep(60)"
    )
    directory = str(tmp_path_factory.mktemp("ovs"))
    owner = subprocess.Popen([sys.executable, "-c", program, directory], stdout=subprocess.PIPE, text=True)
    assert owner.stdout is not None
    pids = [int(pid) for pid in owner.stdout.readline().split()]
    owner.kill()
    owner.wait()
    owner.stdout.close()
    assert len(pids) == 3
    deadline = time.monotonic() + 5
    while any(_runs(pid) for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert [pid for pid in pids if _runs(pid)] == []


def test_close_waits_for_what_it_ended(tmp_path: Path) -> None:
    holder = Holder()
    sleeper = holder.spawn(["sleep", "60"], tmp_path / "out")
    assert sleeper.alive()
    holder.close()
    assert not _runs(sleeper.pid)
    holder.close()


def _runs(pid: int) -> bool:
    """Whether the process runs still: a zombie that nobody has reaped yet does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in {"Z", "X"}
