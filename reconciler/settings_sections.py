"""The tables of ``reconciler.toml``, a model each: what may be set in them, and with which default.

`reconciler.settings` puts them together and says where each value comes from; whoever needs one table only (a source, a
door) takes its type from here.
"""

from __future__ import annotations

from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from desired.store import Retention
from reconciler.settings_values import (
    Amount,
    BrokerUrl,
    CloudName,
    Count,
    Endpoint,
    KeepAlive,
    MqttUrl,
    OptionalPath,
    QueueName,
    Rate,
    Seconds,
    SecondsOrZero,
    Share,
    TopicPrefix,
    Words,
)


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Timeouts(_Section):
    """How long a driver waits for an answer, in seconds."""

    ovsdb: Seconds = 5.0
    openflow: Seconds = 5.0
    ofctl: Seconds = 10.0


class Bucket(_Section):
    """A token bucket, charged per group of actions."""

    per_second: Rate
    burst: Count


class Rates(_Section):
    """Generous, so that repairs never wait: they only stop a defect from flooding the node."""

    node: Bucket = Bucket(per_second=500.0, burst=2000)
    kind: Bucket = Bucket(per_second=200.0, burst=1000)


class BudgetSettings(_Section):
    """Deletes of one revision, or of `window` seconds, may not exceed max(`minimum`, `share` of what is owned)."""

    minimum: Amount = 3
    share: Share = 0.25
    window: Seconds = 600.0


class Backoff(_Section):
    """After a failure only: `first` seconds, doubling up to `max`."""

    first: Seconds = 0.005
    max: Seconds = 300.0


class Contention(_Section):
    """A resource that somebody keeps undoing is repaired ever later, at most `max_delay` seconds later."""

    max_delay: Seconds = 3.0


class AmqpSettings(_Section):
    """Where OpenStack's notifications are heard; off while `url` is empty.

    The password is the credential ``reconciler.amqp-password``, or stands in the environment's `url`.
    """

    url: BrokerUrl = Field("", repr=False)
    exchanges: Words = Field(("neutron",), min_length=1)
    topics: Words = Field(("notifications",), min_length=1)
    queue: QueueName = ""
    queue_expires: Seconds = 86400.0
    queue_length: Count = 100_000
    queue_durable: bool = False
    declare_exchanges: bool = False
    durable_exchanges: bool = False
    prefetch: Count = 500
    heartbeat: Seconds = 10.0
    retry_max: Seconds = 60.0
    ca: OptionalPath = None
    cert: OptionalPath = None
    key: OptionalPath = None

    @model_validator(mode="after")
    def _fit(self) -> Self:
        _check_tls(self)
        return self


class RetentionSettings(_Section):
    """What the store keeps, whichever limit is reached first."""

    journal_seconds: Seconds = 30 * 86400.0
    journal_rows: Count = 200_000
    revisions: Count = 50

    def limits(self) -> Retention:
        return Retention(self.journal_seconds, self.journal_rows, self.revisions)


class NeutronSettings(_Section):
    """Where the network model is read whole: a cloud of clouds.yaml, or an endpoint that asks for a token or nothing.

    A token is no setting: it is the credential ``reconciler.neutron-token``.
    """

    cloud: CloudName = ""
    clouds_file: OptionalPath = None
    endpoint: Endpoint = ""
    ca: OptionalPath = None
    interval: Seconds = 300.0
    spread: SecondsOrZero = 10.0
    timeout: Seconds = 30.0
    patience: Seconds = 600.0
    page: Count = 500

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if self.cloud and self.endpoint:
            raise ValueError("cloud and endpoint exclude each other: a cloud of clouds.yaml knows its endpoint")
        if self.clouds_file is not None and not self.cloud:
            raise ValueError("clouds_file needs cloud, the name of one in it")
        return self

    @property
    def used(self) -> bool:
        return bool(self.cloud or self.endpoint)


class Mqtt(_Section):
    """The broker that is told how this node stands (`reconcile fleet` shows it); off while `url` is empty.

    The password comes from a credential or the environment, never from a file.
    """

    url: MqttUrl = ""
    prefix: TopicPrefix = "reconciler"
    ca: OptionalPath = None
    cert: OptionalPath = None
    key: OptionalPath = None
    keepalive: KeepAlive = 15
    password: str = Field("", repr=False)

    @model_validator(mode="after")
    def _fit(self) -> Self:
        _check_tls(self)
        return self


def _check_tls(broker: AmqpSettings | Mqtt) -> None:
    """Certificates go with a URL that says TLS, and the client's own with its key."""
    scheme = broker.url.partition("://")[0]
    if (broker.ca or broker.cert or broker.key) and scheme in {"amqp", "mqtt"}:
        raise ValueError(f"ca, cert and key are for TLS, and url is without: right would be {scheme}s://…")
    if (broker.cert is None) != (broker.key is None):
        raise ValueError("cert and key belong together: the client's certificate and its private key")
