"""Passwords that stand in no settings file: systemd's credentials, and the directory they come from.

The unit says ``LoadCredential=``, and systemd hands the daemon what an administrator put under ``/etc/credstore``. A
verb on the command line has no unit around it, so root reads that directory itself. Nothing here is ever shown or
logged. `reconciler.settings` puts the store's password into its URL, and the MQTT broker's beside it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote, urlsplit, urlunsplit

from reconciler.errors import ConfigError

STORE_PASSWORD = "reconciler.store-password"  # noqa: S105 (the name of a file)
AMQP_PASSWORD = "reconciler.amqp-password"  # noqa: S105 (the name of a file)
MQTT_PASSWORD = "reconciler.mqtt-password"  # noqa: S105 (the name of a file)
NEUTRON_TOKEN = "reconciler.neutron-token"  # noqa: S105 (the name of a file)
CREDSTORE = Path("/etc/credstore")


def secret(name: str, env: Mapping[str, str], credstore: Path = CREDSTORE) -> str:
    """What the credential holds, without a final newline; "" when there is none. Raises ConfigError if unreadable."""
    given = env.get("CREDENTIALS_DIRECTORY", "")
    path = (Path(given) if given else credstore) / name
    try:
        return path.read_text(encoding="utf-8").removesuffix("\n")
    except (FileNotFoundError, NotADirectoryError):
        return ""
    except PermissionError as error:
        if not given:
            return ""  # who may not read it is not meant to have it; the store says so if it is needed
        raise ConfigError(f"the credential {path} cannot be read: {error.strerror}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"the credential {path} cannot be read: {error}") from error


def with_password(url: str, password: str) -> str:
    """`url` with the password behind its user; unchanged when it names no user or has a password already."""
    split = urlsplit(url)
    user, at, host = split.netloc.rpartition("@")
    if not (password and at) or ":" in user:
        return url
    return urlunsplit(split._replace(netloc=f"{user}:{quote(password, safe='')}@{host}"))
