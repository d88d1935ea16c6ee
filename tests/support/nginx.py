"""A real nginx in front of a server."""

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

# One process in the foreground, which keeps all its files in one folder.
SETTINGS = """
daemon off;
master_process off;
pid {folder}/nginx.pid;
error_log {folder}/nginx.log;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    {blocks}
}}
"""


@contextmanager
def run_nginx(folder: Path, blocks: str) -> Iterator[Path]:
    """Start nginx with `blocks` in its http block; yield the Unix socket where it listens.

    The blocks say where it listens as LISTEN.
    """
    program = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
    if program is None:
        stop = pytest.fail if os.environ.get("CI") else pytest.skip
        stop("this test needs nginx: apt-get install nginx-light")
    path, settings = folder / "nginx.socket", folder / "nginx.conf"
    settings.write_text(SETTINGS.format(folder=folder, blocks=blocks.replace("LISTEN", f"unix:{path}")))
    with subprocess.Popen([program, "-e", folder / "nginx.log", "-c", settings]) as process:
        latest = time.monotonic() + 30
        while not accepts_connections(path):
            assert process.poll() is None
            assert time.monotonic() < latest
        try:
            yield path
        finally:
            process.terminate()


def accepts_connections(path: Path) -> bool:
    """Return whether a process listens on a Unix socket."""
    with socket.socket(socket.AF_UNIX) as client:
        return client.connect_ex(str(path)) == 0
