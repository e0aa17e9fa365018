"""How this daemon itself runs: one TOML file, the environment and the command line, checked like the YAML is.

Not desired state: nothing here says what the node's network should be. `Settings.load` merges, in rising order, the
defaults, `/etc/reconciler/reconciler.toml`, `RECONCILER_*` variables (nested with two underscores, e.g.
`RECONCILER_TIMEOUTS__OVSDB=3`) and flags; it reports every mistake at once and remembers where each value came from.
The composition root and the doors call it; the engine only receives the values.
"""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, ValidationError, model_validator

from reconciler.credentials import AMQP_PASSWORD, MQTT_PASSWORD, STORE_PASSWORD, secret, with_password
from reconciler.errors import ConfigError
from reconciler.report import Problem
from reconciler.settings_sections import (
    AmqpSettings,
    Backoff,
    BudgetSettings,
    Contention,
    Mqtt,
    NeutronSettings,
    Rates,
    RetentionSettings,
    Timeouts,
)
from reconciler.settings_values import (
    Absolute,
    DatapathType,
    Interfaces,
    Level,
    Listen,
    OptionalPath,
    Ovsdb,
    Seconds,
    SecondsOrZero,
    StoreUrl,
    Word,
    Words,
    without_password,
)

DEFAULT_PATH = Path("/etc/reconciler/reconciler.toml")
ENV_PREFIX = "RECONCILER_"
ENV_RESERVED = frozenset({"RECONCILER_CONFIG"})
"""Variables that say where the settings are, and are no setting themselves."""

_SECRET = frozenset({"store_url", "amqp", "amqp.url", "mqtt", "mqtt.url", "mqtt.password", "neutron.endpoint"})
"""Settings in which a password may stand: what is wrong with one is told without repeating it."""

_TOML_TABLE = re.compile(r"\s*\[\s*([^\[\]]+?)\s*\]\s*(#.*)?$")
_TOML_KEY = re.compile(r"""\s*((?:[A-Za-z0-9_-]+|"[^"]*"|'[^']*')(?:\s*\.\s*[A-Za-z0-9_-]+)*)\s*=""")
_TOML_AT = re.compile(r"^(.*) \(at line (\d+), column (\d+)\)$")


class SettingsError(ConfigError):
    """Every mistake in the settings. `problems` has one entry each; the text has one line each."""

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        super().__init__("\n".join(_sentence(problem) for problem in problems))
        self.problems = problems


@dataclass(frozen=True, slots=True)
class Setting:
    """One effective value for printing: secrets are hidden. `origin`: default, file:line, environment VAR, flag."""

    name: str
    value: Any
    origin: str


