"""What a newcomer tries first works, or fails with one line that says what to do."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from support import postgresql
from support.servers import ROOT

OF_AN_OUTER_MAKE = {"ARGS", "MAKEFLAGS", "MAKELEVEL", "MAKEOVERRIDES", "MFLAGS", "PYTHON", "VENV"}
ENVIRONMENT = {key: value for key, value in os.environ.items() if key not in OF_AN_OUTER_MAKE}
ENVIRONMENT |= {"WIZARDS_DATABASE_URL": "sqlite://"}


def make(*arguments: str, folder: Path = ROOT, **environment: str) -> tuple[int, str]:
    """Run make and return its exit status and everything that it printed."""
    done = subprocess.run(
        ["make", *arguments],
        cwd=folder,
        env=ENVIRONMENT | environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
        text=True,
    )
    return done.returncode, done.stdout


@pytest.fixture
def venv(tmp_path: Path) -> Path:
    """Return the environment of the tests as one that make has set up and that a test may change."""
    folder = tmp_path / "venv"
    folder.mkdir()
    for part in ("bin", "lib", "pyvenv.cfg"):
        (folder / part).symlink_to(Path(sys.prefix) / part)
    (folder / "installed").touch()
    return folder


# --- make run. ---


def test_taken_port(venv: Path) -> None:
    """`make run` on a port that is taken names the port and says what to do, without a traceback."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        status, output = make("run", f"VENV={venv}", f"ARGS=--bind {address}")
    assert status == 2
    line, of_make = output.splitlines()
    assert line.startswith(f"{address}: Address already in use. Stop the program that listens there, or ")
    assert of_make.startswith("make: *** [")


@pytest.fixture
def _sighup_ends_programs() -> Iterator[None]:
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # `nohup make test` has it ignored
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.usefixtures("_sighup_ends_programs")
def test_server_ends_with_its_terminal(venv: Path) -> None:
    """A closing terminal ends the server, also if make is all that it runs, as in `ssh -t HOST make run`."""
    terminal, end = os.openpty()
    with subprocess.Popen(
        ["setsid", "--ctty", "make", "run", f"VENV={venv}", "ARGS=--bind 127.0.0.1:0"],
        cwd=ROOT,
        env=ENVIRONMENT,
        stdin=end,
        stdout=end,
        stderr=end,
    ) as process:
        os.close(end)
        try:
            output = b""
            while not (found := re.search(rb"Running on http://127.0.0.1:(\d+)", output)):
                output += os.read(terminal, 4096)
            os.close(terminal)
            process.wait(30)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", int(found[1])))


# --- The set-up. ---


def test_interrupted_set_up_begins_again(tmp_path: Path) -> None:
    """What an interrupted set-up left behind, or one that lacked Debian's python3-venv, is replaced."""
    venv = tmp_path / "venv"
    (venv / "bin").mkdir(parents=True)
    shutil.copy(shutil.which("true") or "", venv / "bin" / "python")
    (venv / "pyvenv.cfg").touch()
    with subprocess.Popen(["true"]) as ended:
        (venv / "unfinished").write_text(f"{ended.pid}\n")
    status, output = make(f"VENV={venv}", f"PYTHON={sys.executable}", f"{venv}/pyvenv.cfg")
    assert status == 0, output
    assert subprocess.check_output([venv / "bin" / "python", "-m", "pip", "--version"])
    assert not (venv / "unfinished").exists()


def test_set_up_of_another_make_is_left_alone(venv: Path) -> None:
    """Two makes do not set up the same environment at once."""
    (venv / "unfinished").write_text(f"{os.getpid()}\n")
    status, output = make("install", f"VENV={venv}")
    assert status == 2
    assert output.startswith(f"Another make is setting up {venv}; try again when it is done.\n")
    assert (venv / "installed").exists()


