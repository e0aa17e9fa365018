"""Compare what is declared for one path with what is there. Pure.

A whole file is ours by its mark: deleted when it is no longer declared, a conflict when somebody else's is there.
Blocks, keys and attributes are held in whatever file is there, and wait for one.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from controllers.drivers.files.disk import FileState, Kind
from controllers.drivers.files.marks import header, is_ours, with_header, xattr
from controllers.files import block, ini
from controllers.files.state import DeleteFile, Observed, PutFile, SetAttributes, SetBlock, SetKey
from controllers.files.words import difference, permissions, shown
from desired.kinds.file import SECRET, BlockSpec, FileSpec, IniSpec, looks_secret
from desired.resource import Resource, ResourceId
from reconciler.contract import Change, Disruption, Finding, Group, Outcome, Plan, Verb, View

RECHECK = 10.0
"""Seconds after which to look again for what tells no event: an account that does not exist yet."""

RECHECK_WRITING = 0.5


@dataclass(slots=True)
class _Draft:
    observed: Observed
    changes: list[Change] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)

    def find(self, resource: Resource, outcome: Outcome, reason: str, recheck: float | None = None) -> None:
        self.findings.append(Finding(resource.id, outcome, reason, recheck=recheck))

    def update(self, resource: Resource, action: object, why: str, before: str = "", after: str = "") -> None:
        self.changes.append(Change(resource.id, Verb.UPDATE, action, why, before, after))


def diff(view: View, observed: Observed) -> Plan:
    """The plan for one path. Its edits are one group, which is one replacement of the file, and may be split."""
    draft = _Draft(observed)
    whole = [r for r in view.resources.values() if isinstance(r.spec, FileSpec) and r.spec.whole]
    parts = [r for r in view.resources.values() if r not in whole]
    if whole and parts:
        for resource in parts:
            reason = f"{observed.path} is declared whole at {whole[0].origin}, and here in part: keep one"
            draft.find(resource, Outcome.FAILED, reason)
        parts = []
    for resource in whole:
        _whole(draft, resource)
    text = observed.state.content.decode("utf-8", "surrogateescape") if parts else ""
    parsed = ini.parse(text) if any(isinstance(r.spec, IniSpec) for r in parts) else None
    for resource in parts:
        _part(draft, resource, text, parsed)
    ours = observed.state.kind is Kind.REGULAR and is_ours(observed.state, observed.owner)
    if not view.resources and ours:
        rid = ResourceId(FileSpec.kind, observed.path)
        action = DeleteFile(observed.path)
        inside = _gone(view, observed.service)
        why = "no longer declared"
        change = Change(rid, Verb.DELETE, action, why, "present", "", Disruption.NONE, prune=True, inside=inside)
        draft.changes.append(change)
    if observed.half_written:
        draft.findings += [_later(change.resource) for change in draft.changes]
        draft.changes.clear()
    groups = (Group(tuple(draft.changes), divisible=True),) if draft.changes else ()
    return Plan(groups, tuple(draft.findings), {FileSpec.kind: int(ours)})


def _gone(view: View, service: str) -> ResourceId | None:
    """The unit that a file was a part of, if that is no longer declared either."""
    rid = ResourceId("service", service)
    return rid if service and rid not in view.everything else None


def _later(rid: ResourceId) -> Finding:
    return Finding(rid, Outcome.PENDING, "somebody is writing the file just now", recheck=RECHECK_WRITING)


def _whole(draft: _Draft, resource: Resource) -> None:
    spec, observed = resource.spec, draft.observed
    assert isinstance(spec, FileSpec)
    state = observed.state
    content = _content(draft, resource, spec)
    owner = _accounts(draft, resource, spec, 0, 0)
    if content is None or owner is None:
        return
    mark = xattr(observed.owner, observed.path)
    default = 0o600 if spec.secret else 0o644
    bits = default if spec.permissions is None else int(spec.permissions, 8)
    wanted = PutFile(observed.path, content, *owner, bits, mark)
    if state.kind is Kind.MISSING:
        after = f"{len(content)} bytes, {permissions(*owner, bits)}"
        draft.changes.append(Change(resource.id, Verb.CREATE, wanted, "file is missing", "", after))
        return
    if not _may_write(draft, resource, state):
        return
    same = (state.uid, state.gid, state.permissions) == (*owner, bits)
    marked = not header(observed.owner, observed.path, spec.comment) or is_ours(state, observed.owner)
    if state.kind is not Kind.REGULAR or state.content != content:
        secret = spec.secret or spec.source is not None
        before, after = (SECRET, SECRET) if secret else difference(state, content)
        why = "content differs" if state.kind is Kind.REGULAR else f"is a {state.kind} to {state.target}"
        draft.update(resource, wanted, why, before, after)
    elif not same or not marked:
        action = SetAttributes(observed.path, *owner, bits, mark)
        before = permissions(state.uid, state.gid, state.permissions)
        draft.update(resource, action, "owner or mode differs", before, permissions(*owner, bits))


def _may_write(draft: _Draft, resource: Resource, state: FileState) -> bool:
    """Is what stands at the path ours, or to be taken over? Else it is a conflict, or nothing that can be replaced."""
    if state.kind is Kind.OTHER:
        reason = f"{state.path} is no regular file (a directory, device or pipe) and is left alone"
        draft.find(resource, Outcome.CONFLICT, reason)
        return False
    if is_ours(state, draft.observed.owner) or draft.observed.knew or resource.spec.adopt:
        return True
    what = f"a link to {state.target}" if state.kind is Kind.LINK else "a file without our mark"
    reason = f"{state.path} is there already, {what}; 'adopt: true' would replace it"
    draft.find(resource, Outcome.CONFLICT, reason)
    return False


def _content(draft: _Draft, resource: Resource, spec: FileSpec) -> bytes | None:
    observed = draft.observed
    if spec.source is not None:
        source = observed.sources[spec.source]
        if source.kind is not Kind.REGULAR:
            draft.find(resource, Outcome.PENDING, f"its source {spec.source} is not there")
            return None
        content = source.content
    else:
        assert spec.content is not None
        if spec.secret and spec.content == SECRET:
            draft.find(resource, Outcome.PENDING, _NOT_STORED)
            return None
        content = spec.content.encode()
    return with_header(content, observed.owner, observed.path, spec.comment)


_NOT_STORED = "the YAML is unusable and secrets are not stored, so it is left as it is"


def _accounts(draft: _Draft, resource: Resource, spec: FileSpec, uid: int, gid: int) -> tuple[int, int] | None:
    """The numbers of owner and group, these where none is declared; None after saying which does not exist."""
    observed = draft.observed
    missing = []
    if spec.owner is not None:
        found = observed.users[spec.owner]
        missing += [f"user {spec.owner}"] if found is None else []
        uid = uid if found is None else found
    if spec.group is not None:
        found = observed.groups[spec.group]
        missing += [f"group {spec.group}"] if found is None else []
        gid = gid if found is None else found
    if missing:
        draft.find(resource, Outcome.PENDING, f"waits for {' and '.join(missing)}, unknown on this node", RECHECK)
        return None
    return uid, gid


def _part(draft: _Draft, resource: Resource, text: str, parsed: ini.Ini | None) -> None:
    """A block, a key or the attributes of a file of somebody else."""
    spec, state = resource.spec, draft.observed.state
    nothing = state.kind is Kind.MISSING
    if nothing and isinstance(spec, IniSpec) and not spec.values and spec.source is None:
        return
    if nothing and isinstance(spec, BlockSpec) and spec.text is None:
        return
    if state.kind is not Kind.REGULAR:
        what = "is not there" if nothing else "is no regular file"
        draft.find(resource, Outcome.PENDING, f"{state.path} {what}; it belongs to others and is waited for")
        return
    match spec:
        case IniSpec():
            assert parsed is not None
            _key(draft, resource, spec, parsed)
        case BlockSpec():
            _block(draft, resource, spec, text)
        case FileSpec():
            owner = _accounts(draft, resource, spec, state.uid, state.gid)
            bits = state.permissions if spec.permissions is None else int(spec.permissions, 8)
            if owner is not None and (*owner, bits) != (state.uid, state.gid, state.permissions):
                before = permissions(state.uid, state.gid, state.permissions)
                action = SetAttributes(state.path, *owner, bits)
                draft.update(resource, action, "owner or mode differs", before, permissions(*owner, bits))


def _key(draft: _Draft, resource: Resource, spec: IniSpec, parsed: ini.Ini) -> None:
    values = spec.values
    if spec.source is not None:
        source = draft.observed.sources[spec.source]
        if source.kind is not Kind.REGULAR:
            draft.find(resource, Outcome.PENDING, f"its source {spec.source} is not there")
            return
        values = (source.content.decode("utf-8", "surrogateescape").partition("\n")[0].strip(),)
    elif SECRET in values and spec.is_secret:
        draft.find(resource, Outcome.PENDING, _NOT_STORED)
        return
    has = parsed.get(spec.section, spec.key)
    if has == values:
        return
    secret = spec.is_secret or any(looks_secret(spec.key, value) for value in has)
    action = SetKey(spec.path, spec.section, spec.key, values)
    if not has:
        why = f"{spec.key} is not in [{spec.section}]"
    elif not values:
        why = f"{spec.key} is in [{spec.section}] and must not be"
    else:
        why = f"{spec.key} in [{spec.section}] differs"
    draft.update(resource, action, why, shown(has, secret=secret), shown(values, secret=secret))


def _block(draft: _Draft, resource: Resource, spec: BlockSpec, text: str) -> None:
    if spec.secret and spec.text == SECRET:
        draft.find(resource, Outcome.PENDING, _NOT_STORED)
        return
    has = block.get(text, spec.name, spec.comment)
    absent = block.absent(text, spec.name, spec.comment)
    if (spec.text is None and absent) or (spec.text is not None and has == spec.text):
        return
    action = SetBlock(spec.path, spec.name, spec.comment, spec.text)
    if absent:
        why = "block is missing"
    elif spec.text is None:
        why = "block is there and must not be"
    else:
        why = "block differs" if has is not None else "the block's marker lines are damaged"
    lines = tuple(part for part in (has, spec.text) if part is not None)
    before, after = (SECRET, SECRET) if spec.secret else (shown(has), shown(spec.text))
    draft.update(resource, action, why, before if lines else "", after)
