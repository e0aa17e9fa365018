"""Does a password match a bcrypt hash? The package `bcrypt` answers if it is installed, else the system's libcrypt.

A check costs a tenth of a second of processor time by design: call it in a thread. Both ways release the GIL.
"""

from __future__ import annotations

import ctypes
import hmac
import importlib
import importlib.util
from collections.abc import Callable
from typing import Any

from reconciler.errors import ConfigError

Check = Callable[[str, str], bool]
"""(password, hash) to verdict."""

_CRYPT_DATA = 32768 + 4096
"""struct crypt_data of libxcrypt, rounded up."""


def checker() -> Check:
    """The way this machine can check. Raises ConfigError when it has none."""
    return _package() or _libcrypt() or _refuse()


def _package() -> Check | None:
    if importlib.util.find_spec("bcrypt") is None:
        return None
    module = importlib.import_module("bcrypt")

    def check(password: str, hashed: str) -> bool:
        try:
            return bool(module.checkpw(password.encode()[:72], hashed.encode()))
        except ValueError:
            return False

    return check


def _libcrypt() -> Check | None:
    for name in ("libcrypt.so.1", "libcrypt.so.2"):
        try:
            crypt_r = ctypes.CDLL(name).crypt_r
        except (OSError, AttributeError):
            continue
        crypt_r.restype = ctypes.c_char_p
        crypt_r.argtypes = [ctypes.c_char_p, ctypes.c_char_p, ctypes.c_void_p]
        if _hash(crypt_r, "", "$2b$04$abcdefghijklmnopqrstuu").startswith(b"$2b$"):
            return lambda password, hashed: hmac.compare_digest(_hash(crypt_r, password, hashed), hashed.encode())
    return None


def _hash(crypt_r: Any, password: str, setting: str) -> bytes:
    """b"" when libcrypt has no answer; it never equals a hash."""
    if "\0" in password + setting:
        return b""
    return crypt_r(password.encode(), setting.encode(), ctypes.create_string_buffer(_CRYPT_DATA)) or b""


def _refuse() -> Check:
    raise ConfigError(
        "basic_auth_users needs bcrypt, and this system's libcrypt does not know it: install the package 'bcrypt'"
    )
