"""Files: whole ones that are ours, and blocks and INI keys that are held in files of others.

A value that is secret never leaves the spec: a dump of it (the store, `render`) says `(secret)` instead, and the
generation is made from the real value all the same. What is secret is said, or seen from an INI key's name.
The section `files` of a document is in `desired.kinds.files_section`.
"""

from __future__ import annotations

import hashlib
import posixpath
import re
from typing import Annotated, Any, ClassVar, Self

from pydantic import AfterValidator, Field, StringConstraints, field_serializer, field_validator, model_validator

from desired.kinds.names import OneLine
from desired.resource import ResourceId, Spec
from desired.schema.words import Must

SECRET = "(secret)"  # noqa: S105 (what is shown instead of one)

_NO_DISK = ("/proc", "/sys", "/dev")
_ACCOUNT = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,31}\$?")
_SECRET_KEY = re.compile(
    r"passw|secret|token|credential|private|community|(^|_)(key|psk|dsn)$|^(connection|slave_connection|transport_url"
    r"|sql_connection|wsrep_sst_auth|user_config)$",
    re.IGNORECASE,
)
_PASSWORD_IN_URL = re.compile(r"://[^/\s:@]*:[^/\s@]+@")


def _path(text: str) -> str:
    if not text.startswith("/") or text.endswith("/") or not text.isprintable():
        raise ValueError(f"{text!r} is no path of a file; it must be absolute, as in /etc/neutron/l3_agent.ini")
    if posixpath.normpath(text) != text or len(text.encode()) > 4000:
        raise ValueError(f"{text!r} must be written without '..', '.' and '//': {posixpath.normpath(text)}")
    if text.startswith(tuple(f"{top}/" for top in _NO_DISK)):
        raise ValueError(f"{text!r} is no file on a disk; kernel settings are 'sysctls' of a namespace")
    return text


def _mode(text: str) -> str:
    if not re.fullmatch(r"0?[0-7]{3,4}", text):
        raise ValueError(f"{text!r} is no file mode; right would be like 0640")
    return f"{int(text, 8):04o}"


def _account(text: str) -> str:
    if not _ACCOUNT.fullmatch(text):
        raise ValueError(f"{text!r} is no name and no number of a user or group")
    return text


def _comment(text: str) -> str:
    if len(text) > 8 or not text.isprintable():
        raise ValueError(f"{text!r} cannot begin a comment; right would be like '#' or ';'")
    return text


FilePath = Annotated[str, AfterValidator(_path), Must("an absolute path")]
FileMode = Annotated[str, AfterValidator(_mode), Must("a file mode like 0640")]
Account = Annotated[str, AfterValidator(_account), Must("a name or number of a user or group")]
Comment = Annotated[str, AfterValidator(_comment), Must("what a comment begins with, like '#'")]
Text = Annotated[str, StringConstraints(strip_whitespace=False)]


def looks_secret(key: str, value: str | None = None) -> bool:
    """Is this INI key's value a secret, judging by its name, or by a password in a URL?"""
    if value is not None and (value == SECRET or _PASSWORD_IN_URL.search(value)):
        return True
    return bool(_SECRET_KEY.search(key))


class InFile(Spec):
    """What all of these have: the file they are about."""

    path: FilePath

    def _hidden(self) -> dict[str, Any]:
        """The secret fields with their values; empty when nothing is secret."""
        return {}

    def generation(self) -> int:
        """As of every spec, and of the secrets as well, which no dump contains."""
        hidden = repr(sorted(self._hidden().items()))
        digest = hashlib.blake2b(f"{self.model_dump_json()}\0{hidden}".encode(), digest_size=8).digest()
        return int.from_bytes(digest, "big") >> 1


