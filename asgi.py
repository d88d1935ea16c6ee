"""What an ASGI server imports: `hypercorn asgi:app`."""

from wizards import create_app

app = create_app()
