"""From a database URL to the store that it names."""

from wizards.storage.base import StorageError, Store, first_line
from wizards.storage.sqlite import SQLiteStore

DRIVER = "psycopg[binary]>=3.3,<3.4"  # what the package's extra asks for
URL_FORMS = "sqlite:///FILE, sqlite:// (in memory) or postgresql://USER:PASSWORD@HOST/DATABASE"


def make_store(url: str) -> Store:
    """Return the store for a database URL, not yet opened.

    Raises StorageError, whose message holds no secret, if there is none.
    """
    scheme, separator, rest = url.partition("://")
    if not separator or not scheme.isidentifier():  # the value may hold a password, so it is not repeated
        raise StorageError(f"the value is no database URL; it may be {URL_FORMS}")
    if scheme in {"postgresql", "postgres"}:
        return _postgresql(url)
    if scheme != "sqlite":
        raise StorageError(f"{scheme}:// is not supported; it may be {URL_FORMS}")
    if rest in {"", "/:memory:"}:
        return SQLiteStore("")
    if not rest.startswith("/") or rest == "/" or "?" in rest:
        raise StorageError(f"{url} names no file; it may be {URL_FORMS}, without a query")
    return SQLiteStore(rest[1:])


def _postgresql(url: str) -> Store:
    try:
        from wizards.storage.postgresql import PostgreSQLStore  # noqa: PLC0415  # an extra: it may be missing
    except ImportError as error:
        raise StorageError(
            f"PostgreSQL needs a driver: pip install '{DRIVER}' ({first_line(error)})"
        ) from None
    return PostgreSQLStore(url)
