"""Options that several commands share."""

from __future__ import annotations

import logging
from typing import Annotated

import typer

_LEVELS = {0: logging.WARNING, 1: logging.INFO}


def _be_verbose(count: int) -> int:
    """Lower the log level; ``-v`` counts before the command as well as after it."""
    logger = logging.getLogger("facewise")
    level = _LEVELS.get(count, logging.DEBUG)
    if count or logger.level == logging.NOTSET:
        logger.setLevel(level)
    return count


Verbose = Annotated[
    int,
    typer.Option(
        "-v",
        "--verbose",
        count=True,
        callback=_be_verbose,
        show_default=False,
        metavar="",
        help="Say more; -vv still more.",
    ),
]
