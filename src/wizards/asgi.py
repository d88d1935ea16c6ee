"""The application that an ASGI server imports: `hypercorn wizards.asgi:app`."""

import sys

from wizards.app import create_app
from wizards.config import StartError
from wizards.server.worker_process import prepare

prepare(StartError)

try:
    app = create_app()
except StartError as error:
    sys.exit(str(error))
