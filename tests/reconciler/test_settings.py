"""The settings: merged in rising order, every mistake at once, each value with its origin, no secret printed."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.settings import Settings, SettingsError
from reconciler.settings_values import listen_address, mqtt_broker, parse_duration, without_password


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "reconciler.toml"
    path.write_text(text)
    return path


def origins(settings: Settings) -> dict[str, str]:
    return {entry.name: entry.origin for entry in settings.effective()}


def problems(path: Path, env: dict[str, str] | None = None) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        Settings.load(path, env or {})
    assert len(caught.value.problems) == len(str(caught.value).splitlines())
    return str(caught.value).splitlines()


def test_without_a_file_the_defaults_hold():
    settings = Settings.load(env={})
    assert settings.resync_interval == 300.0
    assert settings.ovsdb == "unix:/run/openvswitch/db.sock"
    assert settings.store_url == "sqlite:////var/lib/reconciler/state.db"
    assert set(origins(settings).values()) == {"default"}


def test_defaults_follow_the_directories_they_are_made_of(tmp_path):
    settings = Settings.load(env={}, overrides={"state_dir": str(tmp_path), "ovs_rundir": "/run/ovs"})
    assert settings.store_url == f"sqlite:///{tmp_path}/state.db"
    assert settings.ovsdb == "unix:/run/ovs/db.sock"


def test_flag_beats_environment_beats_file_beats_default(tmp_path):
    path = write(tmp_path, 'node = "a"\nowner = "a"\ndesired = "/a"\n[timeouts]\novsdb = "1500ms"\n')
    env = {"RECONCILER_OWNER": "b", "RECONCILER_DESIRED": "/b", "RECONCILER_ROLES": "network, compute", "HOME": "/"}
    settings = Settings.load(path, env, {"desired": Path("/c"), "node": None})
    assert (settings.node, settings.owner, settings.desired) == ("a", "b", Path("/c"))
    assert settings.roles == ("network", "compute")
    assert settings.timeouts.ovsdb == 1.5
    found = origins(settings)
    assert found["node"] == f"{path}:1"
    assert found["timeouts.ovsdb"] == f"{path}:5"
    assert found["owner"] == "environment RECONCILER_OWNER"
    assert found["desired"] == "flag --desired"
    assert found["timeouts.ofctl"] == "default"


def test_environment_reaches_nested_settings():
    settings = Settings.load(env={"RECONCILER_RATES__NODE__BURST": "7", "RECONCILER_RATES__NODE__PER_SECOND": "3"})
    assert (settings.rates.node.burst, settings.rates.node.per_second) == (7, 3.0)


def test_all_mistakes_are_told_at_once_with_their_place(tmp_path):
    path = write(
        tmp_path,
        'nod = "x"\nowner = "two words"\nlisten = "9464"\n[budget]\nshare = 2\nwindow = true\n[timeout]\novsdb = 1\n',
    )
    lines = problems(path, {"RECONCILER_RESYNC_INTERVALL": "5", "RECONCILER_DATAPATH_TYPE": "kernel"})
    assert f"{path}:1: there is no setting 'nod'; did you mean 'node'?" in lines
    assert any(line.startswith(f"{path}:2: owner: 'two words' must be one word") for line in lines)
    assert any(line.startswith(f"{path}:3: listen: '9464' is no listen address") for line in lines)
    assert any(line.startswith(f"{path}:5: budget.share: ") and "not 2" in line for line in lines)
    assert any(line.startswith(f"{path}:6: budget.window: ") for line in lines)
    assert any("there is no setting 'timeout'" in line and "did you mean 'timeouts'?" in line for line in lines)
    assert any("environment RECONCILER_RESYNC_INTERVALL" in line and "'resync_interval'" in line for line in lines)
    assert any("environment RECONCILER_DATAPATH_TYPE" in line and "'system' or 'netdev'" in line for line in lines)
    assert len(lines) == 8


def test_broken_toml_names_its_line(tmp_path):
    path = write(tmp_path, 'node = "a"\nowner = oops\n')
    (line,) = problems(path)
    assert line.startswith(f"{path}:2: not TOML")


def test_duplicate_keys_are_an_error(tmp_path):
    (line,) = problems(write(tmp_path, 'node = "a"\nnode = "b"\n'))
    assert "not TOML" in line


def test_a_named_file_must_exist_and_be_readable(tmp_path):
    assert "no such settings file" in problems(tmp_path / "none.toml")[0]
    assert "cannot be read" in problems(tmp_path)[0]
    (tmp_path / "latin.toml").write_bytes(b'node = "\xe9"\n')
    assert "cannot be read" in problems(tmp_path / "latin.toml")[0]


def test_a_value_and_a_table_of_one_name_are_refused(tmp_path):
    lines = problems(write(tmp_path, ""), {"RECONCILER_TIMEOUTS": "5", "RECONCILER_TIMEOUTS__OVSDB": "5"})
    assert any("'timeouts' is a value and cannot also have 'ovsdb' inside" in line for line in lines)


@pytest.mark.parametrize(
    "toml",
    [
        'desired = "relative/dir"',
        'untouchable = ["eth0", "a-name-too-long-for-it"]',
        'owner = "-rf"',
        'owner = ""',
        'ovsdb = "db.sock"',
        'store_url = "state.db"',
        "resync_interval = 0",
        "resync_interval = nan",
        "resync_interval = inf",
        'resync_interval = "soon"',
        'log_level = "chatty"',
        'listen = "::1:80"',
        'listen = "127.0.0.1:70000"',
        'listen = "[zz]:1"',
        "budget = 3",
        'amqp.url = "http://broker/"',
        'amqp.url = "amqp://broker/a/b"',
        'amqp.queue = "notifications.info"',
        'amqp.queue = "two words"',
        "amqp.exchanges = []",
        'amqp = {url = "amqp://broker", ca = "/ca.pem"}',
        'amqp = {url = "amqps://broker", cert = "/cert.pem"}',
    ],
)
def test_values_that_could_not_work_are_refused(tmp_path, toml):
    assert len(problems(write(tmp_path, toml))) == 1


def test_a_password_in_the_store_url_is_never_shown(tmp_path):
    url = "postgresql+psycopg://user:s3cret@db/state?sslpassword=s3cret"
    settings = Settings.load(write(tmp_path, f'store_url = "{url}"'), {})
    assert settings.store_url == url
    assert "s3cret" not in repr(settings)
    assert "s3cret" not in str(settings.effective())
    assert "user:***@db" in str(settings.effective())


def test_a_password_in_a_wrong_store_url_is_not_in_the_message(tmp_path):
    (line,) = problems(write(tmp_path, 'store_url = "user:s3cret@db/state"'))
    assert "s3cret" not in line


@given(st.text(), st.text(alphabet="abcXYZ019%$!*", min_size=5))
def test_no_url_shows_its_password(host, password):
    assume_host = "".join(c for c in host if c.isalnum()) or "h"
    shown = without_password(f"mysql://usr:{password}@{assume_host}/db?password={password}")
    assert password not in shown.replace(assume_host, "")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("300", 300.0),
        ("1.5s", 1.5),
        ("250ms", 0.25),
        ("30m", 1800.0),
        ("1h30m", 5400.0),
        ("7d", 604800.0),
        (" 2 h ", 7200.0),
    ],
)
def test_durations_are_read_as_people_write_them(text, seconds):
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "h", "-5", "5x", "1h30", "1 2", "1e3", "5m later"])
def test_what_is_no_duration_says_what_would_be_right(text):
    with pytest.raises(ValueError, match=r"duration|unit"):
        parse_duration(text)


def test_listen_addresses():
    assert listen_address("") is None
    assert listen_address(":9464") == ("", 9464)
    assert listen_address("[::1]:0") == ("::1", 0)
    assert listen_address("localhost:80") == ("localhost", 80)


def test_a_broker_is_a_url_without_password_and_files_only_with_tls(tmp_path):
    path = write(tmp_path, '[mqtt]\nurl = "mqtts://me@broker.example.org"\nca = "/etc/ssl/ca.pem"\nkeepalive = "1m"\n')
    mqtt = Settings.load(path, {}).mqtt
    assert str(mqtt_broker(mqtt.url)) == "mqtts://me@broker.example.org:8883"
    assert (mqtt.ca, mqtt.keepalive, mqtt.prefix) == (Path("/etc/ssl/ca.pem"), 60, "reconciler")
    assert Settings.load(env={}).mqtt.url == ""
    for url, user in (("mqtt://[::1]", ""), ("mqtt://a%40b@h:1884", "a@b")):
        assert mqtt_broker(url).user == user


def test_neutron_is_a_cloud_or_an_endpoint(tmp_path):
    assert not Settings.load(env={}).neutron.used
    path = write(tmp_path, '[neutron]\nendpoint = "http://10.0.0.11:9696/"\ninterval = "10m"\n')
    neutron = Settings.load(path, {}).neutron
    assert neutron.used
    assert (neutron.endpoint, neutron.interval, neutron.page) == ("http://10.0.0.11:9696", 600.0, 500)
    path = write(tmp_path, '[neutron]\ncloud = "prod"\nclouds_file = "/etc/openstack/clouds.yaml"\n')
    assert Settings.load(path, {}).neutron.used


@pytest.mark.parametrize(
    ("section", "table", "said"),
    [
        (
            "mqtt",
            'url = "mqtt://me:hunter2@h"',
            "mqtt.url: a password does not belong here: put it into /etc",
        ),
        ("mqtt", 'url = "mqtt://me:hunt/er2@h"', "mqtt.url: this is no URL of an MQTT broker; right would be mqtt://"),
        ("mqtt", 'url = "http://h"', "this is no URL of an MQTT broker"),
        ("mqtt", 'url = "mqtt://h/path"', "this is no URL of an MQTT broker"),
        ("mqtt", 'url = "mqtt://h:99999"', "this is no URL of an MQTT broker"),
        ("mqtt", 'url = "mqtt://h"\nca = "/ca.pem"', "right would be mqtts://"),
        ("mqtt", 'url = "mqtts://h"\ncert = "/c.pem"', "cert and key belong together"),
        ("mqtt", 'prefix = "a/#"', "'a/#' is no prefix of topics"),
        ("mqtt", 'prefix = "/a"', "is no prefix of topics"),
        ("mqtt", "keepalive = 1", "mqtt.keepalive"),
        ("mqtt", 'password = "hunter2"', "mqtt.password: a password does not belong into this file"),
        ("mqtt", "password = 4711", "mqtt.password"),
        ("neutron", 'endpoint = "http://h:9696"\ncloud = "prod"', "cloud and endpoint exclude each other"),
        ("neutron", 'endpoint = "http://h:9696"\nclouds_file = "/c.yaml"', "clouds_file needs cloud"),
        ("neutron", 'endpoint = "h:9696"', "an endpoint is a URL like https://"),
        ("neutron", 'endpoint = "https://me:hunter2@h:9696"', "an endpoint holds no user and no password"),
        ("neutron", 'cloud = "-x"', "must be one word"),
        ("neutron", "page = 0", "neutron.page"),
        ("neutron", 'interval = "often"', "is no duration"),
    ],
)
def test_what_is_wrong_with_a_section_is_told_without_its_password(tmp_path, section, table, said):
    path = write(tmp_path, f"[{section}]\n{table}\n")
    text = "\n".join(problems(path))
    assert said in text
    assert f"{path}:" in text
    assert not any(secret in text for secret in ("hunter2", "hunt/er2", "4711"))
