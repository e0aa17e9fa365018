"""What can be asked of a node to know whether something works: used by services (as part of "running") and checks.

One probe asks one thing. Passwords in URLs are never shown nor stored; better is to say where the URL stands,
``ini:/etc/neutron/neutron.conf:DEFAULT/transport_url``, so that what is tried is what the service itself uses.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PlainSerializer, model_validator

from desired.kinds.file import SECRET, FilePath
from desired.kinds.names import OneLine
from desired.schema.words import Must

_PASSWORD = re.compile(r"(://[^/\s:@]*:)[^/\s@]+@")
_NAMESPACE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:@+-]{0,254}")
QUESTIONS = ("tcp", "http", "unix", "command", "amqp", "ping", "disk", "directory", "sql")


def without_passwords(url: str) -> str:
    """A URL as it may be shown."""
    return _PASSWORD.sub(rf"\1{SECRET}@", url)


def _address(text: str) -> str:
    host, colon, port = text.rpartition(":")
    if not (colon and host and port.isascii() and port.isdigit() and 0 < int(port) < 65536 and " " not in host):
        raise ValueError(f"{text!r} is no HOST:PORT; right would be like 127.0.0.1:5672 or [::1]:80")
    return text


def _http(text: str) -> str:
    if not re.fullmatch(r"https?://[^/\s:]+(:\d+)?(/\S*)?|https?://\[[0-9a-f:]+\](:\d+)?(/\S*)?", text):
        raise ValueError(f"{text!r} is no URL; right would be like http://127.0.0.1:9696/")
    return text


def _url(text: str) -> str:
    if text.startswith("ini:"):
        path, _, rest = text.removeprefix("ini:").rpartition(":")
        if not path.startswith("/") or "/" not in rest:
            raise ValueError(f"{text!r} must say file, section and key: ini:/etc/x.conf:SECTION/KEY")
    elif "://" not in text:
        raise ValueError(f"{text!r} is no URL, and no place of one like ini:/etc/x.conf:SECTION/KEY")
    return text


def _namespace(text: str) -> str:
    if not _NAMESPACE.fullmatch(text):
        raise ValueError(f"{text!r} is no name of a network namespace")
    return text


def _host(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9.:-]*", text):
        raise ValueError(f"{text!r} is no address and no name of a host")
    return text


Address = Annotated[str, AfterValidator(_address), Must("HOST:PORT")]
HttpUrl = Annotated[str, AfterValidator(_http), Must("a URL like http://127.0.0.1:9696/")]
Url = Annotated[
    str,
    AfterValidator(_url),
    PlainSerializer(without_passwords),
    Must("a URL, or ini:FILE:SECTION/KEY where one stands"),
]
Namespace = Annotated[str, AfterValidator(_namespace), Must("the name of a network namespace")]
HostName = Annotated[str, AfterValidator(_host), Must("an address or the name of a host")]
Percent = Annotated[float, Field(ge=0, le=100)]
Seconds = Annotated[float, Field(gt=0, le=86400)]


class Probe(BaseModel):
    """One question, with what belongs to it. `namespace` is where tcp, ping and command are done."""

    model_config = ConfigDict(frozen=True, extra="forbid", str_strip_whitespace=True)

    tcp: Address | None = Field(None, description="This TCP port accepts a connection.")
    http: HttpUrl | None = Field(None, description="This URL answers, with `status` or any below 500.")
    status: Annotated[int, Field(ge=100, le=599)] | None = None
    unix: FilePath | None = Field(None, description="This unix socket accepts a connection.")
    command: tuple[OneLine, ...] | None = Field(None, min_length=1, description="Ends with `exit_code`; never a shell.")
    exit_code: Annotated[int, Field(ge=0, le=255)] = 0
    amqp: Url | None = Field(None, description="The broker accepts these credentials.")
    ping: HostName | None = None
    disk: FilePath | Literal["/"] | None = Field(None, description="The file system that this path is on.")
    max_used: Percent = Field(90.0, description="Percent of a disk's blocks, and of its inodes.")
    directory: FilePath | None = Field(None, description="The files below this directory.")
    max_bytes: Annotated[int, Field(ge=1)] | None = None
    max_growth: Annotated[int, Field(ge=1)] | None = Field(None, description="Bytes an hour that a directory grows.")
    sql: Url | None = Field(None, description="The one value that `query` gives at this SQLAlchemy URL.")
    query: OneLine | None = None
    equals: OneLine | None = None
    minimum: float | None = None
    maximum: float | None = None
    namespace: Namespace | None = None

    @model_validator(mode="after")
    def _one_question(self) -> Self:
        asked = [name for name in QUESTIONS if getattr(self, name) is not None]
        if len(asked) != 1:
            raise ValueError(f"a check asks exactly one of {', '.join(QUESTIONS)}; here are {len(asked)}")
        if self.sql is not None and self.query is None:
            raise ValueError("sql needs 'query', which gives one value")
        if self.namespace is not None and asked[0] not in {"tcp", "ping", "command"}:
            raise ValueError(f"namespace is for tcp, ping and command; this check is {asked[0]}")
        if self.directory is not None and self.max_bytes is None and self.max_growth is None:
            raise ValueError("directory needs 'max_bytes' or 'max_growth'")
        return self

    @property
    def question(self) -> str:
        return next(name for name in QUESTIONS if getattr(self, name) is not None)

    def words(self) -> str:
        """What is asked, short and without secrets."""
        asked: Any = getattr(self, self.question)
        text = " ".join(asked) if isinstance(asked, tuple) else without_passwords(str(asked))
        return f"{self.question} {text}" + (f" in {self.namespace}" if self.namespace else "")
