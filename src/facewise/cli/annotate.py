"""``facewise annotate SOURCE... --out TABLE``."""

from __future__ import annotations

import enum
import math
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from facewise.calibration import DEFAULT_COVERAGE
from facewise.cli.exits import Exit
from facewise.cli.options import Coverage, MaxFaces, MinFacePx, Model, Providers, Verbose
from facewise.cli.streams import say
from facewise.images import DEFAULT_MAX_BYTES, DEFAULT_MAX_PIXELS
from facewise.text import counted, split_names

if TYPE_CHECKING:
    from facewise.batch.run import Summary

BURST_SECONDS: Final = 2.0
"""Stop signals within this time count as one: a second must not disturb the first one's cleanup."""


class Engine(enum.StrEnum):
    LOCAL = "local"
    RAY = "ray"


def annotate(
    sources: Annotated[
        list[str],
        typer.Argument(
            help="Folders, globs, tars, lists, tables, pictures or videos: paths or URLs."
        ),
    ],
    out: Annotated[
        str, typer.Option(help="Folder for the table; run again with the same one to resume.")
    ],
    attributes: Annotated[
        str | None,
        typer.Option(help="Attributes, comma-separated; default: all, but no ethnicity for video."),
    ] = None,
    model: Model = "default",
    coverage: Coverage = DEFAULT_COVERAGE,
    min_face: MinFacePx = None,
    max_faces: MaxFaces = None,
    max_bytes: Annotated[
        int,
        typer.Option(help="Largest photo file, in bytes; larger ones become rows with an error."),
    ] = DEFAULT_MAX_BYTES,
    max_pixels: Annotated[
        int, typer.Option(help="Largest photo, in pixels; larger ones become rows with an error.")
    ] = DEFAULT_MAX_PIXELS,
    image_column: Annotated[
        str | None, typer.Option(help="Column of a source table that holds the pictures.")
    ] = None,
    id_column: Annotated[
        str | None, typer.Option(help="Column of a source table that holds unique names.")
    ] = None,
    fps: Annotated[float, typer.Option(help="Frames per second to analyse in videos.")] = 1.0,
    shard_size: Annotated[int, typer.Option(help="Pictures per part of the table.")] = 1000,
    workers: Annotated[int | None, typer.Option(help="Processes; default: one per core.")] = None,
    engine: Annotated[
        Engine, typer.Option(help="Run on this machine, or on a Ray cluster.")
    ] = Engine.LOCAL,
    providers: Providers = None,
    inference_batch: Annotated[
        int, typer.Option(help="Most photos per inference; more than 1 only pays on a GPU.")
    ] = 1,
    retry_errors: Annotated[
        bool, typer.Option("--retry-errors", help="Try pictures with errors again.")
    ] = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit with 1 if any row has an error.")
    ] = False,
    verbose: Verbose = 0,
) -> None:
    """Annotate whole data sets into a Parquet table; an interrupted run resumes.

    Exit codes: 0 if everything is annotated, even if some rows have errors; 1 if every picture of
    the table has an error, or a source could not be listed, which may pass; 2 if the run cannot go
    on; 130 after Ctrl-C, 143 after SIGTERM.
    """
    from facewise.annotated import MANIFEST
    from facewise.batch.annotate import annotate as run
    from facewise.batch.job import Job
    from facewise.batch.table import finished_images
    from facewise.errors import SourceError
    from facewise.progress import counted_progress

    job = Job(
        attributes=split_names(attributes),
        model=model,
        coverage=coverage,
        min_face_px=min_face,
        max_faces=max_faces,
        max_bytes=max_bytes,
        max_pixels=max_pixels,
        providers=split_names(providers),
        photos_per_inference=inference_batch,
        shard_size=shard_size,
        image_column=image_column,
        id_column=id_column,
        frames_per_second=fps,
    )
    stopped_by, stopped_at = signal.SIGINT, -math.inf

    def stop(number: int, _: object) -> None:
        nonlocal stopped_by, stopped_at
        if time.monotonic() - stopped_at > BURST_SECONDS:
            stopped_by, stopped_at = signal.Signals(number), time.monotonic()
            raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, stop)
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # background jobs ignore it
        signal.signal(signal.SIGINT, stop)
    try:
        with counted_progress("image", "images", say) as progress:
            summary = run(
                sources,
                out,
                job,
                engine=engine.value,
                workers=workers,
                retry_errors=retry_errors,
                progress=progress,
                note=say,
            )
    except SourceError as error:
        say(str(error))
        raise typer.Exit(int(Exit.FAILED)) from None
    except KeyboardInterrupt:
        for number in (signal.SIGINT, signal.SIGTERM):  # another signal must not cut this short
            signal.signal(number, signal.SIG_IGN)
        kept = "nothing was begun"
        if (Path(out) / MANIFEST).exists():
            images = counted(finished_images(Path(out)), "image is", "images are")
            kept = f"{images} in finished parts in {out}: the same command resumes from there"
        say(f"stopped; {kept}")
        raise typer.Exit(128 + stopped_by) from None
    _print(summary, out)
    if summary.nothing_read:
        _say_nothing_was_read(summary, out)
    failed = summary.nothing_read or (strict and summary.errors)
    raise typer.Exit(int(Exit.FAILED if failed else Exit.OK))


def _say_nothing_was_read(summary: Summary, out: str) -> None:
    from facewise.annotated import read_batches

    first = next(read_batches(Path(out), ["image_id", "error_message"]))
    name, message = (_ends(first[column][0].as_py()) for column in ("image_id", "error_message"))
    say(
        f"no picture was read: {counted(summary.images, 'image has', 'images have')} an error. The "
        f"first is {name}: {message}. Once that is mended, the same command with --retry-errors "
        "tries again"
    )


def _ends(text: str, most: int = 300) -> str:
    """A text, without its middle if it is long, as the lines of a file that is no list may be."""
    return text if len(text) <= most else f"{text[: most // 2]} ... {text[-most // 2 :]}"


def _print(summary: Summary, out: str) -> None:
    text = (
        f"{out}: {counted(summary.images, 'image', 'images')}, "
        f"{counted(summary.faces, 'face', 'faces')}, {summary.without_face:,} without a face, "
        f"{counted(summary.errors.total(), 'error', 'errors')}"
    )
    if summary.errors:
        text += f" ({', '.join(f'{code} {n:,}' for code, n in summary.errors.most_common())})"
    typer.echo(text)
