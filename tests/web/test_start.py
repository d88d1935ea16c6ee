"""The start of an application: repeated, in another event loop, with bad settings, without storage."""

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest
from quart import Quart

from support.pages import parse_page
from support.servers import ROOT
from wizards import StartError, create_app


async def _append(app: Quart, name: str) -> list[str]:
    async with app.test_app() as test_app:
        response = await test_app.test_client().get("/wizards", query_string={"name": name})
        return parse_page(await response.get_data(as_text=True))


def test_repeated_start(tmp_path: Path) -> None:
    """One application starts twice in each of two event loops, one after the other."""
    app = create_app({"DATABASE_URL": f"sqlite:///{tmp_path}/wizards.db"})

    async def twice() -> list[list[str]]:
        return [await _append(app, name) for name in ("Luna", "Ginny")]

    asyncio.run(twice())
    assert asyncio.run(twice())[1][3:] == ["Luna", "Ginny", "Luna", "Ginny"]


def test_two_apps_share_nothing() -> None:
    """Two applications in one event loop have separate lists; stopping one does not affect the other."""

    async def both() -> None:
        one, other = (create_app({"DATABASE_URL": "sqlite://"}) for _ in range(2))
        async with one.test_app():
            assert (await _append(other, "Luna"))[3:] == ["Luna"]
            response = await one.test_client().get("/wizards?name=Ginny")
            assert parse_page(await response.get_data(as_text=True))[3:] == ["Ginny"]

    asyncio.run(both())


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("WIZARDS_DATABASE_URL", "a key of create_app's config has no prefix: DATABASE_URL"),
        ("WIZARDS_SECRET_KEY", "neither a setting of wizards (DATABASE_URL, "),
        ("DATABSE_URL", "neither a setting of wizards (DATABASE_URL, "),
        ("database_url", "neither a setting of wizards (DATABASE_URL, "),
    ],
)
def test_unknown_key_is_refused(key: str, message: str) -> None:
    """A prefixed key, or one that is no setting of ours or Quart's, raises a StartError with the key."""
    with pytest.raises(StartError) as raised:
        create_app({key: "sqlite://"})
    assert str(raised.value).startswith(f"{key}: {message}")


def test_settings_of_quart_are_accepted() -> None:
    """`create_app` accepts Quart's own settings."""
    assert create_app({"DATABASE_URL": "sqlite://", "SECRET_KEY": "x"}).config["SECRET_KEY"] == "x"


@pytest.mark.parametrize("variable", ["WIZARDS_DATABSE_URL", "WIZARDS_DATABASEURL", "WIZARDS_MAX_WIZARD"])
def test_misspelt_variable_is_refused(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    """An environment variable that nearly matches a setting raises a StartError that names both."""
    monkeypatch.setenv(variable, "sqlite://")
    with pytest.raises(
        StartError, match=f"{variable}: there is no such setting; did you mean WIZARDS_[A-Z_]+"
    ):
        create_app()


async def test_unusable_storage_can_be_caught(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A start without storage raises a StartError with the setting, logs nothing and can be repeated."""
    app = create_app({"DATABASE_URL": f"sqlite:///{tmp_path}/missing/wizards.db"})
    with pytest.raises(StartError, match=r"WIZARDS_DATABASE_URL: .*missing/wizards.db cannot be used"):
        async with app.test_app():
            pytest.fail("the application started")
    with pytest.raises(StartError):
        await app.startup()
    assert not caplog.records
    (tmp_path / "missing").mkdir()
    assert (await _append(app, "Luna"))[3:] == ["Luna"]


SERVERS = [
    "hypercorn --workers 0",
    "hypercorn",
    "hypercorn --workers 2",
    "uvicorn",
    "granian --interface asgi",
]


@pytest.mark.parametrize("application", ["asgi:app", "wizards.asgi:app"])
@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize("url", ["sqlite:////missing/wizards.db", "mysql://h/d"])
def test_failed_start_on_the_command_line(server: str, application: str, url: str) -> None:
    """From the command line a failed start prints one line without a traceback and exits with 1.

    Hypercorn's master exits with 0 whatever its workers exit with. Granian and uvicorn print more lines.
    """
    done = subprocess.run(
        [sys.executable, "-m", *server.split(), application],
        cwd=ROOT,
        env={"WIZARDS_DATABASE_URL": url, "PATH": "", "PYTHONPATH": str(ROOT / "src")},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.stdout.count("WIZARDS_DATABASE_URL") >= 1
    if server.startswith("hypercorn"):
        assert "Traceback" not in done.stdout
        assert {line.split(":")[0] for line in done.stdout.splitlines()} == {"WIZARDS_DATABASE_URL"}
    if server in ("hypercorn --workers 0", "uvicorn"):
        assert done.returncode != 0
