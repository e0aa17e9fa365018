"""An example for a person to look at and break: ``python -m tests.lab.demo run EXAMPLE``; ``enter`` from elsewhere.

`run` boots the example's nodes with the daemon in each and tells in the foreground what one of them does, until Ctrl-C
or ``--for``. When this program ends, in whatever way, the nodes end with it (see `Holder`). On the machine there is
nothing but processes: a running demo is found by an abstract socket, which is no file and goes with its owner, and that
says where its nodes are. ``./demo`` calls it.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from reconciler.errors import ReconcilerError
from tests.lab import examples, service
from tests.lab.cluster import BootError, Cluster, Node, inside
from tests.lab.examples import ALL, Example

DEFAULT = "three-node-gre"
_ENDING = (signal.SIGTERM, signal.SIGHUP, signal.SIGALRM)
_LIVE_SECONDS = 60.0


class DemoError(Exception):
    """There is no such demo, or it cannot be started; the message says why and what would be right."""


@dataclass(frozen=True, slots=True)
class Order:
    """What to show. `node` is whose story is told, or where `command` is run instead."""

    example: Example
    name: str
    node: str
    seconds: float | None
    command: tuple[str, ...]


def main(argv: Sequence[str] | None = None) -> int:
    """The exit code is that of the command that was given; 0 when the demo was ended; 69 when there is none."""
    words = list(sys.argv[1:] if argv is None else argv)
    cut = words.index("--") if "--" in words else len(words)
    command = tuple(words[cut + 1 :])
    parser = argparse.ArgumentParser(prog="demo")
    verbs = parser.add_subparsers(dest="verb", required=True)
    run, enter = verbs.add_parser("run"), verbs.add_parser("enter")
    for each in (run, enter):
        each.add_argument("--name", default="demo")
    run.add_argument("example", nargs="?", default=DEFAULT)
    run.add_argument("--node")
    run.add_argument("--for", dest="seconds", type=float)
    enter.add_argument("node", nargs="?")
    given = parser.parse_args(words[:cut])
    try:
        if given.verb == "enter":
            return _enter(given.name, given.node, command)
        return _run(_order(given, command))
    except (DemoError, BootError) as error:
        print(f"demo: {error}", file=sys.stderr)
        return 69


def _order(given: Any, command: tuple[str, ...]) -> Order:
    example = ALL.get(given.example)
    if example is None:
        raise DemoError(f"there is no example {given.example!r}; there are {', '.join(ALL)}")
    node = given.node or example.teller
    if node not in example.nodes:
        raise DemoError(f"{example.name} has no node {node!r}; it has {', '.join(example.nodes)}")
    return Order(example, given.name, node, given.seconds, command)


# run


def _run(order: Order) -> int:
    door = _reserve(order.name)
    nodes: dict[str, int] = {}
    threading.Thread(target=_answer, args=(door, nodes, order.node), name="door", daemon=True).start()
    for sig in _ENDING:
        signal.signal(sig, _end)
    try:
        print(f"demo: booting {', '.join(order.example.nodes)} …", file=sys.stderr)
        with examples.booted(order.example) as cluster:
            for node in cluster.nodes.values():
                examples.install(order.example, node)
            nodes.update((node.name, node.pid) for node in cluster.nodes.values())
            return _show(order, cluster)
    except KeyboardInterrupt:
        return 0
    finally:
        for sig in (*_ENDING, signal.SIGINT):
            signal.signal(sig, signal.SIG_IGN)
        door.close()


def _end(_number: int, _frame: object) -> None:
    raise KeyboardInterrupt


def _show(order: Order, cluster: Cluster) -> int:
    teller = cluster.nodes[order.node]
    service.started(teller)
    if order.seconds is not None:
        signal.setitimer(signal.ITIMER_REAL, order.seconds)
    if order.command:
        return subprocess.run(inside(teller.pid, order.command, f"DEMO={order.name}"), check=False).returncode
    print(_page(order), flush=True)
    first = "--limit=0" if teller.eventually(lambda: service.converged(teller), _LIVE_SECONDS) else "--limit=20"
    print(_live(teller), flush=True)
    while True:  # a daemon that is restarted, perhaps by the one who looks, goes on telling
        tell = inside(teller.pid, ("reconcile", "events", "-f", first))
        subprocess.run(tell, stderr=subprocess.DEVNULL, check=False)
        print(f"  (no daemon on {teller.name}; systemd starts it again unless you stopped it)", flush=True)
        while not _answers(teller):
            time.sleep(0.2)
        first = "--limit=0"


def _answers(node: Node) -> bool:
    try:
        return bool(service.status(node))
    except ReconcilerError:
        return False


def _live(node: Node) -> str:
    done = node.try_run("reconcile", "status").rstrip()
    return "".join(f"  {line}\n" for line in done.splitlines())


def _page(order: Order) -> str:
    example, name = order.example, "" if order.name == "demo" else f" --name {order.name}"
    example_dir = example.directory.relative_to(examples.CHECKOUT)
    shells = "\n".join(f"      {examples.CHECKOUT}/demo shell {node}{name}" for node in example.nodes)
    return f"""
  {example.name}: {", ".join(example.nodes)}. Each is a whole node with systemd, Open vSwitch and the daemon.
  What it is, and what to break: {example_dir}/README.md

  In a second terminal, enter a node:

