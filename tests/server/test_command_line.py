"""Hypercorn's command line: its workers, its reloader and its log."""

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from support.servers import ROOT, Server, run_module


def require(module: str) -> None:
    """Skip a test that needs a module that is not there; in CI it is there."""
    if "CI" not in os.environ:
        pytest.importorskip(module)


def test_reload(tmp_path: Path) -> None:
    """With --reload a changed file gets new workers, and the list goes on."""
    source = tmp_path / "served.py"
    source.write_text("from wizards.asgi import app\n")
    command = ["hypercorn", "--config", str(ROOT / "hypercorn.toml"), "--reload", "--bind", "127.0.0.1:0"]
    with run_module([*command, str(source)], f"sqlite:///{tmp_path}/w.db") as process:
        assert process.stdout is not None
        lines = iter(process.stdout.readline, "")
        for name in ("Luna", "Ginny"):
            port = next(line for line in lines if "Running on" in line).split(":")[-1].split()[0]
            page = httpx.get(f"http://127.0.0.1:{port}/wizards?name={name}").text
            later = source.stat().st_mtime + 10
            os.utime(source, (later, later))
        assert "Luna" in page
        assert "Running on" in next(line for line in lines if "Running on" in line)
        process.send_signal(signal.SIGTERM)
        rest = process.communicate(timeout=20)[0]
    assert process.returncode == 0
    assert "Traceback" not in rest


@pytest.mark.parametrize("workers", ["0", "2"])
def test_trio(tmp_path: Path, workers: str) -> None:
    """The worker class trio ends with one clear line for each worker."""
    require("trio")
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "hypercorn",
            "-k",
            "trio",
            "--workers",
            workers,
            "--bind",
            "127.0.0.1:0",
            "asgi:app",
        ],
        cwd=ROOT,
        env={**os.environ, "WIZARDS_DATABASE_URL": f"sqlite:///{tmp_path}/w.db"},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    lines = set(done.stderr.splitlines())
    assert lines == {"wizards runs on asyncio: choose Hypercorn's worker class asyncio or uvloop, not trio."}
    assert done.returncode == (workers == "0")  # a master ends with 0, whatever its workers end with


def test_uvloop(tmp_path: Path) -> None:
    """The worker class uvloop serves, and stops as any other."""
    require("uvloop")
    with Server(tmp_path, options=("-k", "uvloop")) as server:
        assert httpx.get(server.base_url + "/wizards?name=Luna").text.count("Luna") == 1
        assert server.stop() == 0
    assert server.output().endswith("The list is closed.\n")


@pytest.mark.parametrize("workers", [0, 2])
def test_readiness(tmp_path: Path, workers: int) -> None:
    """Systemd is told when a server listens."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        notify.bind(str(tmp_path / "notify"))
        notify.settimeout(30)
        with Server(tmp_path, workers=workers, settings={"NOTIFY_SOCKET": f"{tmp_path}/notify"}) as server:
            assert notify.recv(100) == b"READY=1"
            server.stop()


@pytest.mark.parametrize("workers", [0, 2])
def test_json_log(tmp_path: Path, workers: int) -> None:
    """With WIZARDS_LOG_FORMAT=json each line of all loggers is a JSON object that names its process."""
    settings = {"WIZARDS_LOG_FORMAT": "json"}
    options = ("--access-logfile", "-")
    with Server(tmp_path, workers=workers, settings=settings, options=options) as server:
        httpx.get(server.base_url + "/wizards?name=Luna").raise_for_status()
        server.stop()
    records = [json.loads(line) for line in server.output().splitlines()]
    loggers = {record["logger"] for record in records}
    assert loggers == {"wizards.app", "hypercorn.error", "hypercorn.access"}
    assert len({record["process"] for record in records}) == max(workers, 1)
    access = next(record for record in records if record["logger"] == "hypercorn.access")
    assert access.keys() == {"time", "level", "process", "logger", "message"}
    assert '"GET /wizards 1.1" 200' in access["message"]
