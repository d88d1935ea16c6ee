"""Stores made from a URL, as the application makes them."""

from sqlalchemy import make_url

from wizards.storage.base import Store
from wizards.storage.postgresql import PostgreSQLStore
from wizards.storage.sqlite import SQLiteStore


def make_store(url: str) -> Store:
    """Return a store of the kind that `url` names; it is not open yet."""
    kind = SQLiteStore if url.startswith("sqlite") else PostgreSQLStore
    return kind(make_url(url))
