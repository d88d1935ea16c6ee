"""The same three routes on FastAPI."""

from fastapi import FastAPI
from fastapi.responses import HTMLResponse

from bench.names import first_names

app = FastAPI()
wizards = first_names()


@app.get("/", response_class=HTMLResponse)
async def hello() -> str:
    """Return the greeting."""
    return "<p>Hello World from Flask!</p>"


@app.get("/wizards", response_class=HTMLResponse)
async def shared_list(name: str | None = None) -> str:
    """Append the name, if any, and return the list."""
    if name:
        wizards.append(name)
    return "".join(f"<p>Hello {name} is a wizard of system design with Flask!</p>" for name in wizards)


@app.get("/api/wizards")
async def gryffindors() -> list[dict[str, str]]:
    """Return the fixed list."""
    return [{"house": "Gryffindor", "name": name} for name in ("Harry", "Hermione", "Ron")]
