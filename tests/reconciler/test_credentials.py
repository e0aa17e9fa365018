"""The store's password comes from a credential into the URL, and from nowhere else."""

from pathlib import Path

import pytest

from reconciler.credentials import AMQP_PASSWORD, MQTT_PASSWORD, STORE_PASSWORD, secret, with_password
from reconciler.errors import ConfigError
from reconciler.settings import Settings


def test_a_credential_of_the_unit_comes_before_the_directory_of_the_machine(tmp_path: Path) -> None:
    (tmp_path / "unit").mkdir()
    (tmp_path / "machine").mkdir()
    (tmp_path / "machine" / "x").write_text("m\n")
    env = {"CREDENTIALS_DIRECTORY": str(tmp_path / "unit")}
    assert secret("x", {}, tmp_path / "machine") == "m"
    assert secret("x", env, tmp_path / "machine") == ""
    (tmp_path / "unit" / "x").write_text("u")
    assert secret("x", env, tmp_path / "machine") == "u"


def test_a_credential_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match=r"credential .*/x cannot be read"):
        secret("x", {"CREDENTIALS_DIRECTORY": str(tmp_path)})


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("postgresql+psycopg://me@db/x", "postgresql+psycopg://me:p%40%2Fs@db/x"),
        ("postgresql+psycopg://me:own@db/x", "postgresql+psycopg://me:own@db/x"),
        ("postgresql+psycopg://db/x", "postgresql+psycopg://db/x"),
        ("sqlite:////var/lib/reconciler/state.db", "sqlite:////var/lib/reconciler/state.db"),
    ],
)
def test_the_password_goes_behind_a_user_that_has_none(url: str, expected: str) -> None:
    assert with_password(url, "p@/s") == expected
    assert with_password(url, "") == url


def test_settings_take_it_over_and_never_show_it(tmp_path: Path) -> None:
    (tmp_path / STORE_PASSWORD).write_text("s3cret\n")
    env = {"CREDENTIALS_DIRECTORY": str(tmp_path), "RECONCILER_STORE_URL": "postgresql+psycopg://me@db/x"}
    settings = Settings.load(env=env)
    assert settings.store_url == "postgresql+psycopg://me:s3cret@db/x"
    assert "s3cret" not in settings.shown_store_url() + str(settings.effective()) + repr(settings)


def test_the_password_of_openstack_s_broker_goes_into_its_url_and_is_never_shown(tmp_path: Path) -> None:
    (tmp_path / AMQP_PASSWORD).write_text("s3cret@/\n")
    env = {"CREDENTIALS_DIRECTORY": str(tmp_path), "RECONCILER_AMQP__URL": "amqp://me@h1,h2:5671/cloud"}
    settings = Settings.load(env={**env, "RECONCILER_NODE": "n1"})
    assert settings.amqp.url == "amqp://me:s3cret%40%2F@h1,h2:5671/cloud"
    assert settings.amqp.queue == "reconciler.n1"
    assert "s3cret" not in str(settings.effective()) + repr(settings)
    shown = {entry.name: entry.value for entry in settings.effective()}
    assert shown["amqp.url"] == "amqp://me:***@h1,h2:5671/cloud"
    assert Settings.load(env={"CREDENTIALS_DIRECTORY": str(tmp_path)}).amqp.url == "", "without a broker, none"


def test_the_broker_s_password_comes_by_credential_or_environment_and_is_never_shown(tmp_path: Path) -> None:
    (tmp_path / MQTT_PASSWORD).write_text("s3cret\n")
    env = {"CREDENTIALS_DIRECTORY": str(tmp_path), "RECONCILER_MQTT__URL": "mqtt://me@broker"}
    settings = Settings.load(env=env)
    assert settings.mqtt.password == "s3cret"
    assert "s3cret" not in str(settings.effective()) + repr(settings)
    shown = {entry.name: (entry.value, entry.origin) for entry in settings.effective()}
    assert shown["mqtt.password"] == ("***", f"credential {MQTT_PASSWORD}")
    settings = Settings.load(env={**env, "RECONCILER_MQTT__PASSWORD": "s3cret-too"})
    assert settings.mqtt.password == "s3cret-too"
    assert "s3cret" not in str(settings.effective()) + repr(settings)
    assert Settings.load(env={"CREDENTIALS_DIRECTORY": str(tmp_path)}).mqtt.password == "", "without a broker, none"
