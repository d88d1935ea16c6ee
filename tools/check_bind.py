#!/usr/bin/env python3
"""Check that `make run` can listen where it is told to; Hypercorn itself would end with a traceback.

Takes the arguments of Hypercorn's command line. An address that cannot be used is named in one line.
"""

import errno
import sys
from contextlib import redirect_stdout
from io import StringIO

from hypercorn import __main__ as command_line
from hypercorn.config import Config

CHOOSE = "hoose another address: make run ARGS='--bind 127.0.0.1:8001', make dev ARGS='--port 8001'"


def check(config: Config) -> int:
    """Bind each address that has a port, as Hypercorn will, and release it; exit if that fails."""
    addresses = [*config.bind, *config.insecure_bind]
    config.insecure_bind = config.quic_bind = []
    for address in addresses:
        if address.startswith(("unix:", "fd:")):
            continue
        config.bind = [address]
        try:
            sockets = config.create_sockets()
        except OSError as error:
            is_taken = error.errno == errno.EADDRINUSE
            advice = f"Stop the program that listens there, or c{CHOOSE}" if is_taken else f"C{CHOOSE}"
            sys.exit(f"{address}: {error.strerror}. {advice}")
        for sock in (*sockets.secure_sockets, *sockets.insecure_sockets):
            sock.close()
    return 0


if __name__ == "__main__":
    command_line.run = check  # type: ignore[attr-defined]
    sys.argv[0] = "hypercorn"
    with redirect_stdout(StringIO()):  # Hypercorn itself prints its --help
        command_line.main()
