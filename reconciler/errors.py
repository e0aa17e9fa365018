"""The one taxonomy of errors, with the retry policy on the class.

    ReconcilerError
    ├── ConfigError         what was declared is wrong; nothing is retried until it changes
    ├── TransientError      may go better next time: retried with backoff
    │   ├── DriverError     the target (OVSDB, a switch, a file) refused or did not answer
    │   └── NotReady        something this waits for is not there; no failure, an event will come
    ├── TerminalError       the target refuses what was declared; retried only when something changes
    ├── ConflictError       somebody else holds the name; untouched until `adopt: true`
    └── VerificationError   the target said yes and the world says no

Messages say what was attempted, on what, what the target said, and what happens next.
Library exceptions are mapped to these once, in the driver that called the library.
"""

from __future__ import annotations


class ReconcilerError(Exception):
    """Base of all errors this product raises on purpose."""

    retry: bool = True


class ConfigError(ReconcilerError):
    retry = False


class TransientError(ReconcilerError):
    pass


class DriverError(TransientError):
    pass


class NotReady(TransientError):
    """What this waits for is not there yet. `waits_for` names it in words."""


class TerminalError(ReconcilerError):
    retry = False


class ConflictError(ReconcilerError):
    retry = False


class VerificationError(ReconcilerError):
    pass
