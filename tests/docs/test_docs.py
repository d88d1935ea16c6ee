"""Every code block in the documents is checked by running it, or is listed here with a reason why not.

The word after the opening fence selects the check of a block. A `console` block consists of commands (`$ …`)
and their output; each command has to match a row of COMMANDS. An unknown block or command fails.
"""

import configparser
import json
import os
import re
import shlex
import shutil
import signal
import socket
import sqlite3
import ssl
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from http.client import HTTPConnection
from importlib.metadata import distribution
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import httpx
import pytest
from hypercorn.config import Config

from support.pages import GREETING
from support.postgresql import PostgreSQL, find_programs
from support.servers import ROOT, Server
from wizards import create_app
from wizards.config import BOUNDS, DEFAULTS
from wizards.storage.base import CREATE_TABLE

README, GUIDE, OPERATIONS, ARCHITECTURE, _ = DOCUMENTS = (
    ROOT / "README.md",
    ROOT / "docs" / "from-flask-to-quart.md",
    ROOT / "docs" / "operations.md",
    ROOT / "docs" / "architecture.md",
    ROOT / "SECURITY.md",
)
RUNNING = r"Running on http://127\.0\.0\.1:([1-9]\d*)"
HYPERCORN = [sys.executable, "-m", "hypercorn"]


class Block(NamedTuple):
    """A code block of a document: the words after the fence, and the text."""

    document: Path
    kind: str
    text: str


class Command(NamedTuple):
    """A command of a console block and its output."""

    line: str
    output: str


def blocks(document: Path) -> Iterator[Block]:
    for kind, text in re.findall(r"^```([^\n]*)\n(.*?)^```$", document.read_text(), re.MULTILINE | re.DOTALL):
        yield Block(document, kind, text)


def commands(block: Block) -> Iterator[Command]:
    starts = [*(found.start() for found in re.finditer(r"^\$ ", block.text, re.MULTILINE)), len(block.text)]
    assert starts[0] == 0, f"{block.document.name}: does not start with a command: {block.text}"
    for start, end in pairwise(starts):
        line, _, output = block.text[start:end].removeprefix("$ ").partition("\n")
        yield Command(line.partition("  #")[0].strip(), output)


LISTINGS = [block for block in blocks(GUIDE) if block.kind == "python app.py"]


def console(document: Path) -> Iterator[Command]:
    for block in blocks(document):
        if block.kind == "console":
            yield from commands(block)


# --- Commands. ---


class Place(NamedTuple):
    """The environment of a command: an empty folder and a PostgreSQL server."""

    folder: Path
    postgresql: PostgreSQL


