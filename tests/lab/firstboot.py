"""What a booted node's disk gets before systemd reads it: identity, few units, Open vSwitch without its kernel module.

The node sees the machine's packages, and so the machine's enabled units: those are un-enabled (no unit is masked, since
others require it), and what a node in a lab needs is enabled. Idempotent: a node that boots again keeps its disk.
Called by ``tests/lab/boot.py`` inside the node, before PID 1 is systemd.
"""

from __future__ import annotations

import shutil
import uuid
from pathlib import Path

_UNITS = (Path("/lib/systemd/system"), Path("/etc/systemd/system"))
_DONE = Path("/var/lib/lab-first-boot")

_WANTED = {
    "sysinit.target": ("systemd-journald.service", "systemd-tmpfiles-setup.service"),
    "sockets.target": ("systemd-journald.socket", "systemd-journald-dev-log.socket", "dbus.socket"),
    "multi-user.target": ("dbus.service",),
}

_UNDERLAY = """[Unit]
Description=br-phy, which carries this node's tunnels: eth1 and {address}
After=openvswitch-switch.service
Requires=openvswitch-switch.service
PartOf=ovs-vswitchd.service

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=ovs-vsctl --timeout=20 --may-exist add-br br-phy -- set bridge br-phy datapath_type=netdev \\
    -- --may-exist add-port br-phy eth1 -- set interface br-phy mtu_request=1600
ExecStart=ip address replace {address}/24 dev br-phy
ExecStart=ip link set br-phy up
"""

_OVS_DEFAULTS = """# No kernel module can be loaded from inside a node: the userspace datapath only.
OVS_CTL_OPTS="--no-mlockall --no-force-corefiles --ovs-vswitchd-options=--disable-system"
"""


def prepare(name: str, underlay: str, wants: tuple[str, ...], hosts: str) -> None:
    """Write the files. `wants` are units to start at boot, `hosts` the text of /etc/hosts."""
    if _DONE.exists():
        return
    _identity(name, hosts)
    for directory in _UNITS:
        for links in [*directory.glob("*.wants"), *directory.glob("*.requires")]:
            shutil.rmtree(links)
    _write("/etc/systemd/system/lab-underlay.service", _UNDERLAY.format(address=underlay))
    for target, units in _WANTED.items():
        for unit in (*units, *(wants if target == "multi-user.target" else ())):
            _enable(target, unit)
    _link("/etc/systemd/system/default.target", "/lib/systemd/system/multi-user.target")
    # Only empty directories are in these, and perhaps the mount of a checkout, which it would empty.
    _link("/etc/tmpfiles.d/tmp.conf", "/dev/null")
    _write("/etc/systemd/system.conf.d/lab.conf", "[Manager]\nDefaultTimeoutStopSec=20s\nShowStatus=no\n")
    _write("/etc/systemd/journald.conf.d/lab.conf", "[Journal]\nStorage=volatile\nRateLimitBurst=0\n")
    _open_vswitch()
    _DONE.touch()


def _identity(name: str, hosts: str) -> None:
    _write("/etc/hostname", f"{name}\n")
    _write("/etc/machine-id", f"{uuid.uuid4().hex}\n")
    _write("/etc/hosts", hosts)
    _write("/etc/fstab", "")
    _write("/etc/resolv.conf", "")
    Path("/etc/resolv.conf").chmod(0o644)


def _open_vswitch() -> None:
    for directory in ("/var/lib/openvswitch", "/etc/openvswitch"):
        shutil.rmtree(directory, ignore_errors=True)
        Path(directory).mkdir(parents=True)
    if Path("/usr/share/openvswitch/scripts").is_dir():
        _write("/etc/default/openvswitch-switch", _OVS_DEFAULTS)
        _write("/usr/share/openvswitch/scripts/ovs-kmod-ctl", "#!/bin/sh\nexit 0\n", 0o755)
        # Type=forking waits for no udev here; a requirement of Debian's unit that its install links usually state.
        for unit in ("ovsdb-server.service", "ovs-vswitchd.service", "ovs-record-hostname.service"):
            _enable("openvswitch-switch.service", unit, "requires")


def _enable(target: str, unit: str, how: str = "wants") -> None:
    found = next((place / unit for place in reversed(_UNITS) if (place / unit).exists()), None)
    if found is None and "@" in unit:
        template = f"{unit.partition('@')[0]}@.{unit.rpartition('.')[2]}"
        found = next((place / template for place in reversed(_UNITS) if (place / template).exists()), None)
    if found is None:
        raise FileNotFoundError(f"unit {unit} is not installed, so a node cannot start it")
    _link(f"/etc/systemd/system/{target}.{how}/{unit}", str(found))


def _link(path: str, to: str) -> None:
    place = Path(path)
    place.parent.mkdir(parents=True, exist_ok=True)
    place.unlink(missing_ok=True)
    place.symlink_to(to)


def _write(path: str, text: str, mode: int = 0o644) -> None:
    place = Path(path)
    place.parent.mkdir(parents=True, exist_ok=True)
    if place.is_symlink():
        place.unlink()
    place.write_text(text, encoding="utf-8")
    place.chmod(mode)