class FileSpec(InFile):
    """A whole file of ours, from `content` or from another file (`source`), or, with neither, owner and mode only.

    A whole file carries our mark and is deleted when it is no longer declared.
    """

    kind: ClassVar[str] = "file"

    content: Text | None = Field(None, description="All of the file, but for the line that marks it as ours.")
    source: FilePath | None = Field(None, description="A file of this node to copy, such as a credential.")
    owner: Account | None = Field(None, description="Unset: root for a whole file, as it is for another's.")
    group: Account | None = None
    permissions: FileMode | None = Field(None, description="Also written as mode. Unset: 0644, or 0600 when secret.")
    comment: Comment = Field("#", description="What a comment begins with in it; '' for none (JSON): then no header.")
    secret: bool = Field(default=False, description="Its content is never shown nor stored.")
    service: OneLine | None = Field(
        None, description="The unit that it is a part of: when both go, that is one deletion to the budget."
    )

    def refs(self) -> tuple[ResourceId, ...]:
        return () if self.service is None else (ResourceId("service", self.service),)

    @property
    def whole(self) -> bool:
        return self.content is not None or self.source is not None

    @model_validator(mode="after")
    def _one_origin(self) -> Self:
        if self.content is not None and self.source is not None:
            raise ValueError("source and content are both given; a file has one of them")
        if self.content is not None and len(self.content) > 4 * 2**20:
            raise ValueError("content is larger than 4 MiB; use 'source'")
        return self

    def _hidden(self) -> dict[str, Any]:
        return {"content": self.content} if self.secret else {}

    @field_serializer("content", when_used="unless-none")
    def _shown(self, content: str) -> str:
        return SECRET if self.secret else content


class BlockSpec(InFile):
    """Lines held between two marker lines in a file of somebody else. `text` null: there is no such block."""

    kind: ClassVar[str] = "block"

    name: OneLine
    text: Text | None = None
    comment: Comment = "#"
    secret: bool = False

    @field_validator("text")
    @classmethod
    def _lines(cls, text: str | None) -> str | None:
        return None if text is None else text.strip("\n")

    @field_validator("name")
    @classmethod
    def _named(cls, name: str) -> str:
        if not name:
            raise ValueError("a block needs a name, which is in its marker lines")
        return name

    @field_validator("comment")
    @classmethod
    def _marked(cls, comment: str) -> str:
        if not comment:
            raise ValueError("a block is found by its marker lines, so there must be a way to write a comment")
        return comment

    def _hidden(self) -> dict[str, Any]:
        return {"text": self.text} if self.secret else {}

    @field_serializer("text", when_used="unless-none")
    def _shown(self, text: str) -> str:
        return SECRET if self.secret else text


class IniSpec(InFile):
    """One key of an INI file of somebody else. `value` null: the key is absent; a list: that many lines of it.

    `section` '' is what stands before the first header. `source` is a file whose first line is the value.
    """

    kind: ClassVar[str] = "ini"

    section: OneLine
    key: OneLine
    value: OneLine | tuple[OneLine, ...] | None = None
    source: FilePath | None = None
    secret: bool | None = Field(None, description="Never shown nor stored. Unset: judged by the key's name.")

    @field_validator("section")
    @classmethod
    def _is_section(cls, section: str) -> str:
        if "]" in section:
            raise ValueError(f"{section!r} is no name of an INI section: it has a ']'")
        return section

    @field_validator("key")
    @classmethod
    def _is_key(cls, key: str) -> str:
        if not key or key[0] in "[#;" or "=" in key or ":" in key:
            raise ValueError(f"{key!r} is no INI key: it is empty, begins with [ # ; or contains = or :")
        return key

    @model_validator(mode="after")
    def _one_origin(self) -> Self:
        if self.source is not None and self.value is not None:
            raise ValueError("source and value are both given; a key has one of them")
        return self

    @property
    def values(self) -> tuple[str, ...]:
        """The lines of this key, in order."""
        if self.value is None:
            return ()
        return (self.value,) if isinstance(self.value, str) else self.value

    @property
    def is_secret(self) -> bool:
        if self.secret is not None:
            return self.secret
        return self.source is not None or any(looks_secret(self.key, value) for value in self.values or ("",))

    def _hidden(self) -> dict[str, Any]:
        return {"value": self.values} if self.is_secret else {}

    @field_serializer("value", when_used="unless-none")
    def _shown(self, value: str | tuple[str, ...]) -> str | tuple[str, ...]:
        return SECRET if self.is_secret else value


def name_of(spec: InFile) -> str:
    """The name of the resource: what it is about, within its kind."""
    match spec:
        case BlockSpec():
            return f"{spec.path}:{spec.name}"
        case IniSpec():
            return f"{spec.path}:{spec.section}/{spec.key}"
        case _:
            return spec.path
