"""What the tests share: a database for each, on SQLite and on PostgreSQL."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.postgresql import PostgreSQL


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgreSQL]:
    """Start a PostgreSQL server once for all tests."""
    server = PostgreSQL()
    yield server
    server.remove()


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Return the URL of a database that holds nothing yet, once for each kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/wizards.db"
    server: PostgreSQL = request.getfixturevalue("postgresql")
    return server.new_database()
