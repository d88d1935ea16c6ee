"""The log: one format with the process id, text or JSON, in which clients can forge and flood nothing.

Set up are our own logger, and Hypercorn's two if its command line started the process.
"""

import asyncio
import json
import logging
import logging.config
import time
from collections import UserDict
from typing import Any

from hypercorn.logging import Logger

logger = logging.getLogger(__name__)

# Hypercorn's own format.
TEXT = {
    "format": "%(asctime)s [%(process)d] [%(levelname)s] %(message)s",
    "datefmt": "[%Y-%m-%d %H:%M:%S %z]",
}

# What asyncio logs, and any client could cause.
NOISE = (
    "socket.send() raised exception",  # an answer to a client that has reset its connection
    "SSL connection is closed",  # the same over TLS
    "client_connected_cb",  # a connection that ended by an exception
    "_start_serving",  # a listening socket that was closed before the next attempt to accept
    "_accept_connection",  # a listening socket that another worker has shut down
)
SHORTAGE_INTERVAL = 60.0  # in seconds


class JSONFormatter(logging.Formatter):
    """One JSON object a line: time, level, process, logger, message, and error where there is one."""

    converter = staticmethod(time.gmtime)
    default_time_format = "%Y-%m-%dT%H:%M:%S"
    default_msec_format = "%s.%03dZ"

    def format(self, record: logging.LogRecord) -> str:
        """Return the record's line."""
        line = {
            "time": self.formatTime(record),
            "level": record.levelname,
            "process": record.process,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps(line)


FORMATS: dict[str, Any] = {"text": TEXT, "json": {"()": JSONFormatter}}


def configure(name: str, log_format: str) -> None:
    """Give the logger `name` a handler to standard error, unless the host has set up logging."""
    if logging.getLogger(name).hasHandlers():
        return
    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "formatters": {"wizards": FORMATS[log_format]},
            "handlers": {"wizards": {"class": "logging.StreamHandler", "formatter": "wizards"}},
            "loggers": {name: {"handlers": ["wizards"]}},
        }
    )


def drop_noise(record: logging.LogRecord) -> bool:
    """Let a record of asyncio's pass unless any client could cause it."""
    text, error = str(record.msg), record.exc_info[1] if record.exc_info else None
    if "out of system resource" in text:
        _warn_of_shortage(error)
        return False
    return not isinstance(error, asyncio.CancelledError) and not any(words in text for words in NOISE)


def _warn_of_shortage(error: BaseException | None) -> None:
    now = time.monotonic()
    if now >= _next_warning[0]:
        _next_warning[0] = now + SHORTAGE_INTERVAL
        logger.warning("No more connections: %s. New ones wait; see LimitNOFILE.", error)


_next_warning = [0.0]


class PrintableAtoms(UserDict[str, Any]):
    """The parts of an access log's line, with escapes for all characters that do not print.

    Hypercorn logs paths decoded: `/%0A` began a new line, in which a client could write what it liked.
    """

    def __init__(self, atoms: dict[str, Any]) -> None:
        self.data = atoms  # not copied, as Hypercorn's dictionary makes parts on demand

    def __getitem__(self, key: str) -> Any:
        value = self.data[key]
        if isinstance(value, str) and not value.isprintable():
            return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in value)
        return value


def protect_access_log(log: Logger) -> None:
    """Let no client write a line of its own into this server's access log."""
    release_access_log(log)
    atoms = log.atoms
    log.atoms = lambda *args: PrintableAtoms(atoms(*args))  # type: ignore[method-assign, arg-type]


def release_access_log(log: Logger) -> None:
    """Undo `protect_access_log`."""
    vars(log).pop("atoms", None)


def format_hypercorn(log: Logger, log_format: str) -> None:
    """Give Hypercorn's own handlers the format, which is theirs already if it is text."""
    for hypercorn in (log.access_logger, log.error_logger):
        if log_format == "json" and hypercorn is not None:
            for handler in hypercorn.handlers:
                handler.setFormatter(JSONFormatter())
