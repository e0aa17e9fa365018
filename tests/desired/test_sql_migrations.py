"""Creating and upgrading the schema: Alembic's steps and the tables are the same thing, and nobody is in the way."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import String, Text, create_engine, insert, inspect, text
from sqlalchemy.dialects import mysql
from sqlalchemy.schema import CreateIndex, CreateTable

from desired.sql import SqlStore
from desired.sql.engine import parse_url
from desired.sql.migrate import SCRIPTS
from desired.sql.tables import HEAD, KNOWN, metadata
from desired.store import StoreError

OPEN = """
import sys
from desired.sql import SqlStore
store = SqlStore(sys.argv[1], sys.argv[2])
print("ready", flush=True)
sys.stdin.readline()
store.open()
store.save_approval("a", 1.0, "")
store.close()
print(*sorted(name for name in sys.modules if name.startswith(("alembic", "sqlalchemy.dialects."))))
"""


@pytest.fixture(params=["sqlite", "postgresql", "mariadb"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    fixtures = {"postgresql": "postgres_url", "mariadb": "mariadb_url"}
    if request.param in fixtures:
        return str(request.getfixturevalue(fixtures[request.param]))
    return f"sqlite:///{tmp_path}/deep/down/store.db"


def opened(url: str) -> None:
    store = SqlStore(url, "node-1")
    store.open()
    store.close()


def openers(url: str, count: int) -> list[str]:
    """Open the store in processes of their own, all at the same moment; what each printed."""
    running = [
        subprocess.Popen(
            [sys.executable, "-W", "error", "-c", OPEN, url, f"node-{number}"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for number in range(count)
    ]  # fmt: skip
    for process in running:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in running:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    outputs = [process.communicate(timeout=60) for process in running]
    assert [error for _, error in outputs] == [""] * count
    return [output for output, _ in outputs]


def test_the_steps_build_what_the_tables_say(url: str) -> None:
    opened(url)
    engine = create_engine(parse_url(url))
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        assert compare_metadata(context, metadata) == []
        assert context.get_current_revision() == HEAD
    engine.dispose()


def test_every_older_schema_is_brought_up_to_date_and_keeps_what_is_in_it(url: str) -> None:
    for number, older in enumerate(KNOWN[:-1]):
        opened(url)
        engine = create_engine(parse_url(url))
        metadata.drop_all(engine)
        config = Config()
        config.set_main_option("script_location", str(SCRIPTS))
        with engine.begin() as connection:
            connection.execute(text("drop table alembic_version"))
            config.attributes["connection"] = connection
            command.upgrade(config, older)
            mine = {"node": "node-1", "revision": f"r{number}", "at": 1.0, "by": ""}
            connection.execute(insert(metadata.tables["approval"]).values(mine))
        engine.dispose()
        store = SqlStore(url, "node-1")
        assert store.approvals() == [f"r{number}"]
        assert store.mirror("openstack") == []
        store.close()


def test_the_program_knows_exactly_the_steps_that_are_shipped() -> None:
    scripts = ScriptDirectory(str(SCRIPTS))
    assert tuple(step.revision for step in scripts.walk_revisions())[::-1] == KNOWN
    assert scripts.get_current_head() == HEAD


def test_several_processes_open_an_empty_database_at_once(url: str) -> None:
    openers(url, 4)
    store = SqlStore(url, "node-3")
    assert store.approvals() == ["a"]
    store.close()


def test_opening_what_is_up_to_date_imports_neither_alembic_nor_another_dialect(url: str) -> None:
    opened(url)
    (imported,) = openers(url, 1)
    assert "alembic" not in imported
    other = "postgresql" if not url.startswith("postgresql") else "sqlite"
    assert f"sqlalchemy.dialects.{other}" not in imported


def test_a_newer_schema_is_named_and_left_untouched(url: str) -> None:
    opened(url)
    engine = create_engine(parse_url(url))
    with engine.begin() as connection:
        connection.execute(text("update alembic_version set version_num = '0999'"))
        connection.execute(text("drop table approval"))
    with pytest.raises(StoreError, match=r"its schema is '0999' and this program knows up to '0002'.*left untouched"):
        opened(url)
    with engine.connect() as connection:
        assert connection.scalar(text("select version_num from alembic_version")) == "0999"
        assert "approval" not in inspect(connection).get_table_names()
    engine.dispose()


def test_an_upgrade_that_fails_leaves_nothing_half_made(url: str) -> None:
    if url.startswith("sqlite"):
        Path(url.removeprefix("sqlite:///")).parent.mkdir(parents=True)
    engine = create_engine(parse_url(url))
    with engine.begin() as connection:
        connection.execute(text("create table pause (somebody_elses integer)"))
    with pytest.raises(StoreError, match=r"opening it failed: .*pause.*already exists"):
        opened(url)
    with engine.begin() as connection:
        assert inspect(connection).get_table_names() == ["pause"]
        connection.execute(text("drop table pause"))
    engine.dispose()
    opened(url)


def test_the_file_and_its_directory_are_not_for_everybody(tmp_path: Path) -> None:
    path = tmp_path / "lib" / "store.db"
    store = SqlStore(f"sqlite:///{path}", "node-1")
    store.open()
    store.save_approval("a", 1.0, "")
    files = {each.name: oct(each.stat().st_mode & 0o777) for each in path.parent.iterdir()}
    assert oct(path.parent.stat().st_mode & 0o777) == "0o750"
    assert files == dict.fromkeys(("store.db", "store.db-wal", "store.db-shm"), "0o640")
    store.close()


def test_the_schema_is_one_that_mariadb_takes() -> None:
    dialect = mysql.dialect()
    for table in metadata.sorted_tables:
        assert str(CreateTable(table).compile(dialect=dialect))
        for index in table.indexes:
            assert str(CreateIndex(index).compile(dialect=dialect))
        keys = [list(index.columns) for index in table.indexes] + [list(table.primary_key.columns)]
        for columns in keys:
            assert not any(isinstance(column.type, Text) for column in columns), (table.name, columns)
            lengths = [column.type.length or 0 for column in columns if isinstance(column.type, String)]
            assert 4 * sum(lengths) + 8 * len(columns) <= 3072, (table.name, columns)
