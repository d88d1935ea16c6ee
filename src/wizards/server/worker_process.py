"""Process-wide setup in a worker process that Hypercorn's command line started, and in no other process.

- A start that fails is reported in one line, with status 1.
- A worker ignores SIGTERM: its master stops workers through an event, and sends SIGTERM only after the first
  one has ended. A worker whose master was killed stops.
- systemd is told when the server listens.
- Once the list is closed a further signal changes neither the exit status nor the log.
- Log records that any client can provoke are dropped, and the log has one format (see `logs`).
- Objects that the start has made are excluded from garbage collection.
"""

import asyncio
import gc
import logging
import multiprocessing
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable
from typing import Any

from hypercorn.asyncio import run
from hypercorn.utils import LifespanFailureError

from wizards.server import logs
from wizards.server.context import ServerContext

logger = logging.getLogger(__name__)


def prepare(expected: type[Exception]) -> None:
    """Report in one line a start that fails with `expected`, and the one worker that cannot serve us.

    To be called where an ASGI server imports the application.
    """
    trio = sys.modules.get("hypercorn.trio.run")
    if trio is not None and _is_called_by(trio.trio_worker):
        sys.exit("wizards runs on asyncio: choose Hypercorn's worker class asyncio or uvloop, not trio.")
    if is_command_line():
        run._run = _reporting(run._run, expected)  # noqa: SLF001  # the one function around a worker's event loop


def is_command_line() -> bool:
    """Return whether a worker of Hypercorn's command line, which owns the process, calls this."""
    is_main = threading.current_thread() is threading.main_thread()
    return is_main and _is_called_by(run.asyncio_worker, run.uvloop_worker)


def take_over(context: ServerContext, log_format: str) -> None:
    """Set up the process for this server."""
    context.owns_process = True
    logging.getLogger("asyncio").addFilter(logs.drop_noise)
    logs.format_hypercorn(context.config.log, log_format)
    gc.freeze()  # the list that has been loaded stays: scanning it again and again costs 2 % of the reads
    master = multiprocessing.parent_process()
    if master is not None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        asyncio.get_running_loop().add_reader(master.sentinel, _on_parent_exit, context, master.sentinel)


def notify_ready() -> None:
    """Tell systemd that the server listens, if it asks (`Type=notify`, see sd_notify(3))."""
    address = os.environ.get("NOTIFY_SOCKET")
    if address:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
            notify.sendto(b"READY=1", address.replace("@", "\0", 1))


def finish() -> None:
    """Ignore further signals: the process is about to exit."""
    gc.unfreeze()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().remove_signal_handler(number)
        signal.signal(number, signal.SIG_IGN)


def _is_called_by(*functions: Callable[..., Any]) -> bool:
    codes = {function.__code__ for function in functions}
    frame = sys._getframe()  # noqa: SLF001  # inspect.stack reads source files
    while frame.f_back is not None and frame.f_code not in codes:
        frame = frame.f_back
    return frame.f_code in codes


def _on_parent_exit(context: ServerContext, sentinel: int) -> None:
    loop = asyncio.get_running_loop()
    loop.remove_reader(sentinel)
    logger.warning("The master is gone, so this worker ends.")
    context.tasks.add(loop.create_task(context.terminate.set()))


def _reporting(run_loop: Callable[..., None], expected: type[Exception]) -> Callable[..., None]:
    def run_worker(*args: Any, **options: Any) -> None:
        try:
            run_loop(*args, **options)
        except LifespanFailureError as failure:
            if isinstance(failure.__context__, expected):
                raise SystemExit(str(failure.__context__)) from None
            raise

    return run_worker
