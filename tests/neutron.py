"""A real Neutron server for the tests: the package `neutron` in a virtualenv of its own, on loopback and free ports.

ML2 with Open vSwitch, routers, MariaDB (SQLite locks under load), and notifications as production sends them
(`messagingv2` on RabbitMQ, exchange ``neutron``). Requests need no token (``auth_strategy = noauth``) and have an
administrator's rights. The fixture `neutron_server` (``tests/conftest.py``) is the one
that the tests of a process share. The virtualenv (`.venv-neutron`, half a minute, once) is made
by `tests/lab/bootstrap.sh`.
"""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.mariadb import MariadbServer
from tests.rabbitmq import RabbitServer
from tests.server import HOST, free_ports, tied

PATIENCE = 60.0
ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv-neutron"
SERVES = ROOT / "tests/neutron_api.py"
_CONFIG = """\
[DEFAULT]
auth_strategy = noauth
core_plugin = ml2
service_plugins = router
transport_url = rabbit://guest:guest@{host}:{rabbit}/
control_exchange = neutron
state_path = {directory}/state
log_file = {directory}/log
api_paste_config = {venv}/etc/neutron/api-paste.ini
notify_nova_on_port_status_changes = false
notify_nova_on_port_data_changes = false
pagination_max_limit = {page}

[database]
connection = {database}

[oslo_concurrency]
lock_path = {directory}/state

[oslo_messaging_rabbit]
kombu_reconnect_delay = 0.1
rabbit_retry_backoff = 0

[oslo_messaging_notifications]
driver = messagingv2
topics = notifications

[ml2]
type_drivers = flat,vlan,gre,vxlan,local
tenant_network_types = gre
mechanism_drivers = openvswitch

[ml2_type_gre]
tunnel_id_ranges = 1:1000

[ml2_type_vxlan]
vni_ranges = 2000:3000

[ml2_type_flat]
flat_networks = *

[ml2_type_vlan]
network_vlan_ranges = physnet1:100:199

[quotas]
default_quota = -1
quota_network = -1
quota_subnet = -1
quota_port = -1
quota_router = -1
quota_floatingip = -1
"""
_WITHOUT_QUESTIONS = ("floatingips", "routers", "ports", "subnets", "networks", "agents")