def test_chosen_python_replaces_another(venv: Path) -> None:
    """`PYTHON=` sets up an environment of another version again, and one of the same version only once."""
    assert "Nothing to be done" in make("-n", "install", f"VENV={venv}", f"PYTHON={sys.executable}")[1]
    (venv / "bin").unlink()
    (venv / "bin").mkdir()
    shutil.copy(shutil.which("true") or "", venv / "bin" / "python")
    assert "Nothing to be done" in make("-n", "install", f"VENV={venv}")[1]
    assert f"rm -rf {venv}" in make("-n", "install", f"VENV={venv}", f"PYTHON={sys.executable}")[1]


def test_missing_python(venv: Path) -> None:
    """`PYTHON=` with a Python that is not installed says so, and leaves the environment as it is."""
    status, output = make("install", f"VENV={venv}", "PYTHON=python3.99")
    assert status == 2
    assert output.startswith("python3.99 is not installed; ")
    assert (venv / "installed").exists()


def test_any_path_in_any_locale(tmp_path: Path) -> None:
    """A checkout whose path is not ASCII works with `LC_ALL=C`.

    No network is needed: the requirements are left out, and a .pth file adds the packages of the tests.
    """
    checkout = tmp_path / "zauberer-für-alle"
    shutil.copytree(ROOT / "src", checkout / "src")
    for name in ("Makefile", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, checkout)
    (checkout / "requirements").mkdir()
    (checkout / "requirements" / "run.txt").touch()
    chosen = f"PYTHON={sys.executable}"
    assert make(".venv/pyvenv.cfg", chosen, folder=checkout, LC_ALL="C")[0] == 0
    (packages,) = (checkout / ".venv" / "lib").glob("python*/site-packages")
    (packages / "shared.pth").write_text(f"{Path(pytest.__file__).parent.parent}\n")
    status, output = make("install", chosen, folder=checkout, LC_ALL="C", PIP_NO_INDEX="1")
    assert status == 0, output
    found = subprocess.check_output(
        [checkout / ".venv" / "bin" / "python", "-c", "import wizards; print(ascii(wizards.__file__))"],
        env={"LC_ALL": "C"},
        text=True,
    )
    assert found == f"{str(checkout / 'src' / 'wizards' / '__init__.py')!a}\n"


@pytest.mark.parametrize("target", ["bench", "soak"])
def test_help_needs_nothing(tmp_path: Path, target: str) -> None:
    """`make bench ARGS=--help` and `make soak ARGS=--help` answer without installing anything."""
    without_packages = f"PYTHON={sys.executable} -S"
    status, output = make(target, "ARGS=--help", without_packages, f"VENV={tmp_path}/venv")
    assert status == 0
    assert output.startswith(f"usage: make {target} ARGS=... [-h]")
    assert not (tmp_path / "venv").exists()


# --- make test: PostgreSQL, which root runs as another user. ---


@pytest.mark.parametrize("parent", ["closed", "long" * 25])
def test_postgresql_finds_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, parent: str) -> None:
    """PostgreSQL runs although no other user may enter TMPDIR, or its path is too long for a socket."""
    (tmp_path / parent).mkdir(mode=0o700)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / parent))
    with postgresql.run_postgresql() as server:
        assert server.execute("SELECT 1") == "1"
    assert not list((tmp_path / parent).iterdir())


def test_postgresql_is_copied_from_a_closed_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Programs that are installed where no other user may enter, as in root's home, run all the same."""
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    installed = postgresql.find_programs().parents[1]
    for folder in (installed, installed.with_name(f"{installed.name}.libs")):
        (closed / folder.name).symlink_to(folder)
    monkeypatch.syspath_prepend(closed)
    programs = postgresql.find_programs.__wrapped__()
    subprocess.run([programs / "postgres", "--version"], user=postgresql.USER, cwd="/", check=True)


def test_postgresql_says_why_it_fails(postgresql: postgresql.PostgreSQL) -> None:
    """What a program of PostgreSQL's says when it fails is in the error."""
    with pytest.raises(OSError, match=r"initdb failed: .*is not empty"):
        postgresql._run("initdb")
