"""Run by Alembic for every upgrade, on the connection (and in the transaction and lock) of `desired.sql.migrate`.

A new step is a new file in `versions/`, its number added to `desired.sql.tables.KNOWN` as the new HEAD;
tests/desired/test_sql_migrations.py says what is still different between the steps and the tables.
"""

from alembic import context

from desired.sql.tables import VERSION_TABLE, metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    version_table=VERSION_TABLE,
    render_as_batch=True,  # SQLite alters a table by copying it
)
with context.begin_transaction():
    context.run_migrations()
