"""The settings: their defaults, the environment, and a check at start.

Every setting `NAME` is read from the environment variable `WIZARDS_NAME`.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

PREFIX = "WIZARDS"

DEFAULTS: Mapping[str, Any] = {
    "DATABASE_URL": "sqlite:///wizards.db",
    "MAX_WIZARDS": 100_000,
    "MAX_NAME_LENGTH": 255,
    "MAX_WAITING": 10_000,
}

# The smallest and the largest value of each number. The list starts with three names; a request
# line holds no more than 16 KiB (Hypercorn's h11_max_incomplete_size), a name in it even less.
BOUNDS: Mapping[str, tuple[int, int]] = {
    "MAX_WIZARDS": (3, 10_000_000),
    "MAX_NAME_LENGTH": (1, 10_000),
    "MAX_WAITING": (1, 1_000_000),
}

URL_FORMS = "sqlite:///FILE, sqlite:// (in memory) or postgresql://USER:PASSWORD@HOST/DATABASE"


class StartError(SystemExit):
    """The service cannot start. Uncaught, it ends the process with one line and status 1."""


class Settings(NamedTuple):
    """The checked settings.

    `max_wizards` and `max_waiting` count names and requests, `max_name_length` Unicode code points.
    """

    database_url: URL
    max_wizards: int
    max_name_length: int
    max_waiting: int

    @classmethod
    def check(cls, config: Mapping[str, Any]) -> "Settings":
        """Take the settings out of a Quart config; raise StartError at the first that is unusable."""
        numbers = {key.lower(): _number(key, config[key]) for key in BOUNDS}
        return cls(database_url=_database_url(config["DATABASE_URL"]), **numbers)


def _number(key: str, value: object) -> int:
    low, high = BOUNDS[key]
    if type(value) is int and low <= value <= high:  # a bool is an int, but no number
        return value
    raise _refusal(key, f"{value!r} is not a whole number from {low:,} to {high:,}")


def _database_url(value: object) -> URL:
    # The value may hold a password, so an unreadable one is not repeated.
    try:
        url = make_url(str(value))
    except (ArgumentError, ValueError):
        raise _refusal("DATABASE_URL", f"the value is no database URL; it may be {URL_FORMS}") from None
    if url.drivername == "sqlite" and not url.host and not url.query:
        return url
    if url.drivername in {"postgresql", "postgres"}:
        return url.set(drivername="postgresql")
    query = f" with {', '.join(url.query)}" if url.query else ""  # whose values may be secrets, too
    raise _refusal("DATABASE_URL", f"{url.set(query={})}{query} is not supported; it may be {URL_FORMS}")


def _refusal(key: str, why: str) -> StartError:
    return StartError(f"{PREFIX}_{key}: {why}")
