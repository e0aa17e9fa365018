"""A directory of YAML as what it declares for one node: the files found, read, merged, and checked against each other.

`desired.sources.files` calls `load_tree` in a thread, with a `Cache`, so that an edit of one file reads one file.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from desired.resource import Resource, ResourceId
from desired.schema.check import Places
from desired.schema.problem import Problem, did_you_mean
from desired.schema.reading import Declared, FileContent, Unread, read_file
from desired.schema.section import Claim, Section

SUFFIXES = (".yaml", ".yml")
MAX_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Loaded:
    """What a tree declares for one node. With any problem, `resources` is only what could be read: never enforce it.

    `files` counts the files read; `digest` is equal for equal trees, problems with reading included. `unread` is
    declared with a mistake, or twice; with `hiding`, more may be declared than is known by name. `places` say where
    the fields of entries are written that are to be judged as a whole.
    """

    resources: tuple[Resource, ...] = ()
    problems: tuple[Problem, ...] = ()
    warnings: tuple[Problem, ...] = ()
    files: int = 0
    digest: str = ""
    unread: Unread = field(default_factory=dict)
    hiding: bool = False
    places: Mapping[ResourceId, Places] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        return not self.problems


@dataclass(slots=True)
class Cache:
    """What was read of each file the last time, with the hash of its bytes. For one tuple of sections."""

    entries: dict[str, tuple[bytes, FileContent]] = field(default_factory=dict)


def load_tree(
    path: str | Path,
    *,
    node: str,
    roles: frozenset[str],
    sections: Sequence[Section],
    cache: Cache | None = None,
) -> Loaded:
    """Load a directory (or one file) for one node. Everything wrong with it is in `problems`; nothing is raised.

    An empty or missing directory, and a tree that declares nothing for this node, are problems.
    """
    cache = Cache() if cache is None else cache
    known, cache.entries = cache.entries, {}
    problems: list[Problem] = []
    contents: list[FileContent] = []
    digest = hashlib.blake2b(digest_size=16)
    files = sorted(find_files(Path(path), problems))
    for file in files:
        raw = _read(file, problems)
        if raw is None:
            continue
        name, content_hash = str(file), hashlib.blake2b(raw, digest_size=16).digest()
        digest.update(name.encode(errors="surrogateescape") + b"\0" + content_hash)
        old = known.get(name)
        content = old[1] if old is not None and old[0] == content_hash else read_file(raw, name, sections)
        cache.entries[name] = (content_hash, content)
        contents.append(content)
    complete = not problems and all(content.complete for content in contents)
    hiding = bool(problems) or any(content.hiding or not content.complete for content in contents)
    problems += [problem for content in contents for problem in content.problems]
    applying = [
        document
        for content in contents
        for document in content.documents
        if document.apply_to is None or document.apply_to.matches(node, roles)
    ]
    declared = [one for document in applying for one in document.declared]
    if not declared and complete and not (applying and problems):
        problems.append(_nothing(path, node, roles, contents, applying=bool(applying)))
    unread = {rid: texts for document in applying for rid, texts in document.unread.items()}
    problems += _clashes(declared, unread)
    resources = tuple(sorted((one.resource for one in declared), key=lambda resource: resource.id))
    # What has a mistake is not among the resources: to say of it that it is not declared would mislead.
    warnings = () if problems else tuple(_doubts(resources))
    digest.update(repr(problems).encode(errors="surrogateescape"))
    places = {one.resource.id: one.places for one in declared if one.places is not None}
    return Loaded(resources, tuple(problems), warnings, len(contents), digest.hexdigest(), unread, hiding, places)


def _nothing(
    path: str | Path, node: str, roles: frozenset[str], contents: Sequence[FileContent], *, applying: bool
) -> Problem:
    refused = f"nothing would be declared for node {node}; refused"
    if not contents:
        return Problem(f"no YAML file here: {refused}", str(path), hint="put files ending in .yaml here")
    if not any(content.documents for content in contents):
        return Problem(f"only empty documents: {refused}", str(path))
    if applying:
        return Problem(f"the sections of all documents that apply to this node are empty: {refused}", str(path))
    has = f"has the roles {', '.join(sorted(roles))}" if roles else "has no roles"
    message = f"no document that applies to this node declares anything: {refused}"
    return Problem(message, str(path), hint=f"look at the documents' apply_to; node {node} {has}")


def find_files(path: Path, problems: list[Problem]) -> Iterator[Path]:
    """Yield the YAML files of a tree, unsorted. Hidden entries are left out, each real directory is seen once."""
    try:
        is_directory = stat.S_ISDIR(path.stat().st_mode)
    except FileNotFoundError:
        problems.append(Problem("does not exist; what is desired is unknown, so nothing is changed", str(path)))
        return
    except OSError as error:
        problems.append(Problem(f"cannot be read: {error.strerror}", str(path)))
        return
    if not is_directory:
        yield path
        return
    seen: set[str] = set()
    pending = [path]
    while pending:
        directory = pending.pop()
        real = os.path.realpath(directory)
        if real in seen:
            continue
        seen.add(real)
        files, directories = _listed(directory, problems)
        yield from files
        pending += reversed(directories)


def _listed(directory: Path, problems: list[Problem]) -> tuple[list[Path], list[Path]]:
    """Return the YAML files and the directories in a directory, each sorted."""
    files, directories = [], []
    try:
        entries = sorted(os.scandir(directory), key=lambda entry: entry.name)
    except OSError as error:
        problems.append(Problem(f"cannot be listed: {error.strerror}", str(directory)))
        return [], []
    for entry in entries:
        if entry.name.startswith("."):
            continue
        if _is_directory(entry):
            directories.append(Path(entry.path))
        elif entry.name.endswith(SUFFIXES):
            files.append(Path(entry.path))
    return files, directories


def _is_directory(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself; under a file's name, reading it says so
        return False


def _read(file: Path, problems: list[Problem]) -> bytes | None:
    try:
        status = file.stat()
        if not stat.S_ISREG(status.st_mode):
            problems.append(Problem("is not a regular file", str(file), hint="remove or rename it"))
        elif status.st_size > MAX_BYTES:
            problems.append(Problem(f"is larger than {MAX_BYTES >> 20} MiB", str(file)))
        else:
            return file.read_bytes()
    except FileNotFoundError:
        problems.append(Problem("cannot be read: it is a link to nothing, or it vanished meanwhile", str(file)))
    except OSError as error:
        problems.append(Problem(f"cannot be read: {error.strerror}", str(file)))
    return None


def _clashes(declared: Sequence[Declared], unread: dict[ResourceId, Mapping[str, str]]) -> Iterator[Problem]:
    """One problem for each name that is declared more than once, or claimed by two kinds; it shows all places.

    What is declared more than once goes to `unread`: which of them is meant is unknown.
    """
    by_id: dict[ResourceId, list[Resource]] = {}
    by_claim: dict[Claim, dict[ResourceId, Resource]] = {}
    for one in declared:
        by_id.setdefault(one.resource.id, []).append(one.resource)
        for claim in one.claims:
            by_claim.setdefault(claim, {}).setdefault(one.resource.id, one.resource)
    for rid, places in by_id.items():
        if len(places) > 1:
            unread.setdefault(rid, {})
            yield _clash(f"{places[-1].called} is declared {_times(len(places))}", places)
    said: set[frozenset[ResourceId]] = set()
    for (_, name), holders in by_claim.items():
        if len(holders) > 1 and frozenset(holders) not in said:
            said.add(frozenset(holders))
            what = " and ".join(holder.called for holder in holders.values())
            yield _clash(f"{what} would both have the name {name!r} in Open vSwitch", list(holders.values()))


def _clash(message: str, places: Sequence[Resource]) -> Problem:
    *others, at = (resource.origin for resource in places)
    also = ", ".join(str(other) for other in others)
    return Problem(f"{message}: here and at {also}", at.file, at.line, at.column, at.path, "keep one of them")


def _times(count: int) -> str:
    return "twice" if count == 2 else f"{count} times"


def _doubts(resources: Sequence[Resource]) -> Iterator[Problem]:
    """Say when a thing that is referred to is not declared, but one of nearly that name is."""
    names: dict[str, set[str]] = {}
    for resource in resources:
        names.setdefault(resource.id.kind, set()).add(resource.id.name)
    said: dict[ResourceId, str] = {}
    for resource in resources:
        for ref in resource.spec.refs():
            if ref.name in names.get(ref.kind, ()):
                continue
            if ref not in said:
                said[ref] = hint = did_you_mean(ref.name, names.get(ref.kind, ()))
                if hint:
                    at = resource.origin
                    message = f"{ref.kind} {ref.name!r} is not declared for this node; it will be waited for"
                    yield Problem(message, at.file, at.line, at.column, at.path, hint)
