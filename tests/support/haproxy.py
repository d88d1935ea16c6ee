"""A real haproxy in front of servers."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from support.nginx import accepts_connections


@contextmanager
def run_haproxy(folder: Path, settings: str) -> Iterator[Path]:
    """Start haproxy with `settings`, which listen at LISTEN; yield the Unix socket where it listens."""
    program = shutil.which("haproxy", path=f"{os.environ['PATH']}:/usr/sbin")
    if program is None:
        stop = pytest.fail if os.environ.get("CI") else pytest.skip
        stop("this test needs haproxy: apt-get install haproxy")
    path, file = folder / "haproxy.socket", folder / "haproxy.cfg"
    file.write_text(settings.replace("LISTEN", f"unix@{path}"))
    with subprocess.Popen([program, "-db", "-f", file], stderr=subprocess.DEVNULL) as process:
        while not accepts_connections(path):
            assert process.poll() is None
        try:
            yield path
        finally:
            process.terminate()
