"""The settings: their defaults, the environment, and a check at start.

Every setting `NAME` is read from the environment variable `WIZARDS_NAME`.
"""

from collections.abc import Mapping
from typing import Any

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

PREFIX = "WIZARDS"

# MAX_WIZARDS and MAX_WAITING count names and requests, MAX_NAME_LENGTH Unicode code points.
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


def check(config: Mapping[str, Any]) -> URL:
    """Raise StartError at the first setting of a Quart config that is unusable; return the database's URL."""
    for key, (low, high) in BOUNDS.items():
        value = config[key]
        if type(value) is not int or not low <= value <= high:  # a bool is an int, but no number
            raise _refusal(key, f"{value!r} is not a whole number from {low:,} to {high:,}")
    return _database_url(config["DATABASE_URL"])


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
