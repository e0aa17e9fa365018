"""What one setting may be: durations, words, addresses, URLs, as annotated types for `reconciler.settings`.

Every check says what would be right, since its text is what the user reads. The doors use `parse_duration` for their
own options, and `without_password` before anything about a store is shown.
"""

from __future__ import annotations

import re
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Literal, NamedTuple
from urllib.parse import unquote, urlsplit, urlunsplit

from pydantic import AfterValidator, BeforeValidator, Field

_UNITS = {"": 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*(ms|[smhdw]?)")
_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.@-]{0,62}")
_INTERFACE = re.compile(r"[A-Za-z0-9_.][A-Za-z0-9_.@+-]{0,14}")
_OVSDB = re.compile(r"unix:/\S+")
_TOPIC = re.compile(r"[^\s/+#$][^\s/+#]*(?:/[^\s/+#]+)*")
_MQTT_PORTS = {"mqtt": 1883, "mqtts": 8883}


def parse_duration(text: str) -> float:
    """Seconds in ``300``, ``1.5s``, ``250ms``, ``30m``, ``1h``, ``7d`` or ``1h30m``. Raises ValueError."""
    stripped = text.strip()
    parts = list(_DURATION.finditer(stripped))
    if not parts or "".join(part.group(0) for part in parts) != stripped:
        raise ValueError(f"{text!r} is no duration; right would be like 30s, 5m, 1h30m or 7d")
    if len(parts) > 1 and not all(part.group(2) for part in parts):
        raise ValueError(f"{text!r} needs a unit after each number, as in 1h30m")
    return sum(float(part.group(1)) * _UNITS[part.group(2)] for part in parts)


def without_password(url: str) -> str:
    """`url` with its password (also one in the query) shown as ``***``, fit for a log or a terminal."""
    hidden = re.sub(r"(?i)([?&;](?:password|passwd|secret|token|sslpassword)=)[^&;#]*", r"\1***", url)
    try:
        split = urlsplit(hidden)
    except ValueError:
        return re.sub(r"//[^@/]*@", "//***@", hidden)
    userinfo, at, host = split.netloc.rpartition("@")
    user, colon, _ = userinfo.partition(":")
    if not colon:
        return hidden
    return urlunsplit(split._replace(netloc=f"{user}:***{at}{host}"))


