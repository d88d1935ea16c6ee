"""The same three routes on BlackSheep."""

from blacksheep import Application, Request, Response, html, json

from bench.names import first_names

app = Application()
wizards = first_names()


@app.router.get("/")
async def hello(_: Request) -> Response:
    """Say hello."""
    return html("<p>Hello World from Flask!</p>")


@app.router.get("/wizards")
async def shared_list(request: Request) -> Response:
    """Show the list, after appending to it."""
    names = request.query.get("name")
    if names and names[0]:
        wizards.append(names[0])
    return html("".join(f"<p>Hello {name} is a wizard of system design with Flask!</p>" for name in wizards))


@app.router.get("/api/wizards")
async def gryffindors(_: Request) -> Response:
    """Answer the fixed list."""
    return json([{"house": "Gryffindor", "name": name} for name in ("Harry", "Hermione", "Ron")])
