"""The application that an ASGI server imports: `hypercorn wizards.asgi:app`."""

from wizards.app import create_app

app = create_app()