class Settings(BaseModel):
    """The effective settings of one node, frozen. Built by `load`; directly only with values already checked."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    _origins: dict[str, str] = PrivateAttr(default_factory=dict)
    _path: Path = PrivateAttr(default=DEFAULT_PATH)
    _overrides: dict[str, Any] = PrivateAttr(default_factory=dict)

    node: Word = Field(default_factory=lambda: os.uname().nodename)
    roles: Words = ()
    owner: Word = "reconciler"
    desired: Absolute = Path("/etc/reconciler/desired")
    state_dir: Absolute = Path("/var/lib/reconciler")
    run_dir: Absolute = Path("/run/reconciler")
    store_url: StoreUrl = Field("", repr=False)
    datapath_type: DatapathType = None
    ovs_rundir: Absolute = Path("/run/openvswitch")
    ovsdb: Ovsdb = ""
    resync_interval: Seconds = 300.0
    timeouts: Timeouts = Timeouts()
    rates: Rates = Rates()
    budget: BudgetSettings = BudgetSettings()
    backoff: Backoff = Backoff()
    contention: Contention = Contention()
    listen: Listen = "127.0.0.1:9464"
    web_config: OptionalPath = None
    settle_add: SecondsOrZero = 0.2
    settle_remove: SecondsOrZero = 2.0
    retention: RetentionSettings = RetentionSettings()
    amqp: AmqpSettings = AmqpSettings()
    log_level: Level = "info"
    log_format: Literal["auto", "json", "console"] = "auto"
    untouchable: Interfaces = ()
    mqtt: Mqtt = Mqtt()
    neutron: NeutronSettings = NeutronSettings()

    @model_validator(mode="before")
    @classmethod
    def _derived(cls, data: Any) -> Any:
        """Fill in the two defaults that follow from another setting."""
        if not isinstance(data, Mapping):
            return data
        rundir, state = data.get("ovs_rundir", "/run/openvswitch"), data.get("state_dir", "/var/lib/reconciler")
        return {"ovsdb": f"unix:{rundir}/db.sock", "store_url": f"sqlite:///{state}/state.db", **data}

    @property
    def control_path(self) -> Path:
        """The unix socket of the running daemon."""
        return self.run_dir / "control.sock"

    @property
    def lock_path(self) -> Path:
        """The file whose flock makes one daemon (or one `--once`) per node."""
        return self.run_dir / "lock"

    @classmethod
    def load(
        cls,
        path: Path = DEFAULT_PATH,
        env: Mapping[str, str] | None = None,
        overrides: Mapping[str, Any] | None = None,
    ) -> Settings:
        """Merge file, environment (default: the process's) and flags (dotted names; None = not given).

        The default file may be absent, another one may not. Raises SettingsError with every problem.
        """
        layers = _Layers()
        given = os.environ if env is None else env
        layers.add_file(path)
        layers.add_environment(given)
        layers.add_flags(overrides or {})
        settings = layers.settle()
        url = with_password(settings.store_url, secret(STORE_PASSWORD, given))
        parts = {"amqp": _amqp(settings, given), "mqtt": _with_credential(settings, given)}
        settings = settings.model_copy(update={"store_url": url, **parts})
        settings._path, settings._overrides = path, dict(overrides or {})  # noqa: SLF001 (its own class)
        return settings

    def reload(self) -> Settings:
        """The same file and flags, and the environment of this process, read again. Raises SettingsError."""
        return Settings.load(self._path, overrides=self._overrides)

    def differing(self, other: Settings) -> Sequence[str]:
        """The names of the settings that `other` has otherwise, secrets too."""
        mine, theirs = (dict(_flatten(each.model_dump(mode="json"))) for each in (self, other))
        return sorted(name for name in mine.keys() | theirs.keys() if mine.get(name) != theirs.get(name))

    def shown_store_url(self) -> str:
        """The store's URL without its password."""
        return without_password(self.store_url)

    def effective(self) -> tuple[Setting, ...]:
        """Every value with its origin, sorted as declared, secrets hidden."""
        return tuple(
            Setting(name, _shown(name, value), self._origins.get(name, "default"))
            for name, value in _flatten(self.model_dump(mode="json"))
        )


def _shown(name: str, value: Any) -> Any:
    if name in {"store_url", "amqp.url"}:
        return without_password(value)
    return "***" if value and name == "mqtt.password" else value


def _amqp(settings: Settings, env: Mapping[str, str]) -> AmqpSettings:
    """The section with its password in the URL, and with the name of this node's own queue."""
    amqp = settings.amqp
    url = with_password(amqp.url, secret(AMQP_PASSWORD, env)) if amqp.url else ""
    return amqp.model_copy(update={"url": url, "queue": amqp.queue or f"reconciler.{settings.node}"})


def _with_credential(settings: Settings, env: Mapping[str, str]) -> Mqtt:
    """The section with its password, if that came by credential and not by the environment."""
    mqtt = settings.mqtt
    if not mqtt.url or mqtt.password:
        return mqtt
    password = secret(MQTT_PASSWORD, env)
    if password:
        settings._origins["mqtt.password"] = f"credential {MQTT_PASSWORD}"  # noqa: SLF001 (its own module)
    return mqtt.model_copy(update={"password": password})


class _Layers:
    """Collects values with their origin, and every problem, then builds the Settings."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}
        self.origins: dict[str, str] = {}
        self.lines: dict[str, tuple[str, int]] = {}
        self.problems: list[Problem] = []

    def add_file(self, path: Path) -> None:
        try:
            text = path.read_text(encoding="utf-8")
            values = tomllib.loads(text)
        except FileNotFoundError:
            if path != DEFAULT_PATH:
                self.problems.append(Problem("there is no such settings file", str(path)))
            return
        except tomllib.TOMLDecodeError as error:
            found = _TOML_AT.match(str(error))
            message, line, column = found.groups() if found else (str(error), 0, 0)
            self.problems.append(Problem(f"not TOML: {message}", str(path), int(line), int(column)))
            return
        except (OSError, UnicodeDecodeError) as error:
            self.problems.append(Problem(f"the settings file cannot be read: {error}", str(path)))
            return
        lines = _toml_lines(text)
        for name, value in _flatten(values):
            line = _nearest(lines, name) or 0
            self._put(name, value, f"{path}:{line}")
            self.lines[name] = (str(path), line)

    def add_environment(self, env: Mapping[str, str]) -> None:
        for variable in sorted(env):
            if variable.startswith(ENV_PREFIX) and variable not in ENV_RESERVED:
                name = ".".join(variable.removeprefix(ENV_PREFIX).lower().split("__"))
                self._put(name, env[variable], f"environment {variable}")

    def add_flags(self, overrides: Mapping[str, Any]) -> None:
        for name, value in overrides.items():
            if value is not None:
                self._put(name, value, f"flag --{name.replace('.', '-').replace('_', '-')}")

    def settle(self) -> Settings:
        if "mqtt.password" in self.lines:
            file, line = self.lines["mqtt.password"]
            hint = "put it into /etc/credstore/reconciler.mqtt-password (root, 0600)"
            self.problems.append(
                Problem("a password does not belong into this file", file, line, path="mqtt.password", hint=hint)
            )
        try:
            settings = Settings.model_validate(self.values)
        except ValidationError as error:
            self.problems.extend(self._problem(dict(entry)) for entry in error.errors(include_url=False))
            raise SettingsError(tuple(sorted(self.problems, key=lambda each: (each.file, each.line)))) from None
        if self.problems:
            raise SettingsError(tuple(self.problems))
        settings._origins.update(self.origins)  # noqa: SLF001 (its own module)
        return settings

    def _put(self, name: str, value: Any, origin: str) -> None:
        self.origins[name] = origin
        self.lines.pop(name, None)
        *parents, leaf = name.split(".")
        table = self.values
        for parent in parents:
            below = table.setdefault(parent, {})
            if not isinstance(below, dict):
                self.problems.append(Problem(f"{origin}: {parent!r} is a value and cannot also have {leaf!r} inside"))
                return
            table = below
        table[leaf] = value

    def _problem(self, entry: dict[str, Any]) -> Problem:
        path = ".".join(str(part) for part in entry["loc"])
        file, line = _nearest(self.lines, path) or ("", 0)
        message = str(entry["msg"]).removeprefix("Value error, ")
        hint = ""
        if entry["type"] == "extra_forbidden":
            message, hint = f"there is no setting {path!r}", _did_you_mean(path)
        elif entry["type"] not in ("value_error", "missing") and path not in _SECRET:
            message = f"{message[:1].lower()}{message[1:]}, not {entry['input']!r}"
        origin = _nearest(self.origins, path)
        where = f" ({origin})" if origin and not file else ""
        return Problem(f"{message}{where}", file, line, path=path, hint=hint)


def _did_you_mean(path: str) -> str:
    known = [name for name, _ in _flatten(Settings().model_dump(mode="json"))]
    known += sorted({parent for name in known for parent in _parents(name)})
    near = difflib.get_close_matches(path, known, 1, 0.6)
    if near:
        return f"did you mean {near[0]!r}?"
    prefix = path.rpartition(".")[0]
    inside = sorted({name for name in known if name.rpartition(".")[0] == prefix})
    return f"known here: {', '.join(inside or sorted(name for name in known if '.' not in name))}"


def _flatten(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _parents(name: str) -> Iterator[str]:
    while "." in name:
        name = name.rpartition(".")[0]
        yield name


def _nearest(places: Mapping[str, Any], name: str) -> Any:
    """What `places` knows of `name`, of the nearest table around it, or of the first thing inside it; else None."""
    around = (places[known] for known in (name, *_parents(name)) if known in places)
    inside = (place for known, place in places.items() if known.startswith(name + "."))
    return next(around, None) or next(inside, None)


def _toml_lines(text: str) -> dict[str, int]:
    """Line of each key and table, by dotted name. Good for messages: text inside multi-line strings may mislead it."""
    lines: dict[str, int] = {}
    table = ""
    for number, line in enumerate(text.splitlines(), 1):
        if header := _TOML_TABLE.match(line):
            table = _plain(header.group(1)) + "."
            lines.setdefault(table[:-1], number)
        elif key := _TOML_KEY.match(line):
            lines.setdefault(table + _plain(key.group(1)), number)
    return lines


def _plain(dotted: str) -> str:
    return ".".join(part.strip().strip("\"'") for part in dotted.split("."))


def _sentence(problem: Problem) -> str:
    line = f"{problem.line}: " if problem.line else " "
    place = f"{problem.file}:{line}" if problem.file else ""
    path = f"{problem.path}: " if problem.path and repr(problem.path) not in problem.message else ""
    return f"{place}{path}{problem.message}" + (f"; {problem.hint}" if problem.hint else "")