def _seconds(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError("a duration is a number of seconds or text like 30s, 5m, 1h")  # noqa: TRY004 (pydantic's way)
    return parse_duration(value) if isinstance(value, str) else value


def _no_bool(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError("a number is needed here")  # noqa: TRY004 (pydantic turns only ValueError into a problem)
    return value


def _word(text: str) -> str:
    if not _WORD.fullmatch(text):
        raise ValueError(f"{text!r} must be one word: letters, digits and _ . @ -, at most 63, not starting with '-'")
    return text


def _interface(name: str) -> str:
    if not _INTERFACE.fullmatch(name):
        raise ValueError(f"{name!r} is no interface name: at most 15 letters, digits and _ . - @ +")
    return name


def _absolute(path: Path) -> Path:
    if not path.is_absolute():
        raise ValueError(f"'{path}' must be an absolute path, as in {'/' / path}")
    return path


def _split(value: object) -> object:
    return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value


def _nothing(value: object) -> object:
    return None if value in ("", "none") else value


def _lower(value: object) -> object:
    return value.lower() if isinstance(value, str) else value


def _ovsdb(text: str) -> str:
    if not _OVSDB.fullmatch(text):
        raise ValueError(f"{text!r} is no OVSDB remote; right would be unix:/run/openvswitch/db.sock (a unix socket)")
    return text


def _url(text: str) -> str:
    if not re.match(r"[a-z][a-z0-9+]*://", text):
        raise ValueError("a store is a URL like sqlite:////var/lib/reconciler/state.db or postgresql+psycopg://…")
    return text


def _broker(text: str) -> str:
    if text and not re.match(r"amqps?://[^/?#\s]+(/[^/?#\s]*)?$", text):
        raise ValueError("a broker is a URL like amqp://user@10.0.0.11:5672/vhost, with amqps:// for TLS")
    return text


def _queue(text: str) -> str:
    if re.search(r"[\s\x00]", text) or text.startswith(("notifications", "amq.")) or len(text) > 200:
        raise ValueError(
            f"{text!r} cannot be this node's own queue: one word that does not begin with notifications (that queue "
            "is its publishers', and others consume it) or amq."
        )
    return text


def _endpoint(text: str) -> str:
    split = urlsplit(text)
    if text and (split.scheme not in {"http", "https"} or not split.hostname or split.query or split.fragment):
        raise ValueError("an endpoint is a URL like https://10.0.0.11:9696")
    if "@" in split.netloc:
        raise ValueError("an endpoint holds no user and no password: use cloud, or the credential of a token")
    return text.rstrip("/")


def _cloud(text: str) -> str:
    return _word(text) if text else ""


def _listen(text: str) -> str:
    listen_address(text)
    return text


def listen_address(text: str) -> tuple[str, int] | None:
    """(host, port) of ``127.0.0.1:9464``, ``[::1]:9464`` or ``:9464`` (host "" = every address); None for ""."""
    if not text:
        return None
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdecimal() or int(port) > 65535:
        raise ValueError(f"{text!r} is no listen address; right would be 127.0.0.1:9464, [::1]:9464 or '' for off")
    if host.startswith("[") and host.endswith("]"):
        return str(ip_address(host[1:-1])), int(port)
    if ":" in host:
        raise ValueError(f"{text!r}: an IPv6 address is written in brackets, as in [::1]:9464")
    return host, int(port)


class MqttBroker(NamedTuple):
    """Where an MQTT broker is, and as whom it is spoken to ("" is nobody)."""

    host: str
    port: int
    user: str
    tls: bool

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"mqtt{'s' * self.tls}://{self.user}{'@' if self.user else ''}{host}:{self.port}"


def mqtt_broker(url: str) -> MqttBroker:
    """What ``mqtt://user@host:1883`` or ``mqtts://host`` names. Raises ValueError without repeating `url`."""
    wrong = (
        "this is no URL of an MQTT broker; right would be mqtt://user@host:1883, mqtts://user@host:8883 or '' for off"
    )
    try:
        split = urlsplit(url)
        host, port = split.hostname, split.port
    except ValueError:
        raise ValueError(wrong) from None
    if split.password is not None:
        raise ValueError(
            "a password does not belong here: put it into /etc/credstore/reconciler.mqtt-password (root, 0600), "
            "or into the variable RECONCILER_MQTT__PASSWORD"
        )
    if split.scheme not in _MQTT_PORTS or not host or port == 0 or split.path.strip("/") or split.query:
        raise ValueError(wrong)
    return MqttBroker(host, port or _MQTT_PORTS[split.scheme], unquote(split.username or ""), split.scheme == "mqtts")


def _mqtt_url(text: str) -> str:
    if text:
        mqtt_broker(text)
    return text


def _topic(text: str) -> str:
    if len(text) > 100 or not (text.isprintable() and _TOPIC.fullmatch(text)):
        raise ValueError(f"{text!r} is no prefix of topics; right would be like reconciler or site/reconciler")
    return text


Seconds = Annotated[float, BeforeValidator(_seconds), Field(gt=0, allow_inf_nan=False)]
SecondsOrZero = Annotated[float, BeforeValidator(_seconds), Field(ge=0, allow_inf_nan=False)]
Rate = Annotated[float, BeforeValidator(_no_bool), Field(gt=0, allow_inf_nan=False)]
Count = Annotated[int, BeforeValidator(_no_bool), Field(ge=1)]
Share = Annotated[float, BeforeValidator(_no_bool), Field(ge=0, le=1, allow_inf_nan=False)]
Word = Annotated[str, AfterValidator(_word)]
Words = Annotated[tuple[Word, ...], BeforeValidator(_split)]
Interfaces = Annotated[tuple[Annotated[str, AfterValidator(_interface)], ...], BeforeValidator(_split)]
Absolute = Annotated[Path, AfterValidator(_absolute)]
Level = Annotated[Literal["debug", "info", "warning", "error"], BeforeValidator(_lower)]
StoreUrl = Annotated[str, AfterValidator(_url)]
Ovsdb = Annotated[str, AfterValidator(_ovsdb)]
BrokerUrl = Annotated[str, AfterValidator(_broker)]
QueueName = Annotated[str, AfterValidator(_queue)]
CloudName = Annotated[str, AfterValidator(_cloud)]
Endpoint = Annotated[str, AfterValidator(_endpoint)]
Listen = Annotated[str, AfterValidator(_listen)]
DatapathType = Annotated[Literal["system", "netdev"] | None, BeforeValidator(_nothing)]
OptionalPath = Annotated[Absolute | None, BeforeValidator(_nothing)]
MqttUrl = Annotated[str, AfterValidator(_mqtt_url)]
TopicPrefix = Annotated[str, AfterValidator(_topic)]
KeepAlive = Annotated[int, BeforeValidator(_seconds), Field(ge=5, le=3600)]
Amount = Annotated[int, BeforeValidator(_no_bool), Field(ge=0)]
