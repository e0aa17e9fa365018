"""The TCP listener: read-only, escaped, and closed to strangers once the web config says so."""

import asyncio
import base64
import ctypes
import json
import ssl
import subprocess

import aiohttp
import pytest

from reconciler.doors.http import HttpServer
from reconciler.doors.webconfig import WebConfig
from reconciler.errors import ConfigError, DriverError
from reconciler.settings import Settings
from tests.reconciler.doors.fakes import EVIL


def settings(**changes):
    return Settings(**({"listen": "127.0.0.1:0"} | changes))


@pytest.fixture
async def url(node, metrics):
    server = HttpServer(settings(), node, metrics)
    await server.start()
    yield f"http://127.0.0.1:{server.port}"
    await server.close()


@pytest.fixture
async def session():
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(10)) as session:
        yield session


async def get(session, url, **kwargs):
    async with session.get(url, **kwargs) as response:
        return response.status, await response.text(), response.headers


async def test_metrics_are_served_in_prometheus_form(session, url):
    status, text, headers = await get(session, url + "/metrics")
    assert status == 200
    assert headers["Content-Type"].startswith("text/plain; version=0.0.4")
    assert 'reconciler_passes_total{controller="ovsdb",outcome="failed"} 0.0' in text


async def test_health_follows_the_workers(session, url, node):
    assert (await get(session, url + "/healthz"))[:2] == (200, "ok\n")
    node.stuck = "the pass over flow/br-int has lasted 40 s"
    assert (await get(session, url + "/healthz"))[:2] == (503, "the pass over flow/br-int has lasted 40 s\n")
    assert (await get(session, url + "/readyz"))[:2] == (503, "flow/br-int has not been looked at yet\n")


async def test_the_api_answers_in_json(session, url):
    status, text, _ = await get(session, url + "/api/v1/status")
    assert status == 200
    assert json.loads(text)["node"] == "net1"
    assert len(json.loads((await get(session, url + "/api/v1/history?limit=1"))[1])) == 1
    status, text, _ = await get(session, url + "/api/v1/history?limit=many")
    assert status == 400
    assert "limit='many' is no number" in json.loads(text)["error"]


@pytest.mark.parametrize("verb", ["once", "approve", "pause", "resume", "log-level"])
async def test_nothing_can_be_changed_over_tcp(session, url, verb):
    async with session.post(f"{url}/api/v1/{verb}", json={}) as response:
        assert response.status == 404


async def test_the_page_escapes_everything_and_needs_nothing_else(session, url):
    status, text, headers = await get(session, url + "/")
    assert status == 200
    assert headers["Content-Type"].startswith("text/html")
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert "<script" not in text
    assert "\x1b" not in text
    assert "&lt;script&gt;" in text
    assert EVIL not in text
    assert "http://" not in text
    assert "https://" not in text
    for word in ("net1", "conflict", "port/patch-tun", "was deleted -&gt; created again", "did you mean"):
        assert word in text


async def test_live_events_reach_a_tcp_reader(session, url, node):
    async with session.get(url + "/api/v1/events") as response:
        assert await response.content.readline() == b"\n"
        while not node.listeners:
            await asyncio.sleep(0.005)
        node.happened(node.records[0])
        assert json.loads(await response.content.readline())["pass_id"] == 7


async def test_a_taken_address_is_an_error_in_words(node, metrics, url):
    address = url.removeprefix("http://")
    with pytest.raises(DriverError, match=rf"listening on {address}: .*metrics are not served"):
        await HttpServer(settings(listen=address), node, metrics).start()


async def test_an_empty_listen_listens_nowhere(node, metrics):
    server = HttpServer(settings(listen=""), node, metrics)
    await server.start()
    assert server.port == 0
    assert server.notices == ()
    await server.close()


def test_an_open_address_without_protection_is_pointed_out(node, metrics):
    def notices(listen):
        return HttpServer(settings(listen=listen), node, metrics).notices

    assert notices("127.0.0.1:9464") == notices("[::1]:9464") == notices("localhost:9464") == ()
    (notice,) = notices(":9464")
    assert "open to others without TLS and without passwords" in notice


def bcrypt(password: str) -> str:
    crypt = ctypes.CDLL("libcrypt.so.1").crypt
    crypt.restype = ctypes.c_char_p
    return crypt(password.encode(), b"$2y$04$abcdefghijklmnopqrstuu").decode()


@pytest.fixture
def web_config(tmp_path):
    key = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    made = ["-keyout", "key.pem", "-out", "cert.pem", "-days", "2", "-subj", "/CN=localhost"]
    names = ["-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run([*key, *made, *names], cwd=tmp_path, check=True, capture_output=True, timeout=30)
    path = tmp_path / "web.yml"
    path.write_text(
        "tls_server_config: {cert_file: cert.pem, key_file: key.pem}\n"
        f"basic_auth_users: {{prom: '{bcrypt('s3cret')}'}}\n"
    )
    return path


async def test_tls_and_passwords_as_the_web_config_says(session, node, metrics, web_config):
    server = HttpServer(settings(web_config=web_config), node, metrics)
    await server.start()
    url = f"https://127.0.0.1:{server.port}"
    trust = ssl.create_default_context(cafile=web_config.parent / "cert.pem")
    good = {"Authorization": aiohttp.encode_basic_auth("prom", "s3cret")}
    try:
        for _ in range(2):
            assert (await get(session, url + "/metrics", ssl=trust, headers=good))[0] == 200
        for path in ("/", "/metrics", "/healthz", "/api/v1/status", "/none"):
            status, text, headers = await get(session, url + path, ssl=trust)
            assert status == 401
            assert headers["WWW-Authenticate"].startswith("Basic")
            assert "net1" not in text
        for user, password in (("prom", "wrong"), ("other", "s3cret"), ("", ""), ("prom", "")):
            header = {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}
            assert (await get(session, url + "/metrics", ssl=trust, headers=header))[0] == 401
        for odd in ("Bearer x", "Basic", "Basic %%%", "Basic " + base64.b64encode(b"\xff:\xff").decode()):
            assert (await get(session, url + "/metrics", ssl=trust, headers={"Authorization": odd}))[0] == 401
        with pytest.raises(aiohttp.ClientError):
            await get(session, url.replace("https", "http") + "/metrics")
    finally:
        await server.close()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[]", "a web config has"),
        ("tls_server_config: {cert_file: a}", "key_file: Field required"),
        ("tls_server_config: {cert_file: a, key_file: b}", "loading the certificate"),
        ("basic_auth_users: {prom: plain}", "this is no bcrypt hash"),
        ("basic_auth_user: {}", "basic_auth_user: Extra inputs"),
        ("a: b: c", "not YAML"),
    ],
)
def test_a_wrong_web_config_is_refused_in_words(tmp_path, text, says):
    path = tmp_path / "web.yml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=says) as caught:
        WebConfig.load(path).ssl_context()
    assert str(path) in str(caught.value) or str(tmp_path) in str(caught.value)
    assert "plain" not in str(caught.value)


def test_a_missing_web_config_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read"):
        WebConfig.load(tmp_path / "none.yml")
