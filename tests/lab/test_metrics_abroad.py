"""`listen` opened to a real Prometheus on another node, with TLS and basic auth; nobody else gets anything."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.lab import service
from tests.lab.cluster import Cluster, Node, lab

# `htpasswd -nbBC 5 prometheus 'open sesame'`
USER, PASSWORD = "prometheus", "open sesame"
HASH = "$2b$05$0OBd96.0Nzha4/S4ySn9JeDVoEnjUEKgcccMCrDRO/kz1u6TuYd4C"

WEB = f"""
tls_server_config: {{cert_file: web.crt, key_file: web.key}}
basic_auth_users: {{{USER}: "{HASH}"}}
"""
PROMETHEUS = f"""
global: {{scrape_interval: 200ms, scrape_timeout: 200ms}}
scrape_configs:
  - job_name: reconciler
    scheme: https
    tls_config: {{ca_file: /root/ca.crt}}
    basic_auth: {{username: {USER}, password: "{PASSWORD}"}}
    static_configs: [{{targets: ["network:9464"]}}]
"""
DESIRED = "bridges: {br-int: {fail_mode: secure}}\nflows: {br-int: ['priority=1,actions=NORMAL']}\n"


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """`network` is held and listens; `control` has the certificate's authority, which is the certificate itself."""
    with lab("network", "control") as cluster:
        network, control = cluster.nodes["network"], cluster.nodes["control"]
        network.sh("""
        mkdir -p /etc/reconciler && cd /etc/reconciler
        openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=network \
            -addext subjectAltName=DNS:network -keyout web.key -out web.crt 2>/dev/null
        chmod 600 web.key""")
        network.write("/etc/reconciler/web.yml", WEB, "600")
        settings = 'listen = ":9464"\nweb_config = "/etc/reconciler/web.yml"\n'
        service.enable(network, DESIRED, service.SETTINGS + settings)
        control.write("/root/ca.crt", network.read("/etc/reconciler/web.crt"))
        yield cluster


def test_without_tls_or_the_password_there_is_nothing_to_be_had(cluster: Cluster) -> None:
    control = cluster.nodes["control"]
    assert (
        _code(control, "--cacert", "/root/ca.crt", "--user", f"{USER}:{PASSWORD}", "https://network:9464/metrics")
        == "200"
    )
    for wrong in ((), ("--user", f"{USER}:wrong"), ("--user", f"somebody:{PASSWORD}")):
        for path in ("metrics", "api/v1/status", ""):
            assert _code(control, "--cacert", "/root/ca.crt", *wrong, f"https://network:9464/{path}") == "401"
    assert _code(control, "--user", f"{USER}:{PASSWORD}", "https://network:9464/metrics") == "000"  # unknown authority
    assert _code(control, "--user", f"{USER}:{PASSWORD}", "http://network:9464/metrics") in {"000", "400"}


def test_nothing_can_be_ordered_over_the_network(cluster: Cluster) -> None:
    control = cluster.nodes["control"]
    login = ("--cacert", "/root/ca.crt", "--user", f"{USER}:{PASSWORD}", "-X", "POST", "-d", "{}")
    for order in ("once", "pause", "approve", "log-level"):
        assert _code(control, *login, f"https://network:9464/api/v1/{order}") in {"404", "405"}


def test_a_prometheus_on_another_node_scrapes_it_and_sees_a_repair(cluster: Cluster) -> None:
    control, network = cluster.nodes["control"], cluster.nodes["network"]
    control.write("/root/prometheus.yml", PROMETHEUS)
    options = (
        "--config.file=/root/prometheus.yml",
        "--storage.tsdb.path=/root/tsdb",
        "--web.listen-address=127.0.0.1:9090",
    )
    control.spawn("prometheus", *options)
    assert control.eventually(lambda: _query(control, 'up{job="reconciler"}') == 1.0, within=30)
    done = 'sum(reconciler_actions_total{result="done"})'
    assert control.eventually(lambda: _query(control, done) is not None)
    before = _query(control, done)
    assert before is not None
    network.run("ovs-ofctl", "del-flows", "br-int")
    assert control.eventually(lambda: (_query(control, done) or 0) > before)


def _code(node: Node, *args: str) -> str:
    return node.try_run("curl", "-s", "-m", "5", "-o", "/dev/null", "-w", "%{http_code}", *args).strip()


def _query(node: Node, expression: str) -> float | None:
    url = "http://127.0.0.1:9090/api/v1/query"
    answer = json.loads(node.run("curl", "-sf", "-m", "5", "--get", url, "--data-urlencode", f"query={expression}"))
    found = answer["data"]["result"]
    return float(found[0]["value"][1]) if found else None
