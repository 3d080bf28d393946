"""``annotate``: turn sources into a table, from the listing to the last part."""

from __future__ import annotations

import contextlib
import importlib
import os
from collections import Counter
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from facewise.batch import archives, picture_tables, pool, retry, storage
from facewise.batch.job import FILE, TAR, VIDEO, VIDEOS, Item, Job, Result, Task, differences
from facewise.batch.plan import Plan, open_plan, write_plan
from facewise.batch.schema import arrow_schema
from facewise.batch.sources import check, list_items
from facewise.batch.table import TableFolder, encode_part, part_name
from facewise.batch.watch import Fingerprints, Watch, changed
from facewise.errors import MissingExtraError, OptionError, TableError, check_count
from facewise.folders import Skipped, counted

Engine = Callable[[Iterable[Task], Job, int | None], Generator[Result, None, None]]
"""Runs tasks on a number of workers; results in any order, tasks taken only when there is room."""

Progress = Callable[[int, int], None]
"""Receives the number of pictures done, in this run or before it, and the plan's total."""

ENGINES: Final = ("local", "ray")

EXTRAS: Final = {"video": ("video", "av"), "heif": ("HEIC", "pillow_heif")}
"""Extras that some sources need: extra to the feature's name and the module it installs."""


@dataclass(slots=True)
class Summary:
    """What a table holds now.

    Attributes:
        images: pictures and videos.
        faces: rows with a face.
        without_face: pictures, or video frames, without a face.
        errors: rows by error code.
        annotated: pictures annotated by this run; the rest were already finished.
    """

    images: int
    faces: int = 0
    without_face: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    annotated: int = 0


