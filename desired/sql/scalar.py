"""One value from any database, for checks: connect, ask, close. Not the store; it shares only the library."""

from __future__ import annotations

from typing import Any

from sqlalchemy import create_engine, text
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError
from sqlalchemy.pool import NullPool

from desired.sql.engine import parse_url
from desired.store import StoreError
from reconciler.errors import DriverError

_TIMEOUTS = {
    "sqlite": "timeout",
    "postgresql": "connect_timeout",
    "mysql": "connect_timeout",
    "mariadb": "connect_timeout",
}


def scalar(url: str, query: str, timeout: float) -> Any:
    """The first column of the first row, None when there is none. Blocking. Raises DriverError without the password.

    `timeout` bounds the connecting; the caller bounds the rest. A result of two columns (MySQL's SHOW STATUS: name
    and value) gives the second.
    """
    try:
        parsed = parse_url(url)
        name = _TIMEOUTS.get(parsed.get_backend_name())
        engine = create_engine(parsed, poolclass=NullPool, connect_args={name: max(1, int(timeout))} if name else {})
        with engine.connect() as connection:
            row = connection.execute(text(query)).first()
    except (ArgumentError, NoSuchModuleError, ImportError, StoreError) as error:
        raise DriverError(
            f"this URL cannot be used: {type(error).__name__}; is the database's driver installed?"
        ) from error
    except SQLAlchemyError as error:
        orig = getattr(error, "orig", None)
        parts: tuple[object, ...] = getattr(orig, "args", ())
        words = parts[1] if len(parts) > 1 else orig or error  # PyMySQL: number, words
        said = str(words).splitlines()
        raise DriverError(f"the database says: {said[0] if said else type(error).__name__}") from error
    return None if row is None else row[1] if len(row) == 2 else row[0]