class NeutronServer:
    """One server with a database of its own, at a broker. It gives `page` objects at most at once."""

    def __init__(self, rabbit: RabbitServer, mariadb: MariadbServer, page: int = 1000) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="neutron-"))
        (self.port,) = free_ports(1)
        self._process: subprocess.Popen[str] | None = None
        try:
            prepare()
            self._database = (
                f"mysql+pymysql://root@/{mariadb.create_database()}?unix_socket={mariadb.socket}&charset=utf8mb4"
            )
            config = _CONFIG.format(host=HOST, rabbit=rabbit.port, directory=self.directory, venv=VENV, page=page,
                                    database=self._database)  # fmt: skip
            (self.directory / "neutron.conf").write_text(config)
            self.start()
        except BaseException:
            self.close()
            raise

    # -- the process ---------------------------------------------------------------------------------------------

    @property
    def endpoint(self) -> str:
        return f"http://{HOST}:{self.port}"

    def start(self) -> None:
        """Start it and wait until the API answers. Nothing happens when it runs."""
        if self._process is None:
            program = [str(VENV / "bin/python"), "-P", str(SERVES)]  # -P: tests/neutron.py is no module of it
            env = {"PATH": "/usr/bin:/bin:/usr/sbin:/sbin", "LANG": "C.UTF-8", "HOME": str(self.directory),
                   "OS_NEUTRON_CONFIG_DIR": str(self.directory), "OS_NEUTRON_CONFIG_FILES": "neutron.conf"}  # fmt: skip
            with (self.directory / "log").open("ab") as log:
                self._process = subprocess.Popen(
                    [*tied(), *program, str(self.port), self._database],
                    stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True, cwd=self.directory, env=env,
                )  # fmt: skip
        self._until_it_answers()

    def stop(self) -> None:
        """End it at once, with whatever it is answering."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait(PATIENCE)
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    pipe.close()

    def freeze(self) -> None:
        """Stop answering, with all connections left open. `thaw` goes on."""
        self._running().send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._running().send_signal(signal.SIGCONT)

    def close(self) -> None:
        self.stop()
        shutil.rmtree(self.directory, ignore_errors=True)

    @property
    def log(self) -> str:
        return (self.directory / "log").read_text(errors="replace")

    # -- what is in it -------------------------------------------------------------------------------------------

    def call(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """One request under ``/v2.0/``; what it answered. Raises RuntimeError with the server's words."""
        request = urllib.request.Request(
            f"{self.endpoint}/v2.0/{path}", method=method, data=None if body is None else json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
        )  # fmt: skip
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
                return json.loads(answer.read() or b"{}")
        except urllib.error.HTTPError as error:
            with error:
                raise RuntimeError(f"{method} {path}: {error.code} {error.read().decode()}") from error

    def create(self, kind: str, **fields: Any) -> dict[str, Any]:
        """A new object, as in ``create("network", name="blue")``; colons of names are written ``__``."""
        named = {name.replace("__", ":"): value for name, value in fields.items()}
        return self.call("POST", f"{kind}s", {kind: named})[kind]

    def update(self, kind: str, object_id: str, **fields: Any) -> dict[str, Any]:
        named = {name.replace("__", ":"): value for name, value in fields.items()}
        return self.call("PUT", f"{kind}s/{object_id}", {kind: named})[kind]

    def delete(self, kind: str, object_id: str) -> None:
        self.call("DELETE", f"{kind}s/{object_id}")

    def add_interface(self, router: str, **what: str) -> dict[str, Any]:
        """`what` is a ``subnet_id`` or a ``port_id``."""
        return self.call("PUT", f"routers/{router}/add_router_interface", what)

    def remove_interface(self, router: str, **what: str) -> dict[str, Any]:
        return self.call("PUT", f"routers/{router}/remove_router_interface", what)

    def all(self, collection: str) -> list[dict[str, Any]]:
        """Everything of a collection, in as many pages as the server wants, sorted by id."""
        found: list[dict[str, Any]] = []
        while True:
            marker = f"&marker={found[-1]['id']}" if found else ""
            page = self.call("GET", f"{collection}?sort_key=id&sort_dir=asc{marker}")[collection]
            found += page
            if not page:
                return found

    def report_agent(self, host: str, *, tunnel_ip: str, mappings: Mapping[str, str] | None = None) -> None:
        """Have the Open vSwitch agent of `host` report itself, as it does every 30 seconds; return when it counts."""
        self._report("neutron-openvswitch-agent", "Open vSwitch agent", host, "N/A", {
            "tunneling_ip": tunnel_ip, "tunnel_types": ["gre", "vxlan"], "bridge_mappings": dict(mappings or {}),
            "integration_bridge": "br-int", "datapath_type": "system", "ovs_hybrid_plug": False,
        })  # fmt: skip

    def report_l3_agent(self, host: str) -> None:
        self._report("neutron-l3-agent", "L3 agent", host, "l3_agent", {
            "agent_mode": "legacy", "handle_internal_only_routers": True, "interface_driver": "openvswitch",
            "log_agent_heartbeats": False, "routers": 0, "ex_gw_ports": 0, "interfaces": 0, "floating_ips": 0,
        })  # fmt: skip

    def clear(self) -> None:
        """Take everything away."""
        for router in self.all("routers"):
            for port in self.all("ports"):
                if port["device_id"] == router["id"] and port["device_owner"] == "network:router_interface":
                    self._forget_routes(router)
                    self._free(port)
                    self.remove_interface(router["id"], port_id=port["id"])
        for collection in _WITHOUT_QUESTIONS:
            for thing in self.all(collection):
                if not str(thing.get("device_owner", "")).startswith("network:"):
                    self.call("DELETE", f"{collection}/{thing['id']}")

    # -- helpers -------------------------------------------------------------------------------------------------

    def _forget_routes(self, router: Mapping[str, Any]) -> None:
        if router.get("routes"):
            self.update("router", router["id"], routes=[])

    def _free(self, port: Mapping[str, Any]) -> None:
        """A router keeps its interface while a floating IP is served through it."""
        for floating in self.all("floatingips"):
            if floating["router_id"] == port["device_id"]:
                self.delete("floatingip", floating["id"])

    def _report(self, binary: str, kind: str, host: str, topic: str, configurations: Mapping[str, Any]) -> None:
        process = self._running()
        assert process.stdin is not None
        assert process.stdout is not None
        state = {"binary": binary, "agent_type": kind, "host": host, "topic": topic, "start_flag": True,
                 "configurations": configurations}  # fmt: skip
        process.stdin.write(json.dumps(state) + "\n")
        process.stdin.flush()
        if process.stdout.readline().strip() != "reported":
            raise RuntimeError(f"the agent of {host} could not report itself: {self.log}")

    def _running(self) -> subprocess.Popen[str]:
        if self._process is None:
            raise RuntimeError("Neutron does not run")
        return self._process

    def _until_it_answers(self) -> None:
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                self.call("GET", "networks?fields=id&limit=1")
            except (OSError, RuntimeError) as error:
                if self._running().poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"Neutron did not start: {self.log}") from error
                time.sleep(0.05)
            else:
                return


def prepare() -> None:
    """Make the virtualenv when it is not there as its constraints say."""
    _run(["sh", "-c", ". tests/lab/bootstrap.sh; need_neutron"], "Neutron's virtualenv could not be made")


def _run(argv: Sequence[str], what: str) -> None:
    done = subprocess.run(argv, capture_output=True, text=True, timeout=600, cwd=ROOT, check=False)
    if done.returncode:
        raise RuntimeError(f"{what}: {done.stderr}{done.stdout}")
