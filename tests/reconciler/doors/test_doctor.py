"""The doctor on a real Open vSwitch: what is well, and each thing that can be wrong with what to do about it."""

import json
import os
import signal
import subprocess
import sys

import pytest

from reconciler.doors import doctor
from reconciler.doors.doctor import Check, Verdict
from reconciler.doors.session import Session
from reconciler.report import ExitCode
from reconciler.settings import Settings
from reconciler.settings_sections import AmqpSettings, NeutronSettings

GOOD = "bridges:\n  br-int: {datapath_type: netdev}\n"


@pytest.fixture
def session(ovs, short_dir):
    (short_dir / "desired").mkdir()
    (short_dir / "desired" / "net.yaml").write_text(GOOD)
    session = Session()
    session.settings = Settings(
        node="n1",
        state_dir=short_dir / "state",
        run_dir=short_dir / "run",
        desired=short_dir / "desired",
        ovs_rundir=ovs.rundir,
        datapath_type="netdev",
        listen="",
    )
    return session


def examine(session) -> dict[str, Check]:
    return {check.name: check for check in doctor.examine(session)}


def test_a_healthy_machine_has_nothing_bad(session, ovs):
    ovs.add_bridge("br0")
    checks = examine(session)
    assert not [check for check in checks.values() if check.verdict is Verdict.BAD]
    assert checks["bridges"].detail == "1 of 1 answer in OpenFlow14"
    assert checks["replica"].verdict is Verdict.OK
    assert checks["daemon"].verdict is Verdict.WARNING
    assert doctor.exit_code(tuple(checks.values())) is ExitCode.CONVERGED


def test_what_is_wrong_is_told_with_what_to_do(session, ovs, short_dir):
    ovs.add_bridge("br0", "protocols=OpenFlow10")
    ovs.vsctl("set", "Open_vSwitch", ".", "other_config:flow-restore-wait=true")
    (short_dir / "desired" / "net.yaml").write_text("bridgs: {}\n")
    (short_dir / "state").write_text("in the way of the directory")
    session.settings = session.settings.model_copy(update={"datapath_type": "system"})
    checks = examine(session)
    assert "add Bridge br0 protocols OpenFlow14" in checks["bridge br0"].advice
    assert checks["flow-restore"].verdict is Verdict.BAD
    assert 'datapath_type = "netdev"' in checks["datapath"].advice
    assert "bridgs" in checks["desired"].detail
    assert checks["store"].verdict is Verdict.BAD
    assert doctor.exit_code(tuple(checks.values())) is ExitCode.FAILED


def test_a_hanging_vswitchd_is_found_within_its_timeout(session, ovs, monkeypatch):
    monkeypatch.setattr(doctor, "TOOL_SECONDS", 1.0)
    monkeypatch.setattr("reconciler.doors.doctor_ovs.TOOL_SECONDS", 1.0)
    os.kill(ovs.vswitchd.pid, signal.SIGSTOP)
    try:
        checks = examine(session)
    finally:
        os.kill(ovs.vswitchd.pid, signal.SIGCONT)
    assert checks["vswitchd"].verdict is Verdict.BAD
    assert checks["ovsdb"].verdict is Verdict.OK
    assert doctor.exit_code(tuple(checks.values())) is ExitCode.UNREACHABLE


def test_without_open_vswitch_the_other_checks_are_made_all_the_same(short_dir):
    config = "".join(f'{name} = "{short_dir}/{name}"\n' for name in ("state_dir", "run_dir", "desired", "ovs_rundir"))
    (short_dir / "reconciler.toml").write_text(config)
    argv = ["--config", str(short_dir / "reconciler.toml"), "doctor", "--output", "json"]
    command = [sys.executable, "-m", "reconciler.doors.cli", *argv]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 5
    checks = {check["name"]: check for check in json.loads(done.stdout)}
    assert checks["ovsdb"]["verdict"] == "bad"
    assert checks["desired"]["verdict"] == "bad"
    assert checks["store"]["verdict"] == "ok"
    assert checks["disk"]["verdict"] in ("ok", "warning")


def broker(session, url, **more):
    session.settings = session.settings.model_copy(update={"amqp": AmqpSettings(url=url, **more)})
    return examine(session)["amqp"]


def test_the_broker_of_openstack_is_asked(session, rabbit_server):
    assert examine(session)["amqp"].verdict is Verdict.SKIPPED
    rabbit_server.start()
    fine = broker(session, rabbit_server.url(), exchanges=("amq.topic", "neutron"))
    assert fine.verdict is Verdict.OK
    assert "exchanges that are there: amq.topic" in fine.detail
    missing = broker(session, rabbit_server.url(), exchanges=("quantum", "none"))
    assert missing.verdict is Verdict.WARNING
    assert "has no exchange quantum nor none" in missing.detail
    refused = broker(session, rabbit_server.url("guest", "s3cret"))
    assert refused.verdict is Verdict.BAD
    assert "refuses user 'guest' and vhost '/'" in refused.detail
    assert "s3cret" not in f"{refused}"
    away = broker(session, "amqp://me@127.0.0.1:1/")
    assert "cannot be reached: Connection refused" in away.detail


def test_where_neutron_does_not_answer_it_is_told_what_to_check(session):
    assert examine(session)["neutron"].verdict is Verdict.SKIPPED
    neutron = NeutronSettings(endpoint="http://127.0.0.1:9")
    session.settings = session.settings.model_copy(update={"neutron": neutron})
    found = examine(session)["neutron"]
    assert found.verdict is Verdict.BAD
    assert found.detail.endswith("Connection refused")
    assert "/etc/credstore/reconciler.neutron-token" in found.advice
