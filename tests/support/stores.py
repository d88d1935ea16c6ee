"""The store behind a URL, and the list as the storage holds it."""

import sqlite3
from contextlib import closing
from pathlib import Path

from sqlalchemy import make_url

from support.pages import parse_page
from wizards import create_app
from wizards.storage.base import Store
from wizards.storage.postgresql import PostgreSQLStore
from wizards.storage.sqlite import SQLiteStore


def make_store(url: str) -> Store:
    """Return an unopened store of the kind that `url` names."""
    kind = SQLiteStore if url.startswith("sqlite") else PostgreSQLStore
    return kind(make_url(url))


def read_table(file: Path) -> list[str]:
    """Return the names in an SQLite file, read without the application."""
    with closing(sqlite3.connect(file)) as connection:
        return [name for (name,) in connection.execute("SELECT name FROM wizards ORDER BY position")]


async def read_list(url: str) -> list[str]:
    """Return the list as a newly started application reads it."""
    async with create_app({"DATABASE_URL": url}).test_app() as app:
        response = await app.test_client().get("/wizards")
        return parse_page(await response.get_data(as_text=True))
