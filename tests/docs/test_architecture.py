"""The wings of the source import each other in one direction only."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.servers import ROOT

SOURCE = ROOT / "src" / "wizards"

# What each wing may import of the package. The root's modules are app, asgi and config.
ALLOWED = {
    "core": {"core", "storage.base"},
    "storage": {"storage"},
    "server": {"server"},
    "web": {"web", "core"},
    "config": {"storage"},
    "app": {"config", "core", "server", "storage", "web"},
    "asgi": {"app", "config", "server"},
    "__init__": {"app", "config"},
}
FORBIDDEN = {
    "core": {"quart", "werkzeug", "hypercorn", "sqlite3", "psycopg"},
    "storage": {"quart", "werkzeug", "hypercorn"},
    "server": {"quart", "werkzeug"},
}


def imports(file: Path) -> Iterator[str]:
    """Yield the modules that a file imports."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: a relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("file", sorted(SOURCE.rglob("*.py")), ids=lambda file: str(file.relative_to(SOURCE)))
def test_imports_run_in_one_direction(file: Path) -> None:
    """Each module imports only the wings that ALLOWED gives its own, and core no framework and no driver."""
    wing = file.relative_to(SOURCE).parts[0].removesuffix(".py")
    for name in imports(file):
        package, _, rest = name.partition(".")
        if package == "wizards":
            assert any(f"{rest}.".startswith(f"{allowed}.") for allowed in ALLOWED[wing]), name
        else:
            assert package not in FORBIDDEN.get(wing, ()), name