def annotate(
    sources: Sequence[str],
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
        sources: folders, globs, tars, text lists, tables, pictures, videos; paths or URLs.
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
    run = _engine(engine)
    if workers is not None:
        workers = check_count("workers", workers)
    if storage.is_url(os.fspath(out)):
        raise OptionError(f"{out}: a table is written to a local disk; copy it from there")
    if not sources:
        raise OptionError("name at least one SOURCE")
    sources = [os.fspath(source) for source in sources]
    check(sources)
    arrow_schema()  # fails if the extra is missing
    job.analyzer()  # fails on a bad setting or weight file, before anything is written
    description = job.describe() | {"sources": [storage.absolute(source) for source in sources]}
    with TableFolder(Path(out)) as folder:
        manifest = folder.read_manifest()
        if manifest is None:
            manifest = _begin(folder, sources, job, description, note)
        else:
            _check_same(Path(out), manifest, description)
        listed = manifest["plan"]
        with contextlib.closing(
            open_plan(folder, listed["sha256"], job.shard_size, listed["chunk"])
        ) as plan:
            return _Run(folder, plan, manifest, job, progress, note).finish(
                run, workers, retry_errors
            )


def _engine(name: str) -> Engine:
    if name == "local":
        return pool.run
    if name == "ray":
        from facewise.batch import on_ray

        return on_ray.run
    raise OptionError(f"engine must be one of {', '.join(ENGINES)}, not {name}")


def _check_same(out: Path, manifest: Mapping[str, Any], description: Mapping[str, Any]) -> None:
    """Refuse to resume with other settings or changed sources; a table never mixes them."""
    if different := differences(manifest["settings"], description):
        raise TableError(
            f"{out} was begun with other settings: {'; '.join(different)}. Use those, or start "
            "another table"
        )
    if paths := changed(manifest["plan"]["sources"]):
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
            + "; files with other names can be given as a text list"
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
        return not source.lower().endswith(archives.ENDINGS)
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
        name = item.path if item.kind == FILE else item.image_id
        extra = None
        if item.kind == VIDEO:
            extra = "video"
        elif item.kind in (FILE, TAR) and name.lower().endswith((".heic", ".heif")):
            extra = "heif"
        if extra is not None and extra not in extras:
            _require(extra)
            extras.add(extra)
        yield item


def _require(extra: str) -> None:
    feature, module = EXTRAS[extra]
    try:
        importlib.import_module(module)
    except ImportError as error:
        raise MissingExtraError(feature, extra) from error


class _Run:
    """One run over a table that has a plan."""

    def __init__(
        self,
        folder: TableFolder,
        plan: Plan,
        manifest: dict[str, Any],
        job: Job,
        progress: Progress,
        note: Callable[[str], None],
    ) -> None:
        self._folder, self._plan, self._manifest, self._job = folder, plan, manifest, job
        self._progress, self._note = progress, note
        self._schema = arrow_schema(job.photo_attributes)
        self._open: dict[int, dict[int, Result]] = {}
        self._retried: set[int] = set()
        self._written: set[int] = set()
        self._watch = Watch(manifest["plan"]["sources"])

    def finish(self, engine: Engine, workers: int | None, retry_errors: bool) -> Summary:
        done, damaged = self._folder.finished_parts()
        for name in damaged:
            self._note(f"{name} is missing or damaged: making it again")
        if retry_errors:
            self._retried = {shard for shard, about in done.items() if about["errors"]}
        missing = [
            shard
            for shard in range(self._plan.shards)
            if shard not in done or shard in self._retried
        ]
        before = self._plan.images - sum(self._wanted(shard, done) for shard in missing)
        if done:
            self._note(
                f"{before:,} of {self._plan.images:,} images were finished before"
                + ("" if missing else ": nothing is left to do")
                + "; the sources were listed when the table was begun, so files added since "
                "need another table"
            )
        if missing:
            for extra in self._manifest["plan"]["extras"]:
                _require(extra)
            for url in self._manifest["plan"].get("protocols", {}).values():
                storage.check_driver(url)
            if self._manifest["complete"]:
                self._settle(complete=False, parts=done)
            self._progress(before, self._plan.images)
            self._annotate(engine, workers, missing, done, before)
            self._check_sources(missing, done)
            if lost := set(missing) - self._written:  # do not trust the engine to be complete
                raise TableError(
                    f"{self._folder.path}: {len(lost):,} parts were not delivered by the engine: "
                    "run the same command again"
                )
        if not self._manifest["complete"]:
            self._settle(complete=True, parts=done)
        return self._summary(done, before)

    def _check_sources(self, made: list[int], done: dict[int, dict[str, Any]]) -> None:
        """Discard this run's parts that read from a source that changed during the run.

        A replaced tar or table yields pictures under other pictures' names. Its parts are discarded
        even if the original file has been restored since.
        """
        paths = self._watch.seen | set(changed(self._manifest["plan"]["sources"]))
        spoilt = [
            shard
            for shard in (made if paths else ())
            if any(item.path in paths for item in self._plan.items(shard))
        ]
        if not spoilt:  # no change, or only in lists, which were read in full while listing
            return
        for shard in self._written.intersection(spoilt):
            del done[shard]
        self._folder.settle(done)
        raise TableError(
            f"{min(paths)} changed while {self._folder.path} was made, so its names may now be "
            f"those of other pictures: {len(spoilt):,} parts do not count. Restore the old file, "
            "with its modification time, and run the same command again, or start another table"
        )

    def _annotate(
        self,
        engine: Engine,
        workers: int | None,
        missing: list[int],
        done: dict[int, dict[str, Any]],
        images: int,
    ) -> None:
        tasks = self._plan.tasks(missing, self._failed)
        with contextlib.closing(engine(tasks, self._job, workers)) as results:
            for result in results:
                images += result.images
                parts = self._open.setdefault(result.shard, {})
                parts[result.chunk] = result
                made = sum(part.images for part in parts.values())
                if made == self._wanted(result.shard, done):
                    # Checked before the part counts: a stopped run never reaches the final check.
                    if self._watch.changed(item.path for item in self._plan.items(result.shard)):
                        del self._open[result.shard]
                    else:
                        done[result.shard] = self._write(result.shard)
                        self._written.add(result.shard)
                self._progress(images, self._plan.images)

    def _wanted(self, shard: int, done: Mapping[int, Mapping[str, Any]]) -> int:
        """The number of a shard's pictures that this run annotates."""
        if shard in self._retried:
            return sum(done[shard]["errors"].values())
        return self._plan.size(shard)

    def _failed(self, shard: int) -> Collection[str] | None:
        """Names of a shard's pictures to retry; None if the whole shard is annotated."""
        return retry.failed(self._earlier(shard)) if shard in self._retried else None

    def _earlier(self, shard: int) -> Any:
        return retry.read_part(self._folder.path / part_name(shard))

    def _write(self, shard: int) -> dict[str, Any]:
        """Join a shard's chunks in order and write the part."""
        import pyarrow as pa
        import pyarrow.compute as pc

        chunks = self._open.pop(shard)
        batches = [
            batch
            for chunk in sorted(chunks)
            for data in chunks[chunk].batches
            for batch in pa.ipc.open_stream(data)
        ]
        table = pa.Table.from_batches(batches, schema=self._schema)
        if shard in self._retried:
            table = retry.spliced(self._earlier(shard).cast(self._schema), table)
        table = table.combine_chunks()
        codes = table["error_code"].drop_null().to_pylist()
        faces = pc.count(table["face_index"]).as_py()
        about = {
            "images": self._plan.size(shard),
            "rows": table.num_rows,
            "faces": faces,
            "errors": dict(sorted(Counter(codes).items())),
        }
        return self._folder.write_part(shard, encode_part(table), about)

    def _settle(self, *, complete: bool, parts: Mapping[int, Mapping[str, Any]]) -> None:
        if complete:
            self._folder.drop_strangers(self._plan.shards)
            self._folder.settle(parts)
        self._manifest["complete"] = complete
        self._folder.write_manifest(self._manifest)

    def _summary(self, parts: Mapping[int, Mapping[str, Any]], before: int) -> Summary:
        summary = Summary(self._plan.images, annotated=self._plan.images - before)
        for about in parts.values():
            summary.faces += about["faces"]
            summary.errors.update(about["errors"])
            summary.without_face += about["rows"] - about["faces"] - sum(about["errors"].values())
        return summary
