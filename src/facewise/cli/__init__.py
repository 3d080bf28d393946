"""The command line: thin commands over the library, each importing what it needs when it runs."""

from __future__ import annotations

import logging
import sys
from typing import Annotated

import typer

from facewise._version import __version__
from facewise.cli import (
    annotate,
    audit,
    dedupe,
    doctor,
    evaluate,
    models,
    predict,
    serve,
    thumbs,
    train,
)
from facewise.cli.exits import Exit
from facewise.cli.options import Verbose
from facewise.cli.streams import give_up, prepare_streams, reason, say
from facewise.errors import FacewiseError

app = typer.Typer(
    name="facewise",
    help="Find faces in photos and estimate apparent age, gender and ethnicity.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

app.command("predict")(predict.predict)
app.command("annotate")(annotate.annotate)
app.command("audit")(audit.audit)
app.command("thumbs")(thumbs.thumbs)
app.command("doctor")(doctor.doctor)
app.command("models")(models.models)
app.command("serve")(serve.serve)
app.command("train")(train.train)
app.command("evaluate")(evaluate.evaluate)
app.command("dedupe")(dedupe.dedupe)
app.command("teach")(train.teach)
app.command("export")(train.export)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"facewise {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
    verbose: Verbose = 0,
) -> None:
    logging.basicConfig(format="%(levelname)s %(message)s", stream=sys.stderr)


def main() -> None:
    """Run a command; facewise's errors become one line and an exit code, never a traceback."""
    prepare_streams()
    code = _run()
    try:
        sys.stderr.flush()
    except OSError:  # otherwise the interpreter would exit with a code of its own
        give_up(sys.stderr)
    sys.exit(code)


def _run() -> int:
    try:
        code = _call()
        sys.stdout.flush()
    except FacewiseError as error:
        say(str(error))
        return Exit.USAGE
    except BrokenPipeError:  # the reader closed the pipe, as `| head` does: not an error
        give_up(sys.stdout)
        give_up(sys.stderr)
        return Exit.NO_READER
    except OSError as error:  # such as a full disk under the output
        give_up(sys.stdout)
        say(reason(error))
        return Exit.FAILED
    except ImportError:  # for example, uninstalling opencv-python also removed cv2
        problems = list(doctor.check_packages())
        if not problems:
            raise
        for problem in problems:
            say(problem)
        return Exit.USAGE
    except KeyboardInterrupt:
        return Exit.INTERRUPTED
    return code


def _call() -> int:
    """Run Typer, which always ends in SystemExit, and return its exit code."""
    try:
        app()
    except SystemExit as stop:
        if isinstance(stop.__context__, BrokenPipeError):  # Typer would exit with 1
            raise stop.__context__ from None
        return stop.code if isinstance(stop.code, int) else Exit.FAILED if stop.code else 0
    return 0
