"""The store behind a URL, and the list as the storage holds it."""

from contextlib import closing
from pathlib import Path

from support.pages import parse_page
from wizards import create_app
from wizards.storage import urls
from wizards.storage.base import START, Row, Store
from wizards.storage.sqlite_connection import library

NO_LIMIT = 1_000_000


def make_store(url: str) -> Store:
    """Return an unopened store of the kind that `url` names."""
    return urls.make_store(url)


async def read_rows(store: Store, after: Row = START) -> list[Row]:
    """Return all rows behind `after`."""
    rows: list[Row] = []
    while chunk := await store.read(rows[-1] if rows else after):
        rows += chunk
    return rows


async def append_names(store: Store, *names: str) -> list[Row]:
    """Append names, as a process that holds the whole list; return their rows."""
    after = (await read_rows(store))[-1]
    rows, appended = await store.append(names, after, NO_LIMIT)
    assert appended == len(names)
    return rows[-appended:]


def read_table(file: Path) -> list[str]:
    """Return the names in an SQLite file, read without the application."""
    with closing(library.connect(file)) as connection:
        return [name for (name,) in connection.execute("SELECT name FROM wizards ORDER BY position")]


async def read_list(url: str) -> list[str]:
    """Return the list as a newly started application reads it."""
    async with create_app({"DATABASE_URL": url}).test_app() as app:
        response = await app.test_client().get("/wizards")
        return parse_page(await response.get_data(as_text=True))
