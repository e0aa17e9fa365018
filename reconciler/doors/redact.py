"""Takes secrets out of text that leaves the node. Errs towards taking too much; keeps the names of things. Pure.

It knows the forms in which passwords stand in YAML, INI, URLs, OVSDB options and command lines, and replaces what the
caller knows to be secret wherever it stands. Called by `support`.
"""

from __future__ import annotations

import re
from collections.abc import Collection

HIDDEN = "***"

_WORDS = (
    r"pass(?:word|wd|phrase)|(?<![a-z])pass(?![a-z_])|pwd|secret|token|psk|credentials?"
    r"|api[_-]?key|private[_-]?key|shared[_-]?key"
)
_NAME = rf"[\w.-]*(?:{_WORDS})[\w.-]*"
_VALUE = r"""(?:"(?:[^"\\]|\\.)*"|'(?:[^']|'')*'|[^\s,;}\]"'][^\n,;}\]]*)"""
_PAIR = re.compile(rf"""(?i)(["']?\b{_NAME}["']?[ \t]*[:=][ \t]*)(?![|>][-+0-9]*[ \t]*$){_VALUE}""", re.MULTILINE)
_BLOCK = re.compile(
    rf"""(?im)^(?P<indent>[ \t]*)(?P<head>(?:-[ ]+)?["']?{_NAME}["']?[ \t]*:[ \t]*[|>][-+0-9]*)[ \t]*\n"""
    r"""(?:(?P=indent)[ \t]+.*(?:\n|\Z)|[ \t]*\n)+"""
)
_FLAG = re.compile(rf"(?i)(--?{_NAME}[ =])\S+")
_URL = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*://[^\s:/@'\"]*):[^\s@/'\"]+@")
_PEM = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL)
_BCRYPT = re.compile(r"\$2[abxy]\$[0-9]{2}\$[./A-Za-z0-9]{53}")
_SHORTEST = 4
"""A known secret shorter than this would blot out half of the text."""


def redact(text: str, known: Collection[str] = ()) -> str:
    """`text` with secrets replaced by ``***``; `known` are values that must not be in it."""
    for secret in sorted({value for value in known if len(value) >= _SHORTEST}, key=len, reverse=True):
        text = text.replace(secret, HIDDEN)
    text = _PEM.sub(HIDDEN, text)
    text = _BLOCK.sub(lambda found: f"{found['indent']}{found['head']}\n{found['indent']}  {HIDDEN}\n", text)
    text = _URL.sub(rf"\g<scheme>:{HIDDEN}@", text)
    text = _BCRYPT.sub(HIDDEN, text)
    text = _PAIR.sub(rf"\g<1>{HIDDEN}", text)
    return _FLAG.sub(rf"\g<1>{HIDDEN}", text)
