"""Run Granian on an inherited socket: `python -m bench.granian_on_fd FD MODULE:APP`.

Granian's own command only binds addresses. All other settings are those of `granian --interface asgi
--workers 1`.
"""

import sys

from granian import Granian
from granian.net import SocketHolder  # type: ignore[attr-defined, unused-ignore]

UNIX, BACKLOG = False, 2048


class GranianOnSocket(Granian):  # type: ignore[misc, valid-type, unused-ignore]
    """A Granian server that inherits its listening socket."""

    def _init_shared_socket(self) -> None:
        self._sfd = int(sys.argv[1])
        self._shd = SocketHolder(self._sfd, UNIX, BACKLOG)  # type: ignore[call-arg, unused-ignore]
        self._ssp = self._sso = None


if __name__ == "__main__":
    GranianOnSocket(sys.argv[2], interface="asgi", workers=1, log_enabled=False).serve()  # type: ignore[arg-type, unused-ignore]
