"""What a service's own INI file says about whom it talks to: ``ini:FILE:SECTION/KEY``. Raises DriverError.

A broker may be written as one ``transport_url`` or, as until 2014 and long after, key by key (``rabbit_host`` …).
"""

from __future__ import annotations

import configparser
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

from reconciler.errors import DriverError

_BROKER = ("rabbit_hosts", "rabbit_host", "rabbit_userid", "rabbit_password")
_MESSAGING = "oslo_messaging_rabbit"


def value_at(place: str) -> str:
    """The value at ``FILE:SECTION/KEY``."""
    path, _, within = place.rpartition(":")
    section, _, key = within.partition("/")
    reader = configparser.RawConfigParser(strict=False, allow_no_value=True, default_section="\0")
    try:
        reader.read_string(Path(path).read_text(encoding="utf-8", errors="replace"), path)
    except (OSError, configparser.Error) as error:
        raise DriverError(f"{path} cannot be read: {type(error).__name__}") from error
    found = reader.get(section, key, fallback=None)
    if not found and key == "transport_url":
        found = _key_by_key({name: dict(reader.items(name)) for name in (section, _MESSAGING) if name in reader})
    if not found:
        raise DriverError(f"{path} has no {key} in [{section}]")
    return found.strip("\"'")


def _key_by_key(sections: Mapping[str, Mapping[str, str | None]]) -> str | None:
    """The URL that the rabbit_* keys of the first section with any of them make; what is not there is the default."""
    for keys in sections.values():
        if any(keys.get(name) for name in _BROKER):
            first = (keys.get("rabbit_hosts") or keys.get("rabbit_host") or "localhost").split(",")[0].strip()
            port = "" if ":" in first else f":{keys.get('rabbit_port') or 5672}"
            user, password = (quote(keys.get(f"rabbit_{name}") or "guest", safe="") for name in ("userid", "password"))
            vhost = quote(keys.get("rabbit_virtual_host") or "/", safe="")
            return f"rabbit://{user}:{password}@{first}{port}/{vhost}"
    return None
