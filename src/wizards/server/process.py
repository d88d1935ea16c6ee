"""What is done in a process that Hypercorn's command line started for one server, and in no other.

- A worker ignores SIGTERM: the master sends it to the other workers when the first one has ended, and they
  have been told to stop in another way. A worker whose master was killed stops.
- Once the list is closed a further signal changes neither the exit status nor the log.
- The log says nothing that clients cause at will (see `logs`).
"""

import asyncio
import logging
import multiprocessing
import signal
import sys
import threading

from hypercorn.asyncio import run

from wizards.server import logs
from wizards.server.shutdown import ServerContext

logger = logging.getLogger(__name__)


def is_command_line() -> bool:
    """Return whether the running event loop was started by Hypercorn's command line, or by its master."""
    starters = {run.asyncio_worker.__code__, run.uvloop_worker.__code__}
    frame = sys._getframe()  # noqa: SLF001  # no public function walks the stack without reading source files
    while frame.f_back is not None and frame.f_code not in starters:
        frame = frame.f_back
    return frame.f_code in starters and threading.current_thread() is threading.main_thread()


def take_over(context: ServerContext, log_format: str) -> None:
    """Look after the process of this server."""
    context.owns_process = True
    logging.getLogger("asyncio").addFilter(logs.drop_noise)
    logs.format_hypercorn(context.config.log, log_format)
    master = multiprocessing.parent_process()
    if master is not None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        asyncio.get_running_loop().add_reader(master.sentinel, _on_parent_exit, context, master.sentinel)


def finish() -> None:
    """Ignore further signals: nothing is left to be done but to end."""
    logging.getLogger("asyncio").removeFilter(logs.drop_noise)
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().remove_signal_handler(number)
        signal.signal(number, signal.SIG_IGN)


def _on_parent_exit(context: ServerContext, sentinel: int) -> None:
    loop = asyncio.get_running_loop()
    loop.remove_reader(sentinel)
    logger.warning("The master is gone, so this worker ends.")
    context.tasks.add(loop.create_task(context.terminate.set()))
