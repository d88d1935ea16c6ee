"""Hypercorn's command line: how it reports that an application could not start."""

import sys
from collections.abc import Callable
from typing import Any

from hypercorn.utils import LifespanFailureError


def exit_with_one_line(expected: type[Exception]) -> None:
    """Let Hypercorn's workers report a start that fails with `expected` in one line, with status 1.

    Does nothing unless one of those workers imports the application: nothing else calls what is replaced.
    """
    run = sys.modules.get("hypercorn.asyncio.run")
    if run is not None:
        run._run = _reporting(run._run, expected)  # type: ignore[attr-defined]  # noqa: SLF001


def _reporting(run: Callable[..., None], expected: type[Exception]) -> Callable[..., None]:
    def run_worker(*args: Any, **options: Any) -> None:
        try:
            run(*args, **options)
        except LifespanFailureError as failure:
            if isinstance(failure.__context__, expected):
                raise SystemExit(str(failure.__context__)) from None
            raise

    return run_worker
