"""Settings: their sources, and the error for a bad value."""

import pytest

from support.clients import fresh_client
from wizards import create_app
from wizards.config import StartError


def test_precedence_of_sources(monkeypatch: pytest.MonkeyPatch) -> None:
    """An argument overrides the environment, and the environment overrides the default."""
    monkeypatch.setenv("WIZARDS_DATABASE_URL", "sqlite://")
    monkeypatch.setenv("WIZARDS_MAX_WIZARDS", "7")
    monkeypatch.setenv("WIZARDS_MAX_NAME_LENGTH", "9")
    monkeypatch.setenv("WIZARDS_SERVICE_HOST", "set by Kubernetes, not a setting of ours")
    config = create_app({"MAX_NAME_LENGTH": 8}).config
    assert (config["MAX_WIZARDS"], config["MAX_NAME_LENGTH"], config["MAX_WAITING"]) == (7, 8, 10_000)


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:"])
async def test_list_in_memory(url: str) -> None:
    """Both URLs of a list in memory work."""
    async with fresh_client(DATABASE_URL=url) as client:
        assert "Luna" in (await client.get("/wizards?name=Luna")).text
        assert "Luna" in (await client.get("/wizards")).text


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("MAX_WIZARDS", "many", "'many' is not a whole number from 3 to 10,000,000"),
        ("MAX_WIZARDS", "2", "2 is not a whole number from 3 to 10,000,000"),
        ("MAX_NAME_LENGTH", "2.5", "2.5 is not a whole number from 1 to 10,000"),
        ("MAX_WAITING", "true", "True is not a whole number from 1 to 1,000,000"),
        ("MAX_WAITING", "", "'' is not a whole number from 1 to 1,000,000"),
        ("DATABASE_URL", "wizards.db:secret", "the value is no database URL; it may be sqlite:///FILE, "),
        ("LOG_FORMAT", "xml", "'xml' is neither of text, json"),
        ("DATABASE_URL", "mysql://u:secret@h/d", "mysql:// is not supported; it may be sqlite:///FILE, "),
    ],
)
def test_bad_setting_is_named(monkeypatch: pytest.MonkeyPatch, name: str, value: str, message: str) -> None:
    """The error for a bad value has the variable, the value without secrets, and the allowed values."""
    monkeypatch.setenv(f"WIZARDS_{name}", value)
    with pytest.raises(StartError) as raised:
        create_app()
    assert str(raised.value).startswith(f"WIZARDS_{name}: {message}")
    assert "secret" not in str(raised.value)
    assert "\n" not in str(raised.value)
