"""The idle timeout of a connection, without a task or a timer for each request."""

import asyncio
import math
from typing import TYPE_CHECKING, Any

from hypercorn.asyncio.worker_context import AsyncioSingleTask

if TYPE_CHECKING:
    from wizards.server.connections import Connection


class IdleTimer(AsyncioSingleTask):
    """Closes a connection that has been idle for `keep_alive_timeout`; in place of Hypercorn's task for it.

    Hypercorn starts a task whenever a connection becomes idle. That task can close the connection just
    after a request was read: the append is committed, and its response is lost. Here one timer is armed for a
    connection, and looks at `until` when it fires: to be busy or idle again costs an assignment.
    """

    def __init__(self, connection: "Connection") -> None:
        self.until = math.inf  # busy; otherwise when it will have been idle for too long, by the loop's clock
        self._connection = connection
        self._handle: asyncio.Handle | None = None  # type: ignore[assignment]
        self._has_ended = False

    def mark_busy(self) -> None:
        """Keep the connection open until `mark_idle` is called."""
        self.until = math.inf

    def mark_idle(self) -> None:
        """Restart the idle timer; close at once if the server is terminated."""
        connection = self._connection
        self.until = connection.loop.time() + connection.config.keep_alive_timeout
        if connection.context.terminated.is_set():
            self.expire()
        elif self._handle is None:
            self._arm()

    def expire(self) -> None:
        """Close the connection now if it is idle."""
        if self.until < math.inf:
            self.until = -math.inf
            self._disarm()
            self._arm()

    def end(self) -> None:
        """Leave the connection alone from now on: it ends by itself."""
        self._has_ended = True
        self._disarm()

    async def restart(self, task_group: Any, action: Any) -> None:  # noqa: ARG002  # Hypercorn's interface
        """Mark the connection idle."""
        self.mark_idle()

    async def stop(self) -> None:
        """Mark the connection busy."""
        self.mark_busy()

    def _disarm(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def is_over(self) -> bool:
        """Whether the connection has been idle for too long."""
        return self.until <= self._connection.loop.time()

    def _arm(self) -> None:
        if self._has_ended:
            return
        if self.is_over():
            self._connection.close_if_idle()
        else:
            self._handle = self._connection.loop.call_at(self.until, self._fire)

    def _fire(self) -> None:
        self._handle = None
        if self.until < math.inf:
            self._arm()
