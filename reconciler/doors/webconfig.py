"""TLS and basic auth of the HTTP listener, from a file in the form that Prometheus' exporters share.

``tls_server_config`` (cert_file, key_file, client_ca_file, client_auth_type, min_version; relative to the file) and
``basic_auth_users`` (name: bcrypt hash). See the "web configuration" of prometheus/exporter-toolkit. Read once, when
the listener is opened; every mistake is told at once.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import hmac
import os
import re
import ssl
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from reconciler.doors.bcrypt import Check, checker
from reconciler.errors import ConfigError

_HASH = re.compile(r"\$2[abxy]\$[0-9]{2}\$[./A-Za-z0-9]{53}")
_NOBODY = "$2b$10$abcdefghijklmnopqrstuuAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
"""Checked for users that do not exist, so that their absence does not show in the time it takes."""
_REMEMBERED = 100


def _hashed(text: str) -> str:
    if not _HASH.fullmatch(text):
        raise ValueError("this is no bcrypt hash; 'htpasswd -nBC 10 USER' makes one ($2y$10$…)")
    return text


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class Tls(_Part):
    cert_file: str
    key_file: str
    client_ca_file: str = ""
    client_auth_type: Literal["NoClientCert", "RequireAndVerifyClientCert"] = "NoClientCert"
    min_version: Literal["TLS12", "TLS13"] = "TLS12"


class WebConfig(_Part):
    """The checked file. `directory` is what its relative paths are relative to."""

    tls_server_config: Tls | None = None
    basic_auth_users: dict[str, Annotated[str, AfterValidator(_hashed)]] = Field(default_factory=dict, repr=False)
    directory: Path = Field(Path("/"), exclude=True)

    @classmethod
    def load(cls, path: Path) -> WebConfig:
        """Raises ConfigError with every problem."""
        try:
            data = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{path}: the web config cannot be read: {error}") from error
        except yaml.YAMLError as error:
            raise ConfigError(f"{path}: not YAML: {error}") from error
        if (data is not None and not isinstance(data, dict)) or (data and "directory" in data):
            raise ConfigError(f"{path}: a web config has tls_server_config and basic_auth_users")
        try:
            return cls.model_validate({**(data or {}), "directory": path.parent})
        except ValidationError as error:
            raise ConfigError(
                "\n".join(f"{path}: {_words(entry)}" for entry in error.errors(include_url=False))
            ) from None

    def ssl_context(self) -> ssl.SSLContext | None:
        """Raises ConfigError when certificate or key cannot be used."""
        tls = self.tls_server_config
        if tls is None:
            return None
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_3 if tls.min_version == "TLS13" else ssl.TLSVersion.TLSv1_2
        cert, key = self.directory / tls.cert_file, self.directory / tls.key_file
        try:
            context.load_cert_chain(cert, key, password=lambda: "")
            if tls.client_ca_file:
                context.load_verify_locations(self.directory / tls.client_ca_file)
        except OSError as error:  # ssl.SSLError is one
            raise ConfigError(f"loading the certificate {cert} with the key {key}: {error}") from error
        if tls.client_auth_type == "RequireAndVerifyClientCert":
            context.verify_mode = ssl.CERT_REQUIRED
        return context


def _words(entry: Any) -> str:
    path = ".".join(str(part) for part in entry["loc"])
    return f"{path}: {str(entry['msg']).removeprefix('Value error, ')}"


class BasicAuth:
    """Checks an Authorization header against the users of a web config. One password is checked at a time."""

    def __init__(self, users: dict[str, str]) -> None:
        """Raises ConfigError when this machine cannot check bcrypt."""
        self._users = users
        self._check: Check = checker()
        self._key = os.urandom(32)
        self._good: dict[bytes, None] = {}
        self._one_at_a_time = asyncio.Lock()

    async def allows(self, header: str) -> bool:
        """`header` is the value of Authorization; the answer to a right one is remembered."""
        user, password = _credentials(header)
        hashed = self._users.get(user, _NOBODY)
        token = hmac.digest(self._key, f"{user}\0{password}\0{hashed}".encode(), hashlib.sha256)
        if token in self._good:
            return True
        async with self._one_at_a_time:
            right = await asyncio.get_running_loop().run_in_executor(None, self._check, password, hashed)
        if not right or user not in self._users:
            return False
        if len(self._good) >= _REMEMBERED:
            self._good.clear()
        self._good[token] = None
        return True


def _credentials(header: str) -> tuple[str, str]:
    scheme, _, encoded = header.partition(" ")
    if scheme.lower() != "basic":
        return "", ""
    try:
        user, _, password = base64.b64decode(encoded.strip(), validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return "", ""
    return user, password
