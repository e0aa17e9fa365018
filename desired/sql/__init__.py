"""The store on SQLAlchemy Core: SQLite by default, PostgreSQL or MariaDB for a fleet, the same code.

Reading order: `tables` (what is kept), `engine` (how each database is spoken to, and its errors in our words),
`migrate` (creating and upgrading), `sqlstore` (the rows in and out). Nothing outside this package imports SQLAlchemy;
it costs some 25 MiB and a tenth of a second, so it is imported where a store is made, not where one is named.
"""

from desired.sql.sqlstore import SqlStore

__all__ = ["SqlStore"]
