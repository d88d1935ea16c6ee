"""Three routes, one durable list: the Flask tutorial's wizards on Quart and Hypercorn."""

from wizards.app import create_app

__all__ = ["create_app"]
