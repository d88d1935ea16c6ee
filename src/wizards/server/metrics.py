"""The application's gauges, sent to statsd beside what Hypercorn sends."""

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress

from hypercorn.statsd import StatsdLogger

from wizards.server.context import ServerContext

# In seconds; statsd passes its figures on every 10 seconds, unless told otherwise.
INTERVAL = 5


async def send_gauges(context: ServerContext, read: Callable[[], Mapping[str, int]]) -> None:
    """Send what `read` returns, at once and every INTERVAL, until the server has ceased to listen.

    Does nothing unless Hypercorn is configured for statsd.
    """
    statsd = context.config.log
    while isinstance(statsd, StatsdLogger) and not context.terminated.is_set():
        with suppress(OSError):  # an unknown host, for which Hypercorn itself fails often enough
            for name, value in read().items():
                await statsd.gauge(name, value)
        with suppress(TimeoutError):
            await asyncio.wait_for(context.terminated.wait(), INTERVAL)
