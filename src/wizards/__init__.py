"""Three routes, one durable list: the Flask tutorial's wizards on Quart and Hypercorn."""

from wizards.app import create_app
from wizards.config import StartError

__all__ = ["StartError", "create_app"]
