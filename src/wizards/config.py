"""The settings: their defaults, the environment, and a check at start.

Every setting `NAME` is read from the environment variable `WIZARDS_NAME`.
"""

import os
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

from flask.config import Config

from wizards.storage.base import StorageError, Store
from wizards.storage.urls import make_store

PREFIX = "WIZARDS"

# MAX_WIZARDS and MAX_WAITING count names and requests, MAX_NAME_LENGTH Unicode code points.
DEFAULTS: Mapping[str, Any] = {
    "DATABASE_URL": "sqlite:///wizards.db",
    "MAX_WIZARDS": 100_000,
    "MAX_NAME_LENGTH": 255,
    "MAX_WAITING": 10_000,
    "LOG_FORMAT": "text",
}

# The smallest and the largest value of each number. The list starts with three names. Hypercorn may refuse a
# request of over 16 KiB (h11_max_incomplete_size), and any that is longer than what it reads at once, 64 KiB.
BOUNDS: Mapping[str, tuple[int, int]] = {
    "MAX_WIZARDS": (3, 10_000_000),
    "MAX_NAME_LENGTH": (1, 10_000),
    "MAX_WAITING": (1, 1_000_000),
}

LOG_FORMATS = ("text", "json")


class StartError(Exception):
    """The service cannot start. The message is one line that names the setting and the reason."""


def read_settings(target: Config, settings: Mapping[str, Any]) -> None:
    """Set in Quart's config `target` the defaults, then the environment, then `settings`.

    Raises StartError for a key of `settings` that is neither a setting of ours nor one of Quart's, and for an
    environment variable that is one letter or two away from a setting of ours. Others are not our concern:
    Kubernetes sets WIZARDS_PORT for a service of that name.
    """
    for variable in os.environ:
        name = variable.removeprefix(f"{PREFIX}_")
        if name != variable and name not in DEFAULTS:
            for meant in get_close_matches(name, DEFAULTS, n=1, cutoff=0.85):
                raise _refusal(name, f"there is no such setting; did you mean {PREFIX}_{meant}?")
    known = {*target, *DEFAULTS}
    for key in settings:
        if key not in known:
            raise StartError(_unknown(str(key)))
    target.update(DEFAULTS)
    target.from_prefixed_env(PREFIX)
    target.update(settings)


def _unknown(key: str) -> str:
    name = key.removeprefix(f"{PREFIX}_")
    if name in DEFAULTS:
        return f"{key}: a key of create_app's config has no prefix: {name}"
    return f"{key}: neither a setting of wizards ({', '.join(DEFAULTS)}) nor one of Quart"


def check(config: Mapping[str, Any]) -> Store:
    """Raise StartError at the first setting of a Quart config that is unusable; return the URL's store."""
    for key, (low, high) in BOUNDS.items():
        value = config[key]
        if type(value) is not int or not low <= value <= high:  # bool is a subclass of int
            raise _refusal(key, f"{value!r} is not a whole number from {low:,} to {high:,}")
    if config["LOG_FORMAT"] not in LOG_FORMATS:
        raise _refusal("LOG_FORMAT", f"{config['LOG_FORMAT']!r} is neither of {', '.join(LOG_FORMATS)}")
    try:
        return make_store(str(config["DATABASE_URL"]))
    except StorageError as error:
        raise _refusal("DATABASE_URL", str(error)) from None


def _refusal(key: str, why: str) -> StartError:
    return StartError(f"{PREFIX}_{key}: {why}")
