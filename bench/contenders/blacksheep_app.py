"""The same three routes on BlackSheep."""

from blacksheep import Application, Request, Response, html, json

from bench.names import first_names

app = Application()
wizards = first_names()


@app.router.get("/")
async def hello(_: Request) -> Response:
    """Return the greeting."""
    return html("<p>Hello World from Flask!</p>")


@app.router.get("/wizards")
async def shared_list(request: Request) -> Response:
    """Append the name, if any, and return the list."""
    names = request.query.get("name")
    if names and names[0]:
        wizards.append(names[0])
    return html("".join(f"<p>Hello {name} is a wizard of system design with Flask!</p>" for name in wizards))


@app.router.get("/api/wizards")
async def gryffindors(_: Request) -> Response:
    """Return the fixed list."""
    return json([{"house": "Gryffindor", "name": name} for name in ("Harry", "Hermione", "Ron")])
