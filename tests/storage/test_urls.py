"""Database URLs: which are taken, and what messages show of them."""

import os
import re
import sys
from pathlib import Path

import pytest

from support.stores import append_names, make_store
from wizards.storage.base import StorageError
from wizards.storage.urls import DRIVER


@pytest.mark.parametrize("name", ["w%20x.db", "file:w.db", "a#b.db", "a b;c.db", "é.db", ":memory:.db"])
async def test_path_is_taken_as_it_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Nothing in a path is decoded or has a meaning; messages show the absolute path as it is."""
    monkeypatch.chdir(tmp_path)
    for url in (f"sqlite:///{name}", f"sqlite:///{tmp_path}/{name}"):
        store = make_store(url)
        await store.open()
        await append_names(store, "Luna")
        await store.close()
        assert store.where == f"{tmp_path}/{name}"
        assert os.listdir(tmp_path) == [name]  # noqa: PTH208  # quick


@pytest.mark.parametrize(
    "url", ["sqlite:///what?.db", "sqlite:///w.db?mode=ro", "sqlite:///", "sqlite://w.db"]
)
def test_url_without_a_file_is_refused(url: str) -> None:
    """A query is refused instead of cut off, and a URL with a host, or with nothing, names no file."""
    with pytest.raises(StorageError, match="names no file; it may be sqlite:///FILE, "):
        make_store(url)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://merlin@a:5432,b,c:5434/wizards", "postgresql://merlin@a,b,c/wizards"),
        ("postgres://merlin@[::1]:5433/wizards", "postgresql://merlin@[::1]:5433/wizards"),
        ("postgresql:///wizards?host=a,b&port=5432,5433", "postgresql://a,b/wizards"),
        ("postgresql://db/wizards?connect_timeout=3&keepalives_idle=30", "postgresql://db/wizards"),
        ("postgresql://db/wizards?gssencmode=disable&channel_binding=prefer", "postgresql://db/wizards"),
        (
            "postgresql://db/wizards?target_session_attrs=primary&tcp_user_timeout=9",
            "postgresql://db/wizards",
        ),
        ("postgresql://merlin:secret@db/wizards", "postgresql://merlin@db/wizards"),
        ("postgresql://merlin:se?cret@db/wizards", "postgresql://merlin@db/wizards"),
        ("postgresql://merlin:secret@secret@db/wizards", "postgresql://merlin@db/wizards"),
        ("postgresql://db/wizards?user=merlin&password=secret", "postgresql://merlin@db/wizards"),
        ("postgresql://db/wizards?password=x@secret", "postgresql://db/wizards"),
        ("postgresql://", "postgresql:///"),
    ],
)
def test_url_of_libpq_is_taken(url: str, shown: str) -> None:
    """Any URL that libpq takes names a store; messages show its user, its hosts and its database."""
    assert make_store(url).where == shown


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("postgresql://u:sec%ret@h/secret", "is no URL that PostgreSQL takes: check its user, password and "),
        ("postgresql://u:secret@h/d?sslmod=1", 'takes: invalid URI query parameter: "sslmod"'),
        ("mysql://u:secret@h/d", "mysql:// is not supported; it may be sqlite:///FILE, "),
        ("secret", "the value is no database URL; it may be sqlite:///FILE, "),
        ("user:secret://h", "the value is no database URL; it may be sqlite:///FILE, "),
    ],
)
def test_refusal_holds_no_secret(url: str, message: str) -> None:
    """A refused URL is not repeated: any part of it may be a password."""
    with pytest.raises(StorageError) as raised:
        make_store(url)
    assert message in str(raised.value)
    assert "secret" not in str(raised.value)
    assert "\n" not in str(raised.value)


def test_missing_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without its driver a PostgreSQL URL is refused with the command that installs one, from any folder."""
    monkeypatch.delitem(sys.modules, "wizards.storage.postgresql", raising=False)
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(
        StorageError, match=rf"PostgreSQL needs a driver: pip install '{re.escape(DRIVER)}' \("
    ):
        make_store("postgresql://db/wizards")
