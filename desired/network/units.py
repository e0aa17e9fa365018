"""The systemd units of what runs in a namespace: dnsmasq, radvd, the metadata proxy. Pure; used by their modules.

One unit for each, in the namespace's name, with a configuration of its own: they are not children of the daemon and
outlive it. The configuration is in a directory that everybody may read, because dnsmasq gives up root and reads again.
"""

from __future__ import annotations

from desired.kinds.file import FileSpec
from desired.network.draft import made
from desired.resource import Origin, Resource

CONFIGURATION = "/etc/reconciler-network"
STATE = "reconciler-network"
"""Below /var/lib: leases."""

_UNIT = """[Unit]
Description={what}
# Never give up: the namespace, or what is in it, may come later.
StartLimitIntervalSec=0

[Service]
{namespace}ExecStart={start}
{reload}Restart=always
RestartSec=200ms
StateDirectory={state}
ProtectSystem=strict
ProtectHome=yes
PrivateTmp=yes
NoNewPrivileges=yes
CapabilityBoundingSet={capabilities}
"""
_HANGUP = "ExecReload=+/bin/kill -HUP $MAINPID\n"
"""With all rights (`+`): the process has given up root, and its unit may not signal other users' processes."""


def unit(what: str, start: str, capabilities: str, *, namespace: str = "", hangup: bool = False) -> str:
    """The text of a unit. `what` names it by its id, since another text is a restart; `hangup`: SIGHUP reloads it."""
    enters = f"NetworkNamespacePath=/run/netns/{namespace}\n" if namespace else ""
    return _UNIT.format(
        what=what,
        namespace=enters,
        start=start,
        reload=_HANGUP if hangup else "",
        state=STATE,
        capabilities=capabilities,
    )


def path(name: str) -> str:
    """Where a configuration file is."""
    return f"{CONFIGURATION}/{name}"


def file(name: str, lines: list[str], origin: Origin, service: str) -> Resource:
    """A configuration file of a service (its unit, without suffix)."""
    content = "".join(f"{line}\n" for line in lines)
    return made(FileSpec(path=path(name), content=content, service=f"{service}.service"), origin)
