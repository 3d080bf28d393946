"""``annotate``: turn sources into a table, from the listing to the last part."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from facewise.batch import archives, picture_tables, pool, storage
from facewise.batch.job import FILE, TAR, VIDEO, VIDEOS, Item, Job, differences
from facewise.batch.plan import open_plan, write_plan
from facewise.batch.run import Engine, Progress, Run, Summary, require
from facewise.batch.schema import arrow_schema
from facewise.batch.sources import check, list_items
from facewise.batch.table import TableFolder
from facewise.batch.watch import Fingerprints, changed
from facewise.data.walk import Skipped
from facewise.errors import OptionError, TableError, check_count
from facewise.text import counted

ENGINES: Final = ("local", "ray")

FILES: Final = (".csv", ".tsv", ".json", ".jsonl", ".txt", ".xlsx")
"""Endings of single files, which a table cannot be; ``.parquet`` is usual for such folders."""


def annotate(
    sources: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    job: Job | None = None,
    *,
    engine: str = "local",
    workers: int | None = None,
    retry_errors: bool = False,
    progress: Progress = lambda done, total: None,
    note: Callable[[str], None] = lambda text: None,
) -> Summary:
    """Annotate every picture of the sources into a table, resuming an earlier run if there is one.

    Args:
        sources: one or several paths or URLs of folders, globs, tars, lists, tables, pictures,
            videos.
        out: the table's folder, local; see ``facewise.batch.table``.
        job: settings.
        engine: "local" or "ray".
        workers: processes or actors; None: one per core, or per GPU with Ray and a GPU provider.
        retry_errors: retry pictures with errors; the others keep their rows.
        progress: called as pictures are done.
        note: called with messages to show at once.

    Raises:
        OptionError: a source or setting cannot be used.
        SourceError: a source cannot be read now. When raised while listing, nothing was begun and
            the next run lists the sources again.
        TableError: the table is in use, was begun with other settings or sources that have changed
            since, or cannot be written.
        ModelError: the model cannot be loaded.
        MissingExtraError: an extra that the engine or a source needs is not installed.
    """
    job = job or Job()
    run_tasks = _engine(engine)
    if workers is not None:
        workers = check_count("workers", workers)
    if storage.is_url(os.fspath(out)):
        raise OptionError(f"{out}: a table is written to a local disk; copy it from there")
    if (name := Path(out)).suffix.lower() in FILES:
        raise OptionError(
            f"{out}: a table is a folder of Parquet files, not a {name.suffix} file: choose a "
            f"folder, such as {name.with_suffix('.table')}"
        )
    if isinstance(sources, str | os.PathLike):
        sources = [sources]
    if not sources:
        raise OptionError("name at least one SOURCE")
    names = [os.fspath(source) for source in sources]
    arrow_schema()  # fails if the extra is missing
    job.analyzer()  # fails on a bad setting or weight file, before anything is written
    description = job.describe() | {"sources": [storage.absolute(name) for name in names]}
    with TableFolder(Path(out)) as folder:
        manifest = folder.read_manifest()
        check(names, listed=manifest is not None)
        if manifest is None:
            manifest = _begin(folder, names, job, description, note)
        else:
            _check_same(Path(out), manifest, description)
        listed = manifest["plan"]
        with contextlib.closing(
            open_plan(folder, listed["sha256"], job.shard_size, listed["chunk"])
        ) as plan:
            run = Run(
                folder,
                plan,
                manifest,
                job,
                retry_errors=retry_errors,
                progress=progress,
                note=note,
            )
            return run.finish(run_tasks, workers)


def _engine(name: str) -> Engine:
    if name == "local":
        return pool.run
    if name == "ray":
        from facewise.batch import on_ray

        on_ray.import_ray()  # fails before anything is listed
        return on_ray.run
    raise OptionError(f"engine must be one of {', '.join(ENGINES)}, not {name}")


def _check_same(out: Path, manifest: Mapping[str, Any], description: Mapping[str, Any]) -> None:
    """Refuse to resume with other settings or changed sources; a table never mixes them."""
    if different := differences(manifest["settings"], description):
        raise TableError(
            f"{out} was begun with other settings: {'; '.join(different)}. Use those, or start "
            "another table"
        )
    if paths := list(changed(manifest["plan"]["sources"])):
        more = f" and {len(paths) - 1:,} more" if len(paths) > 1 else ""
        raise TableError(
            f"{paths[0]}{more} changed since {out} was begun, so its names would now be those of "
            "other pictures: restore the old file, with its modification time, or start another "
            "table"
        )


def _begin(
    folder: TableFolder,
    sources: Sequence[str],
    job: Job,
    description: Mapping[str, Any],
    note: Callable[[str], None],
) -> dict[str, Any]:
    """List the sources; write the plan and the manifest."""
    note("listing the sources")
    skipped, opened = Skipped(), Fingerprints()
    items = list_items(sources, job, skipped, opened)
    extras: set[str] = set()
    protocols: dict[str, str] = {}
    readable = _readable(items, extras, protocols)
    digest, dropped = write_plan(folder, readable, job.shard_size)
    with contextlib.closing(open_plan(folder, digest, job.shard_size)) as plan:
        images, shards = plan.images, plan.shards
    if skipped:
        note(_left_out(skipped))
    if dropped:
        note(
            f"{counted(dropped, 'picture was', 'pictures were')} named more than once: the first "
            "of each counts"
        )
    if images == 0:
        packed = [
            ending for ending in (*archives.ENDINGS, *picture_tables.ENDINGS) if skipped[ending]
        ]
        found = next(filter(_is_folder, sources), None)
        raise OptionError(
            f"no picture in {', '.join(sources)}"
            + (f": {_left_out(skipped)}" if skipped else "")
            + "; files with other names can be given in a list"
            + (f", tars and tables as a pattern: {found}/*{packed[0]}" if packed and found else "")
        )
    manifest = {
        "settings": dict(description),
        "temperatures": job.temperatures,
        "plan": {
            "sha256": digest,
            "images": images,
            "shards": shards,
            "chunk": job.chunk,
            "sources": opened,
            "extras": sorted(extras),
            "protocols": protocols,
        },
        "complete": False,
    }
    folder.write_manifest(manifest)
    return manifest


def _is_folder(source: str) -> bool:
    """Whether a source is a folder, as far as can be known without a request."""
    if storage.is_url(source):
        return not storage.path_part(source).lower().endswith(archives.ENDINGS)
    return Path(source).is_dir()


def _left_out(skipped: Skipped) -> str:
    """Describe skipped files; videos are only ever skipped inside tars."""
    videos = any(skipped[ending] for ending in VIDEOS)
    return str(skipped) + (": videos in a tar are not read, unpack them" if videos else "")


def _readable(items: Iterable[Item], extras: set[str], protocols: dict[str, str]) -> Iterator[Item]:
    """Pass items on, recording the extras they need and one URL per protocol.

    Fails early: a table whose every row is the same installation error would be useless.

    Raises:
        MissingExtraError: an extra is not installed.
        OptionError: a protocol's driver is not installed.
    """
    for item in items:
        if item.kind in (FILE, VIDEO) and storage.is_url(item.path):
            protocol = item.path.split("://", 1)[0]
            if protocol not in protocols:
                storage.check_driver(item.path)
                protocols[protocol] = item.path
        name = storage.path_part(item.path) if item.kind == FILE else item.image_id
        extra = None
        if item.kind == VIDEO:
            extra = "video"
        elif item.kind in (FILE, TAR) and name.lower().endswith((".heic", ".heif")):
            extra = "heif"
        if extra is not None and extra not in extras:
            require(extra)
            extras.add(extra)
        yield item
