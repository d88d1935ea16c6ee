"""Fixtures for all tests: empty databases on SQLite and on PostgreSQL."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.postgresql import PostgreSQL, run_postgresql


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgreSQL]:
    """Start a PostgreSQL server once for all tests."""
    with run_postgresql() as server:
        yield server


@pytest.fixture
def own_postgresql() -> Iterator[PostgreSQL]:
    """Start a PostgreSQL server for one test, which may stop it."""
    with run_postgresql() as server:
        yield server


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Return the URL of an empty database, once for each kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/wizards.db"
    server: PostgreSQL = request.getfixturevalue("postgresql")
    return server.new_database()
