"""The command line: thin commands over the library. Each imports what it needs when it runs."""

from __future__ import annotations

import logging
import os
import sys
from typing import Annotated

import typer

from facewise._version import __version__
from facewise.cli import doctor, evaluate, models, predict, serve, train
from facewise.errors import FacewiseError

app = typer.Typer(
    name="facewise",
    help="Every face in a photo, with its apparent age, gender and ethnicity.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

app.command("predict")(predict.predict)
app.command("doctor")(doctor.doctor)
app.command("models")(models.models)
app.command("serve")(serve.serve)
app.command("train")(train.train)
app.command("evaluate")(evaluate.evaluate)
app.command("export")(train.export)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"facewise {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it.")
    ] = False,
    verbose: Annotated[int, typer.Option("-v", "--verbose", count=True, help="Say more.")] = 0,
) -> None:
    levels = {0: logging.WARNING, 1: logging.INFO}
    logging.basicConfig(format="%(levelname)s %(message)s", stream=sys.stderr)
    logging.getLogger("facewise").setLevel(levels.get(verbose, logging.DEBUG))


def main() -> None:
    """Run a command; errors of facewise become one line and exit code 2, never a traceback."""
    try:
        app()
    except FacewiseError as error:
        print(f"facewise: {error}", file=sys.stderr)
        sys.exit(2)
    except BrokenPipeError:
        # The reader went away, as `| head` does; keep the interpreter from flushing into it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except KeyboardInterrupt:
        sys.exit(130)
