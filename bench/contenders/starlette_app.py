"""The same three routes on Starlette."""

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse
from starlette.routing import Route

from bench.names import first_names

wizards = first_names()


async def hello(_: Request) -> HTMLResponse:
    """Return the greeting."""
    return HTMLResponse("<p>Hello World from Flask!</p>")


async def shared_list(request: Request) -> HTMLResponse:
    """Append the name, if any, and return the list."""
    name = request.query_params.get("name")
    if name:
        wizards.append(name)
    return HTMLResponse(
        "".join(f"<p>Hello {name} is a wizard of system design with Flask!</p>" for name in wizards)
    )


async def gryffindors(_: Request) -> JSONResponse:
    """Return the fixed list."""
    return JSONResponse([{"house": "Gryffindor", "name": name} for name in ("Harry", "Hermione", "Ron")])


app = Starlette(
    routes=[Route("/", hello), Route("/wizards", shared_list), Route("/api/wizards", gryffindors)]
)
