"""systemd units: what is to run, be stopped, enabled or masked, and what tells that one that runs also works."""

from __future__ import annotations

import hashlib
import re
from typing import Annotated, ClassVar, Literal, Self

from pydantic import AfterValidator, Field, field_validator, model_validator

from desired.kinds.file import FilePath, Text
from desired.kinds.names import OneLine
from desired.kinds.namespace import HOST, NamespaceName
from desired.kinds.probe import Probe, Seconds
from desired.resource import ResourceId, Spec
from desired.schema.words import Must

SUFFIXES = (".service", ".socket", ".timer", ".target", ".path", ".mount")
_UNIT = re.compile(r"[A-Za-z0-9:_.\\-]+(@[A-Za-z0-9:_.\\-]+)?")
_DROPIN = re.compile(r"[A-Za-z0-9_.-]+")


def unit_name(text: str) -> str:
    """The name of a unit; without a suffix it is a service. Raises ValueError for what systemd would refuse."""
    name = text if text.endswith(SUFFIXES) else f"{text}.service"
    stem = name.rpartition(".")[0]
    if len(name) > 255 or not _UNIT.fullmatch(stem) or stem.startswith(("-", ".")):
        raise ValueError(f"{text!r} is no name of a unit, such as dnsmasq.service or dhcp@net-1.service")
    return name


UnitName = Annotated[str, AfterValidator(unit_name), Must("the name of a systemd unit")]


class ServiceSpec(Spec):
    """One unit. What is not declared (None) is left as it is. With `unit` the unit file itself is ours."""

    kind: ClassVar[str] = "service"

    name: UnitName
    state: Literal["running", "stopped"] | None = "running"
    enabled: bool | None = Field(None, description="Started at boot. Unset: left as it is.")
    masked: bool = False
    unit: Text | None = Field(None, description="The whole unit file; it carries our mark and goes with the service.")
    dropins: dict[OneLine, Text] = Field(default_factory=dict, description="Files in UNIT.d, by name without .conf.")
    restart_on: tuple[FilePath, ...] = Field((), description="Restarted when one of these files has changed.")
    reload_on: tuple[FilePath, ...] = Field((), description="Reloaded (ExecReload) when one of these has changed.")
    namespace: NamespaceName | None = Field(
        None, description="The network namespace its unit enters: waited for, and restarted when it was made anew."
    )
    after: tuple[UnitName, ...] = Field((), description="Not started before these work (or were given up).")
    requires: tuple[UnitName, ...] = Field((), description="Not started unless these work.")
    one_of: OneLine | None = Field(None, description="Of all services with this word, one runs: the first that works.")
    group: OneLine | None = Field(None, description="Held together: works only while all before it in the group do.")
    order: Annotated[int, Field(ge=0, le=9999)] = Field(0, description="Order in the group: low first, then by name.")
    checks: tuple[Probe, ...] = Field((), description="All must succeed, or the unit is restarted.")
    interval: Seconds = Field(10.0, description="Seconds between checks.")
    timeout: Seconds = Field(5.0, description="Seconds that a check may take.")
    failures: Annotated[int, Field(ge=1, le=100)] = Field(2, description="Failed checks in a row that are a failure.")
    grace: Seconds = Field(30.0, description="Seconds after a start in which checks may fail.")
    restarts: Annotated[int, Field(ge=1, le=1000)] = Field(5, description="Restarts in vain after which it is left.")

    @field_validator("dropins")
    @classmethod
    def _names(cls, dropins: dict[str, str]) -> dict[str, str]:
        for name in dropins:
            if not _DROPIN.fullmatch(name) or name.startswith("."):
                raise ValueError(f"{name!r} is no name of a drop-in (letters, digits and _ . -, without .conf)")
        return dict(sorted(dropins.items()))

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.masked and (self.state == "running" and "state" in self.model_fields_set):
            raise ValueError("masked units cannot run; leave 'state' out or set it to stopped")
        if self.masked and (self.unit is not None or self.enabled):
            raise ValueError("masked units have no unit file of ours and are not enabled")
        if self.unit is not None and "@" in self.name and "@." not in self.name:
            raise ValueError("unit is the file of this one instance; a template's file is declared under 'files'")
        if self.name in {*self.after, *self.requires}:
            raise ValueError("after or requires names the unit itself")
        if both := sorted({*self.restart_on} & {*self.reload_on}):
            raise ValueError(f"restart_on and reload_on both name {both[0]}; one of them is right")
        if self.namespace == HOST:
            raise ValueError("namespace is a named one; a unit that is on the host needs none")
        if self.group is None and "order" in self.model_fields_set:
            raise ValueError("order is that in a group; name the group as well: group: WORD")
        return self

    @property
    def wanted(self) -> Literal["running", "stopped"] | None:
        return "stopped" if self.masked else self.state

    def refs(self) -> tuple[ResourceId, ...]:
        units = tuple(ResourceId("service", name) for name in (*self.after, *self.requires))
        return units if self.namespace is None else (ResourceId("namespace", self.namespace), *units)

    def generation(self) -> int:
        """As of every spec, and of the URLs of checks with their passwords, which no dump contains."""
        hidden = repr([(probe.amqp, probe.sql) for probe in self.checks])
        digest = hashlib.blake2b(f"{self.model_dump_json()}\0{hidden}".encode(), digest_size=8).digest()
        return int.from_bytes(digest, "big") >> 1
