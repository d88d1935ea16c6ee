"""The package: the wheel and the sdist of `make build`, installed without the checkout."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tarfile
import zipfile
from contextlib import closing
from email import message_from_bytes
from http.client import HTTPConnection
from pathlib import Path

import pytest
from hypercorn.config import Config

from support.servers import ROOT
from wizards.storage.urls import DRIVER

IMPORT = "import wizards; print(wizards.__file__)"
BUILD = "from flit_core import buildapi as b; print(b.build_wheel({0!r})); print(b.build_sdist({0!r}))"


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Build a wheel and an sdist as `make build` does."""
    folder = tmp_path_factory.mktemp("dist")
    done = subprocess.run(
        [sys.executable, "-c", BUILD.format(str(folder))],
        cwd=ROOT,
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    wheel, sdist = done.stdout.split()
    return folder / wheel, folder / sdist


@pytest.fixture
def environment(built: tuple[Path, Path], tmp_path: Path) -> Path:
    """Install the wheel into a fresh environment and return the folder of its programs.

    No network is needed: pip comes from the tests' environment, and a .pth file adds the packages of that
    environment after the fresh ones. The project itself, which is installed there as another .pth file, is
    not added, because Python does not read .pth files in added folders.
    """
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "fresh"], check=True)
    python = tmp_path / "fresh" / "bin" / "python"
    install = ["install", "--quiet", "--no-deps", "--no-index", "--disable-pip-version-check"]
    subprocess.run([sys.executable, "-m", "pip", "--python", python, *install, built[0]], check=True)
    (ours,) = (tmp_path / "fresh" / "lib").glob("python*/site-packages")
    shared = Path(pytest.__file__).parent.parent
    (ours / "shared.pth").write_text(f"{shared}\n")
    (tmp_path / "empty").mkdir()
    return python.parent


def clean_environment() -> dict[str, str]:
    return {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "WIZARDS_"))}


def run_python(environment: Path, code: str) -> str:
    done = subprocess.run(
        [environment / "python", "-c", code],
        cwd=environment,
        env=clean_environment(),
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    return done.stdout.strip()


def test_serves_from_the_wheel(environment: Path, tmp_path: Path) -> None:
    """`hypercorn 'wizards:create_app()'` in an empty folder serves the list from the installed wheel."""
    assert Path(run_python(environment, IMPORT)).is_relative_to(tmp_path / "fresh")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        bind = ["--bind", f"fd://{listener.fileno()}", "--workers", "0"]
        process = subprocess.Popen(
            [environment / "python", "-m", "hypercorn", *bind, "wizards:create_app()"],
            cwd=tmp_path / "empty",
            env=clean_environment(),
            stderr=subprocess.PIPE,
            pass_fds=(listener.fileno(),),
            text=True,
        )
        with process:
            try:
                assert "Hello Luna is a wizard" in ask(listener.getsockname()[1], "/wizards?name=Luna")
            finally:
                process.terminate()
            assert "Traceback" not in process.communicate()[1]
    assert process.returncode == 0
    assert (tmp_path / "empty" / "wizards.db").exists()


def ask(port: int, target: str) -> str:
    with closing(HTTPConnection("127.0.0.1", port, timeout=30)) as connection:
        connection.request("GET", target)
        return connection.getresponse().read().decode()


def test_wheel_is_complete(built: tuple[Path, Path]) -> None:
    """The wheel holds exactly the modules, `py.typed` and the licence."""
    with zipfile.ZipFile(built[0]) as wheel:
        names = set(wheel.namelist())
    source = ROOT / "src"
    sources = {
        str(path.relative_to(source)) for path in source.rglob("*") if path.suffix in {".py", ".typed"}
    }
    assert "wizards/py.typed" in sources
    extra = {name.partition(".dist-info/")[2] for name in names - sources}
    assert sources <= names
    assert extra == {"METADATA", "RECORD", "WHEEL", "licenses/LICENSE"}


def test_metadata_is_complete(built: tuple[Path, Path]) -> None:
    """The metadata describe the package, its requirements and its extras; one asks for what a hint names."""
    with zipfile.ZipFile(built[0]) as wheel:
        (name,) = (name for name in wheel.namelist() if name.endswith("METADATA"))
        metadata = message_from_bytes(wheel.read(name))
    needed = {"Name", "Version", "Summary", "License-Expression", "License-File", "Requires-Python"}
    needed |= {"Keywords", "Classifier", "Requires-Dist", "Provides-Extra", "Description-Content-Type"}
    assert needed <= set(metadata.keys())
    assert metadata["Description-Content-Type"] == "text/markdown"
    assert str(metadata.get_payload()).startswith("# wizards\n")
    assert set(metadata.get_all("Provides-Extra", [])) == {"h3", "postgresql"}
    extra = [line for line in metadata.get_all("Requires-Dist", []) if "psycopg" in line]
    assert len(extra) == 1
    assert extra[0].startswith(DRIVER)
    assert 'extra == "postgresql"' in extra[0].replace("'", '"')
    version = metadata["Version"]
    assert f"## [{version}]" in (ROOT / "CHANGELOG.md").read_text()


def test_sdist_is_complete(built: tuple[Path, Path]) -> None:
    """The sdist holds everything to build the wheel, and the files that its README links to."""
    with tarfile.open(built[1]) as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames()}
    links = re.findall(r"\]\((?!https?:)([^)#]+)", (ROOT / "README.md").read_text())
    assert set(links) <= names
    assert {"pyproject.toml", "README.md", "LICENSE", "src/wizards/py.typed"} <= names


def test_containerfile(tmp_path: Path) -> None:
    """What the Containerfile copies is enough to build the package and to run its command."""
    text = (ROOT / "Containerfile").read_text()
    for copied in re.findall(r"^COPY (.+)$", text, re.MULTILINE):
        *sources, target = copied.split()
        for source in sources:
            place = tmp_path / target / ("" if (ROOT / source).is_dir() else Path(source).name)
            place.parent.mkdir(parents=True, exist_ok=True)
            (shutil.copytree if (ROOT / source).is_dir() else shutil.copy)(ROOT / source, place)
    build = BUILD.format(str(tmp_path / "dist"))
    (tmp_path / "dist").mkdir()
    subprocess.run([sys.executable, "-c", build], cwd=tmp_path, check=True)
    command = json.loads(text.rpartition("CMD ")[2])
    assert Config.from_toml(tmp_path / command[command.index("--config") + 1]).bind
    assert command[-1] == "wizards.asgi:app"
