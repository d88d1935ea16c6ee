"""The application of a checkout: `hypercorn asgi:app`."""

from wizards.asgi import app

__all__ = ["app"]
