"""Neutron's API, read whole: every network, subnet, port, router, floating IP and agent, or a problem in words.

There is no third outcome. A read is complete or it is a `ReadError`: an answer that is no list, a page that is missing,
credentials that see only a part of the cloud. So nothing that a `FullRead` lacks was there when it started. Blocking,
for a thread (`desired.sources.neutron`) and for `doctor`; openstacksdk, an extra, is imported when it is used.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from types import MappingProxyType
from typing import Any

from desired.network.openstack import Body, Kind
from reconciler.settings_sections import NeutronSettings

COLLECTIONS: Mapping[Kind, str] = MappingProxyType({
    Kind.AGENT: "agents",
    Kind.NETWORK: "networks",
    Kind.SUBNET: "subnets",
    Kind.PORT: "ports",
    Kind.ROUTER: "routers",
    Kind.FLOATINGIP: "floatingips",
})  # fmt: skip
"""What is read, in this order. Agents come first: who may list them is an administrator and is shown all the rest."""

EXTRA = "openstack"
_ATTEMPTS = 3
_LAYERS = re.compile(r"(.+?): HTTPS?ConnectionPool\(.*\[Errno -?\d+\] ([^)\"']+).*")

_MEANING = {
    401: "it refuses the credentials (401)",
    403: "the credentials are not an administrator's (403): what they do not show would seem to be gone",
    404: "there is no such collection (404): is it Neutron's address, and does it serve routers",
}


class ReadError(Exception):
    """Why there is no full read, in one sentence without secrets."""


class Moved(Exception):
    """The object that a page was to begin after is gone: the collection has to be read again."""


@dataclass(frozen=True, slots=True)
class FullRead:
    """All there is, by kind, as the API gave it. `started_at`: seconds since 1970, by the server's clock if it tells.

    `started_at` lies before the first object was read; it is of whole seconds when the server tells it.
    """

    started_at: float
    objects: Mapping[str, Sequence[Body]]

    @property
    def counts(self) -> Mapping[str, int]:
        return {kind: len(bodies) for kind, bodies in self.objects.items()}


class NeutronApi:
    """One API, as the settings describe it. `wall` gives seconds since 1970.

    Each read logs in anew and shares nothing with one that hangs.
    """

    def __init__(self, settings: NeutronSettings, *, token: str, wall: Callable[[], float]) -> None:
        self._settings = settings
        self._token = token
        self._wall = wall
        self.place = f"cloud {settings.cloud}" if settings.cloud else settings.endpoint
        """Of whom a message speaks."""

    def full_read(self, stopped: threading.Event) -> FullRead:
        """Read everything, in pages. Raises ReadError; also when `stopped` is set meanwhile."""
        return self._whole(stopped, {})

    def count(self) -> Mapping[str, int]:
        """How many of each kind there are: a full read of the ids. Raises ReadError."""
        return self._whole(threading.Event(), {"fields": "id"}).counts

    def _whole(self, stopped: threading.Event, parameters: Mapping[str, str]) -> FullRead:
        with self._in_words():
            client = _client(self._settings, self._token)
            try:
                reading = _Reading(client, self._settings.page, parameters, stopped)
                started = self._wall()
                objects: dict[str, Sequence[Body]] = {kind.value: reading.collection(kind) for kind in COLLECTIONS}
            finally:
                client.session.session.close()
        told = reading.first_date
        return FullRead(started if told is None else told, MappingProxyType(objects))

    @contextmanager
    def _in_words(self) -> Iterator[None]:
        """Every error of the libraries as a ReadError."""
        try:
            from keystoneauth1.exceptions import ClientException  # noqa: PLC0415 (an extra)
            from openstack.exceptions import SDKException  # noqa: PLC0415
        except ImportError as error:
            message = f"reading Neutron's API needs openstacksdk: pip install 'node-reconciler[{EXTRA}]' ({error})"
            raise ReadError(message) from error
        try:
            yield
        except ReadError as error:
            raise ReadError(f"{self.place}: {error}") from error
        except (ClientException, SDKException, OSError) as error:
            raise ReadError(f"{self.place}: {self._without_secrets(_sentence(error))}") from error

    def _without_secrets(self, text: str) -> str:
        return text.replace(self._token, "***") if self._token else text


class _Reading:
    """One read: the collections in turn, page by page."""

    def __init__(self, client: Any, page: int, parameters: Mapping[str, str], stopped: threading.Event) -> None:
        self._client = client
        self._parameters = {"limit": str(page), "sort_key": "id", "sort_dir": "asc", **parameters}
        self._stopped = stopped
        self.first_date: float | None = None
        self._asked = False

    def collection(self, kind: Kind) -> tuple[Body, ...]:
        """All of a collection. It is begun again when what is deleted meanwhile takes the place away."""
        for _ in range(_ATTEMPTS):
            try:
                found = {body["id"]: body for page in self._pages(kind) for body in page}
            except Moved:
                continue
            if kind is Kind.NETWORK and "fields" not in self._parameters:
                _all_shown(found.values())
            return tuple(found.values())
        raise ReadError(f"{COLLECTIONS[kind]} changed while they were read, {_ATTEMPTS} times in a row")

    def _pages(self, kind: Kind) -> Iterator[Sequence[Body]]:
        marker = ""
        while True:
            answer = self._get(kind, marker)
            bodies = answer.get(COLLECTIONS[kind])
            if not isinstance(bodies, list) or not all(isinstance(each, dict) and each.get("id") for each in bodies):
                raise ReadError(f"it answered GET /{COLLECTIONS[kind]} with something else than a list of objects")
            yield bodies
            links = answer.get(f"{COLLECTIONS[kind]}_links") or ()
            if not any(isinstance(link, dict) and link.get("rel") == "next" for link in links):
                return
            if not bodies or bodies[-1]["id"] == marker:
                raise ReadError(f"it gives the same page of {COLLECTIONS[kind]} again and again")
            marker = bodies[-1]["id"]

    def _get(self, kind: Kind, marker: str) -> Mapping[str, Any]:
        if self._stopped.is_set():
            raise ReadError("the read was stopped before its end")
        path = f"/{COLLECTIONS[kind]}"
        parameters = {**self._parameters, **({"marker": marker} if marker else {})}
        answer = self._client.get(path, params=parameters, raise_exc=False)
        if not self._asked:
            self._asked, self.first_date = True, _date(answer)
        if answer.status_code == 404 and marker:
            raise Moved
        if answer.status_code != 200:
            said = _MEANING.get(answer.status_code, f"it answered {answer.status_code} {answer.reason or ''}".strip())
            raise ReadError(f"{said}, asked for GET {path}")
        try:
            body = answer.json()
        except ValueError as error:
            raise ReadError(f"it answered GET {path} with something else than JSON") from error
        return body if isinstance(body, dict) else {}


def _all_shown(networks: Iterable[Body]) -> None:
    """Without an administrator's rights Neutron hides how a network is carried, and others' networks altogether."""
    for network in networks:
        if "provider:network_type" not in network:
            raise ReadError(
                f"the credentials are not an administrator's: network {network['id']} has no provider:* fields"
            )


def _client(settings: NeutronSettings, token: str) -> Any:
    """Who sends requests, made by openstacksdk from the settings alone: what the environment says does not matter.

    A cloud's address comes from its catalog; an endpoint is taken at its word, and not asked for its versions. The
    SDK's own proxy is not used: it may answer from a cache.
    """
    from keystoneauth1.adapter import Adapter  # noqa: PLC0415 (an extra, 36 MiB)

    region = _region(settings, token)
    override = region.get_endpoint("network")
    return Adapter(
        session=region.get_session(),
        service_type="network",
        interface=region.get_interface("network"),
        region_name=region.get_region_name("network"),
        endpoint_override=_versioned(override) if override else None,
        min_version="2",
        max_version="2.latest",
    )


def _region(settings: NeutronSettings, token: str) -> Any:
    """What clouds.yaml says of the cloud, or the like of it for an endpoint."""
    from openstack.config import OpenStackConfig  # noqa: PLC0415 (an extra)

    common: dict[str, Any] = {"api_timeout": settings.timeout}
    if settings.ca is not None:
        common |= {"cacert": str(settings.ca), "verify": True}
    if settings.endpoint:
        auth = {"endpoint": settings.endpoint, **({"token": token} if token else {})}
        kind = "admin_token" if token else "none"
        config = OpenStackConfig(load_yaml_config=False, load_envvars=False)
        return config.get_one(auth_type=kind, auth=auth, network_endpoint_override=settings.endpoint, **common)
    if settings.clouds_file is not None and not settings.clouds_file.is_file():
        raise ReadError(f"there is no file {settings.clouds_file}")
    files = None if settings.clouds_file is None else [str(settings.clouds_file)]
    return OpenStackConfig(config_files=files, load_envvars=False).get_one(settings.cloud, **common)


def _versioned(endpoint: str) -> str:
    """An endpoint with the version of the API in its path."""
    return endpoint if endpoint.endswith("/v2.0") else f"{endpoint}/v2.0"


def _date(answer: Any) -> float | None:
    """When the server answered, by its own clock."""
    try:
        return parsedate_to_datetime(answer.headers["Date"]).timestamp()
    except (KeyError, ValueError, TypeError):
        return None


def _sentence(error: BaseException) -> str:
    """The first line of what a library said, without the layers of urllib3 around the system's own words."""
    first = (str(error).strip().splitlines() or [type(error).__name__])[0]
    layered = _LAYERS.fullmatch(first)
    return ": ".join(layered.groups()) if layered else first