def has_target(command: Command, _: Place) -> None:
    words = [word for word in shlex.split(command.line) if "=" not in word]
    assert words[0] == "make"
    assert set(words[1:]) <= set(re.findall("^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def takes_url(command: Command, place: Place) -> None:
    """Check the setting before a command, and the command."""
    setting, _, rest = command.line.partition(" ")
    name, _, value = setting.partition("=")
    create_app({name.removeprefix("WIZARDS_"): value})
    run(Command(rest, ""), place)


def has_options(command: Command, _: Place) -> None:
    """Check that Hypercorn knows the options, without starting the server."""
    known = subprocess.run([*HYPERCORN, "--help"], capture_output=True, check=True, text=True).stdout
    words = shlex.split(command.line)
    assert words[0].rpartition("/")[2] == "hypercorn"
    assert words[-1] in {"asgi:app", "app:app", "wizards.asgi:app"}
    assert {word for word in words if word.startswith("--")} <= set(re.findall("--[a-z-]+", known))


@contextmanager
def serving(folder: Path, line: str = "hypercorn app:app", output: Path = Path(os.devnull)) -> Iterator[int]:
    """Run the command in `folder` on a free port and yield the port."""
    with output.open("wb") as file, socket.create_server(("127.0.0.1", 0)) as listener:
        process = subprocess.Popen(
            [*HYPERCORN, "--bind", f"fd://{listener.fileno()}", *shlex.split(line)[1:]],
            cwd=folder,
            env={**os.environ, "WIZARDS_DATABASE_URL": f"sqlite:///{folder}/served.db"},
            stdout=file,
            stderr=file,
            pass_fds=(listener.fileno(),),
        )
        try:
            yield listener.getsockname()[1]
            process.terminate()
            assert process.wait(30) == 0
        finally:
            process.kill()


def copy_app(folder: Path) -> None:
    """Copy the files that our commands name into `folder`."""
    for name in ("asgi.py", "hypercorn.toml"):
        shutil.copy(ROOT / name, folder)


def serves(command: Command, place: Place) -> None:
    """Start the guide's app or ours and request the greeting."""
    has_options(command, place)
    copy_app(place.folder)
    (place.folder / "app.py").write_text(LISTINGS[-1].text)
    with serving(place.folder, command.line) as port:
        assert fetch(port, "/") == GREETING


def makes_certificate(command: Command, place: Place) -> None:
    """Make the certificate that the next command needs."""
    subprocess.run(shlex.split(command.line), cwd=place.folder, check=True, capture_output=True)


def serves_tls(command: Command, place: Place) -> None:
    """Serve with the certificate; a client that trusts the certificate gets HTTP/2."""
    copy_app(place.folder)
    trust = ssl.create_default_context(cafile=place.folder / "cert.pem")
    with serving(place.folder, without_bind(command.line)) as port:
        with httpx.Client(http2=True, verify=trust) as client:
            answer = client.get(f"https://localhost:{port}/")
        assert (answer.http_version, answer.status_code) == ("HTTP/2", 200)


def logs(command: Command, place: Place) -> None:
    """Serve with the access log or statsd and check the entry of a request."""
    copy_app(place.folder)
    with socket.socket(type=socket.SOCK_DGRAM) as statsd:
        statsd.bind(("127.0.0.1", 0))
        statsd.settimeout(30)
        line = command.line.replace("127.0.0.1:8125", f"127.0.0.1:{statsd.getsockname()[1]}")
        output = place.folder / "output"
        with serving(place.folder, without_bind(line), output) as port:
            fetch(port, "/wizards?name=Luna")
            if line != command.line:
                names: set[str] = set()
                while not names >= STATSD:
                    names.add(statsd.recv(999).decode().partition(":")[0])
                shown = OPERATIONS.read_text()
                assert [name for name in sorted(names) if f"`{name}`" not in shown] == [STATUS]
        assert ('"GET /wizards 1.1" 200' in output.read_text()) == ("--access-logfile" in line)


STATUS = "wizards.hypercorn.request.status.200"
STATSD = {STATUS, "wizards.hypercorn.requests", "wizards.hypercorn.request.duration"}
STATSD |= {f"wizards.{name}" for name in create_app().extensions["wizards"].feed.gauges()}


def without_bind(line: str) -> str:
    return re.sub(" --bind [^ ]+", "", line)


def counts(command: Command, place: Place) -> None:
    """Run the guide's loop against one list; its output is that of a single list."""
    (place.folder / "app.py").write_text(LISTINGS[-1].text)
    with serving(place.folder) as port:
        line = command.line.replace(":8000", f":{port}")
        done = subprocess.run(["bash", "-c", line], check=True, stdout=subprocess.PIPE, text=True)
    assert done.stdout.split() == ["1", "2", "3", "4", "5", "6"]


def backs_up_sqlite(command: Command, place: Place) -> None:
    """Back up a list while it is open; the backup is complete."""
    source = create_list(place.folder / "wizards.db")
    if shutil.which("sqlite3"):
        subprocess.run(shlex.split(command.line), cwd=place.folder, check=True)
    else:  # the same through the library behind the program
        with closing(sqlite3.connect(place.folder / "wizards.backup")) as target:
            source.backup(target)
    source.close()
    with closing(sqlite3.connect(place.folder / "wizards.backup")) as backup:
        assert backup.execute("SELECT name FROM wizards").fetchall() == [("Luna",)]


def create_list(file: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(file, isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("CREATE TABLE wizards AS SELECT 'Luna' AS name")
    return connection


def dumps_postgresql(command: Command, place: Place) -> None:
    """Dump a list from a new database."""
    url = place.postgresql.new_database()
    place.postgresql.execute(
        "CREATE TABLE wizards AS SELECT 'Luna' AS name", url.split("/")[3].partition("?")[0]
    )
    line = command.line.replace("postgresql://merlin@db/wizards", url)
    assert url in line
    subprocess.run(
        [find_programs() / "pg_dump", *shlex.split(line)[1:]],
        cwd=place.folder,
        check=True,
        capture_output=True,
    )
    assert "Luna" in (place.folder / "wizards.sql").read_text()


def restores_sqlite(command: Command, place: Place) -> None:
    """Restore the backup of the command before over a list that has gone on."""
    with closing(sqlite3.connect(place.folder / "wizards.db")) as list_in_use:
        list_in_use.execute("INSERT INTO wizards VALUES ('Draco')")
        list_in_use.commit()
    subprocess.run(["bash", "-c", command.line], cwd=place.folder, check=True)
    with closing(sqlite3.connect(place.folder / "wizards.db")) as restored:
        assert restored.execute("SELECT name FROM wizards").fetchall() == [("Luna",)]


def restores_postgresql(command: Command, place: Place) -> None:
    """Restore the dump of the command before over a table in use."""
    url = place.postgresql.new_database()
    name = place.postgresql.database_of(url)
    place.postgresql.execute("CREATE TABLE wizards AS SELECT 'Draco' AS name", name)
    line = command.line.replace("postgresql://merlin@db/wizards", url)
    assert url in line
    words = [str(find_programs() / "psql"), *shlex.split(line)[1:]]
    subprocess.run(words, cwd=place.folder, check=True, capture_output=True)
    assert place.postgresql.execute("SELECT name FROM wizards", name) == "Luna"


def is_installed(command: Command, _: Place) -> None:
    """Check that the packages are installed, without a download."""
    for name in shlex.split(command.line)[2:]:
        assert distribution("quart-wizards" if name.startswith(".") else name)


def skip(_: Command, __: Place) -> None:
    """Do nothing; the comment in COMMANDS gives the reason."""


# The first row whose pattern matches the whole command has its check.
COMMANDS: list[tuple[str, Callable[[Command, Place], None]]] = [
    ("make [a-z-]+", has_target),
    ("make run ARGS='--workers 4'", skip),  # the same as the command after it, which is checked
    ("WIZARDS_[A-Z_]+=.*", takes_url),
    (r"hypercorn (--workers 2 )?((wizards\.)?asgi|app):app", serves),
    ("openssl .*", makes_certificate),
    ("hypercorn .* --quic-bind .*", has_options),  # test_quic serves HTTP/3
    ("hypercorn .* --certfile .*", serves_tls),
    ("hypercorn .* --(access-logfile|statsd-host) .*", logs),
    ("for i in .*", counts),
    ("hypercorn .*", has_options),
    ("sqlite3 .*", backs_up_sqlite),
    ("rm -f wizards.db-wal .*", restores_sqlite),
    ("pg_dump .*", dumps_postgresql),
    ("psql .*", restores_postgresql),
    ("pip install .*", is_installed),
    ("curl .*", skip),  # test_readme_answers and test_guide compare the output
    ("(mkdir|cd|python3 -m venv|[.]|python -c|deactivate).*", skip),  # test_guide_environment
    ("quart --debug run", skip),  # uses port 5000; test_guide_hot_reload runs it on a free port
    ("systemctl .*", skip),  # needs root and systemd
]


def run(command: Command, place: Place) -> None:
    """Check one command."""
    check = next((check for pattern, check in COMMANDS if re.fullmatch(pattern, command.line)), None)
    assert check is not None, f"no check for: {command.line}"
    check(command, place)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document.name)
def test_commands(document: Path, tmp_path: Path, postgresql: PostgreSQL) -> None:
    """Every command in a document does what the document says, or is skipped here with a reason."""
    place = Place(tmp_path, postgresql)
    if os.geteuid() == 0:
        tmp_path.chmod(0o755)
    for command in console(document):
        run(command, place)


# --- Answers. ---


def fetch(port: int, target: str) -> str:
    with closing(HTTPConnection("127.0.0.1", port, timeout=30)) as connection:
        connection.request("GET", target)
        response = connection.getresponse()
        assert response.status < 500
        return response.read().decode().removesuffix("\n")


def follow(port: int, target: str, size: int) -> str:
    """Return the first `size` bytes of the list as events."""
    url, headers = f"http://127.0.0.1:{port}{target}", {"Accept": "text/event-stream"}
    with httpx.stream("GET", url, headers=headers, timeout=30) as response:
        chunks = response.iter_raw()
        received = b""
        while len(received) < size:
            received += next(chunks)
    return received.decode()


def check_answers(found: Iterator[Command], port: int) -> int:
    """Send the request of each curl command, compare the answers and return their number."""
    count = 0
    for command in found:
        words = shlex.split(command.line)
        if words[0] == "curl":
            address = urlsplit(words[-1])
            assert address.netloc == "127.0.0.1:8000"
            target = address._replace(scheme="", netloc="").geturl()
            if "-N" in words:
                assert words[:-1] == ["curl", "-N", "-H", "Accept: text/event-stream"]
                assert follow(port, target, len(command.output)) == command.output
            else:
                assert len(words) == 2
                assert fetch(port, target) == command.output.removesuffix("\n")
            count += 1
    return count


def test_readme_answers(tmp_path: Path) -> None:
    """A server answers as the README shows."""
    with Server(tmp_path) as server:
        assert check_answers(console(README), server.port) == 4


def test_readme_test(tmp_path: Path) -> None:
    """The README's example test passes with the pytest settings of this project."""
    (shown,) = (block for block in blocks(README) if block.kind == "python test_append.py")
    (tmp_path / "test_append.py").write_text(shown.text)
    options = ["--config-file", str(ROOT / "pyproject.toml"), "--rootdir", str(tmp_path)]
    command = [sys.executable, "-m", "pytest", *options, "test_append.py"]
    done = subprocess.run(command, cwd=tmp_path, check=True, stdout=subprocess.PIPE, text=True)
    assert "1 passed" in done.stdout


def test_guide(tmp_path: Path) -> None:
    """Each listing of the guide is a complete app that gives the answers shown after it."""
    found = list(blocks(GUIDE))
    listings = [index for index, block in enumerate(found) if block.kind == "python app.py"]
    compared = 0
    for index, following in pairwise([*listings, len(found)]):
        (tmp_path / "app.py").write_text(found[index].text)
        shown = [block for block in found[index:following] if block.kind == "console"]
        with serving(tmp_path) as port:
            fetch(port, "/")
            compared += check_answers((command for block in shown for command in commands(block)), port)
    assert (len(listings), compared) == (5, 3)


def test_guide_restarts_the_server() -> None:
    """A reader who follows the guide sends each request to a server that runs the preceding listing."""
    events = {
        "```python app.py": False,
        "$ hypercorn --workers": False,
        "$ hypercorn app:app": True,
        "start it again": True,
        "start `hypercorn app:app`": True,
    }
    is_current, requests = False, 0
    for event in re.findall("|".join(map(re.escape, [*events, "$ curl"])), GUIDE.read_text()):
        is_current = events.get(event, is_current)
        if event == "$ curl":
            assert is_current
            requests += 1
    assert requests == 3


def test_guide_answers_like_our_app(tmp_path: Path) -> None:
    """The last listing of the guide answers four requests exactly like our app."""
    (tmp_path / "app.py").write_text(LISTINGS[-1].text)
    with serving(tmp_path) as theirs, Server(tmp_path) as ours:
        for target in ("/", "/wizards", "/wizards?name=%3Cb%3E", "/api/wizards"):
            assert fetch(theirs, target) == fetch(ours.port, target)


def test_guide_environment(tmp_path: Path) -> None:
    """The shell commands make an environment, show that it is active, and leave it."""
    steps = [command.line for command in console(GUIDE)]
    shell = [line for line in steps if re.match("mkdir|cd |python|[.] |deactivate", line)]
    assert len(shell) == 6
    quick = [line.replace("-m venv", "-m venv --without-pip") for line in shell]
    script = "\n".join(["set -e", *quick, 'echo "left: ${VIRTUAL_ENV-yes}"'])
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=tmp_path,
        env={"PATH": path},
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    active, left = done.stdout.splitlines()
    assert active.endswith("wizards-app/.venv")
    assert left == "left: yes"


def test_guide_hot_reload(tmp_path: Path) -> None:
    """The guide's debug command, on a free port, reloads `app.py` after each change."""
    assert "quart --debug run" in [command.line for command in console(GUIDE)]
    (tmp_path / "app.py").write_text(LISTINGS[-1].text)
    command = [sys.executable, "-u", "-m", "quart", "--debug", "run", "--port", "0"]
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    with subprocess.Popen(
        command,
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            assert process.stdout is not None
            ports = (found[1] for line in process.stdout if (found := re.search(RUNNING, line)))
            assert fetch(int(next(ports)), "/") == GREETING
            (tmp_path / "app.py").write_text(LISTINGS[-1].text.replace("World", "again"))
            assert fetch(int(next(ports)), "/") == GREETING.replace("World", "again")
        finally:
            os.killpg(process.pid, signal.SIGKILL)  # a new Quart reloads in a process of its own


# --- Other blocks, tables, links. ---


def check_unit(block: Block) -> None:
    """Check that a systemd unit can be parsed, and its command."""
    unit = configparser.ConfigParser(interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read_string(block.text)
    if "Service" in unit:
        has_options(Command(unit["Service"]["ExecStart"], ""), Place(ROOT, None))  # type: ignore[arg-type]
        assert unit["Service"]["Restart"] == "always"


def check_map(block: Block) -> None:
    """Check that every file and folder in a map of the source exists."""
    modules = {path.name for path in (ROOT / "src" / "wizards").rglob("*.py")}
    for name in re.findall(r"[a-z0-9_/]+(?:\.py|\.toml|/)", block.text):
        assert (ROOT / name).exists() or Path(name).name in modules, name


def check_table(block: Block) -> None:
    """Check that a table made by hand has the columns that the service makes."""
    columns = re.findall(r"(\w+ (?:integer|text)[^,)]*)", CREATE_TABLE)
    assert len(columns) == 3
    assert f"({', '.join(columns)})" in block.text


def test_architecture_names_every_module() -> None:
    """The map in docs/architecture.md has every module of the source, and none that is gone."""
    (shown,) = (block for block in blocks(ARCHITECTURE) if block.kind == "")
    named = {Path(name).name for name in re.findall(r"[a-z0-9_/]+\.py", shown.text)}
    modules = {path.name for path in (ROOT / "src" / "wizards").rglob("*.py")} - {"__init__.py"}
    assert named == modules


BLOCKS: dict[str, Callable[[Block], None]] = {
    "console": lambda _: None,  # test_commands
    "python app.py": lambda _: None,  # test_guide
    "python test_append.py": lambda _: None,  # test_readme_test
    "ini": check_unit,
    "nginx": lambda _: None,  # needs nginx
    "haproxy": lambda _: None,  # needs HAProxy
    "conf": lambda _: None,  # a setting of PostgreSQL's
    "sql": check_table,  # test_privileges shows that the grants suffice
    "": check_map,
}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document.name)
def test_blocks(document: Path) -> None:
    """Every block has a check and passes it."""
    for block in blocks(document):
        BLOCKS[block.kind if block.kind in BLOCKS else block.kind.split()[0]](block)


def headings(document: Path) -> set[str]:
    """Return the anchors that GitHub gives a document's headings."""
    found = re.findall("^#+ (.*)$", document.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in found}


@pytest.mark.parametrize("document", [*DOCUMENTS, ROOT / "CONTRIBUTING.md"], ids=lambda path: path.name)
def test_links_and_make_targets(document: Path) -> None:
    """Links between documents and make targets in prose exist."""
    text = document.read_text()
    for link, heading in re.findall(r"\]\((?!https?:)([^)#]*)#?([^)]*)\)", text):
        target = document.parent / link if link else document
        assert target.exists(), link
        assert not heading or heading in headings(target), heading
    for target in re.findall(r"`make ([a-z-]+)", text):
        has_target(Command(f"make {target}", ""), None)  # type: ignore[arg-type]


def test_table_of_settings() -> None:
    """The README's table has every setting with its default and bounds."""
    rows = re.findall(r"^\| `WIZARDS_(\w+)` \| `(.*?)` \| (.*) \|$", README.read_text(), re.MULTILINE)
    assert {name: default for name, default, _ in rows} == {key: str(v) for key, v in DEFAULTS.items()}
    for name, _, words in rows:
        if name in BOUNDS:
            assert words.endswith("{:,} to {:,}".format(*BOUNDS[name]))


def test_speed_table() -> None:
    """The README's table of speed equals bench/results.md, and every promise in it was measured."""
    row = re.compile(r"^\| `.*` \| \w+ \| .* \| ([0-9.]+) \| ([0-9.]+) \|$", re.MULTILINE)
    measured = (ROOT / "bench" / "results.md").read_text()
    promised = {found[0]: (float(found[1]), float(found[2])) for found in row.finditer(measured)}
    assert all(found >= least for least, found in promised.values())
    shown = [found[0] for found in row.finditer(README.read_text())]
    assert shown
    assert shown == list(promised)


def test_speed_on_other_servers() -> None:
    """Each multiple of Hypercorn's rate equals the medians in bench/results.json."""
    cells = json.loads((ROOT / "bench" / "results.json").read_text())["cells"]
    medians = {
        (cell["workload"], cell["server"]): cell["median"] for cell in cells if cell["contender"] == "wizards"
    }
    rows = re.findall(r"^\| `(.*)` \| 1 \| ([0-9.]+) \| ([0-9.]+) \|$", OPERATIONS.read_text(), re.MULTILINE)
    assert len(rows) == 3
    for work, *multiples in rows:
        for server, multiple in zip(("uvicorn", "Granian"), multiples, strict=True):
            assert multiple == f"{medians[work, server] / medians[work, 'Hypercorn']:.1f}"


def test_hypercorn_settings() -> None:
    """Every key in hypercorn.toml is a setting of Hypercorn, which silently ignores unknown keys."""
    settings = tomllib.loads((ROOT / "hypercorn.toml").read_text())
    fresh, read = Config(), Config.from_toml(ROOT / "hypercorn.toml")
    for key, value in settings.items():
        assert hasattr(fresh, key)
        assert getattr(read, key) == value


def test_demo() -> None:
    """The demo shows ten appends with their answers, loses none and exits by itself."""
    command = [sys.executable, "-W", "error", str(ROOT / "docs" / "demo.py")]
    done = subprocess.run(command, capture_output=True, check=True, text=True, timeout=60)
    assert len(re.findall(r"adds .* no\. +\d+ +of +\d+: …, ", done.stdout)) == 10
    assert "13 names now, 13 different ones" in done.stdout
    assert "10 of 10 answers are the beginning of it" in done.stdout
    assert "A sixth client follows the list: 13 events in the same order" in done.stdout
    assert "Fred &amp; George" in done.stdout
    assert done.stderr == ""