{shells}

  Look:  reconcile status    reconcile history    reconcile explain ADDRESS    ovs-vsctl show    ip netns
  Edit:  /etc/reconciler/desired/   (takes effect when you save; a mistake is named and changes nothing)
  Stop:  Ctrl-C here. Everything above is gone then; this machine's own network was never touched.

  Below: what happens on {order.node}.
"""


# The door: where the nodes of a running demo are.


def _address(name: str) -> str:
    return f"\0reconciler-demo/{name}"


def _reserve(name: str) -> socket.socket:
    door = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        door.bind(_address(name))
    except OSError as error:
        door.close()
        raise DemoError(
            f"a demo named {name!r} runs already. Enter it with `./demo shell`, or end it with Ctrl-C where it runs; "
            f"a second one beside it needs another name: `./demo --name {name}2`"
        ) from error
    door.listen()
    return door


def _answer(door: socket.socket, nodes: dict[str, int], teller: str) -> None:
    """Tell everybody who knocks, until the door is closed."""
    with contextlib.suppress(OSError):
        while True:
            guest, _ = door.accept()
            with guest, contextlib.suppress(OSError):
                guest.sendall(json.dumps({"nodes": dict(nodes), "teller": teller}).encode())


def find(name: str) -> tuple[dict[str, int], str]:
    """The nodes of a running demo with the pid (on the machine) of their PID 1, and which of them tells."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as knock:
        knock.settimeout(5)
        try:
            knock.connect(_address(name))
            said = json.loads(b"".join(_received(knock)))
        except OSError as error:
            raise DemoError(f"no demo named {name!r} runs here. Start one with ./demo") from error
    if not said["nodes"]:
        raise DemoError(f"the demo {name!r} is starting still; its nodes are there in a few seconds")
    return said["nodes"], said["teller"]


def _received(knock: socket.socket) -> Iterator[bytes]:
    while part := knock.recv(65536):
        yield part


def _enter(name: str, node: str | None, command: tuple[str, ...]) -> int:
    nodes, teller = find(name)
    node = node or teller
    if node not in nodes:
        raise DemoError(f"the demo {name!r} has no node {node!r}; it has {', '.join(nodes)}")
    shell = ("bash", "--norc", "-i")
    environment = (f"TERM={os.environ.get('TERM', 'dumb')}", f"PS1=[{node}] \\w # ", f"DEMO={name}")
    argv = inside(nodes[node], command or shell, *environment)
    os.execvp(argv[0], argv)


if __name__ == "__main__":
    sys.exit(main())
