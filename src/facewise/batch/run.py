"""One run over a table: the missing parts are made, from tasks to files."""

from __future__ import annotations

import contextlib
import importlib
from collections import Counter
from collections.abc import Callable, Collection, Generator, Iterable
from dataclasses import dataclass, field
from typing import Any, Final

from facewise.batch import retry, storage
from facewise.batch.job import Job, Result, Task
from facewise.batch.plan import Plan
from facewise.batch.schema import arrow_schema
from facewise.batch.table import TableFolder, encode_part, part_name
from facewise.batch.watch import Watch
from facewise.errors import TableError, needs_extra

Engine = Callable[[Iterable[Task], Job, int | None], Generator[Result, None, None]]
"""Runs tasks on a number of workers; results in any order, tasks taken only when there is room."""

Progress = Callable[[int, int], None]
"""Receives the number of pictures done, in this run or before it, and the plan's total."""

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

    @property
    def nothing_read(self) -> bool:
        """Whether every picture has an error, which is rarely the pictures' fault."""
        return self.images > 0 and not self.faces and not self.without_face


def require(extra: str) -> None:
    feature, module = EXTRAS[extra]
    with needs_extra(feature, extra):
        importlib.import_module(module)


class Run:
    """One run over a table that has a plan.

    Args:
        folder: the table, locked.
        plan: its plan.
        manifest: its manifest.
        job: settings.
        retry_errors: annotate pictures with errors again.
        progress: called as pictures are done.
        note: called with messages.
    """

    def __init__(
        self,
        folder: TableFolder,
        plan: Plan,
        manifest: dict[str, Any],
        job: Job,
        *,
        retry_errors: bool,
        progress: Progress,
        note: Callable[[str], None],
    ) -> None:
        self._folder, self._plan, self._manifest, self._job = folder, plan, manifest, job
        self._progress, self._note = progress, note
        self._schema = arrow_schema(job.photo_attributes)
        self._watch = Watch(manifest["plan"]["sources"])
        # Finished parts, by shard, as their marks describe them; this run adds to them.
        self._done, damaged = folder.finished_parts()
        for name in damaged:
            note(f"{name} is missing or damaged: making it again")
        # Shards of which only the pictures with errors are annotated again.
        self._retried = {
            shard for shard, about in self._done.items() if retry_errors and about["errors"]
        }
        # Number of pictures to annotate, by shard: of those not done, and of those retried.
        self._wanted = {
            shard: sum(self._done[shard]["errors"].values())
            if shard in self._retried
            else plan.size(shard)
            for shard in range(plan.shards)
            if shard not in self._done or shard in self._retried
        }
        self._before = plan.images - sum(self._wanted.values())
        # Results of shards that still lack some, by shard and chunk.
        self._open: dict[int, dict[int, Result]] = {}
        self._written: set[int] = set()
        # Lines of the parts that this run replaced and may have to put back, by shard.
        self._replaced: dict[int, dict[str, Any]] = {}

    def finish(self, engine: Engine, workers: int | None) -> Summary:
        """Make the parts that are missing, if any, and complete the table."""
        if self._done:
            self._note(
                f"{self._before:,} of {self._plan.images:,} images were finished before"
                + ("" if self._wanted else ": nothing is left to do")
                + "; the sources were listed when the table was begun, so files added since, "
                "also to lists, need another table"
            )
        if self._wanted:
            self._check_installed()
            if self._manifest["complete"]:
                self._settle(complete=False)
            self._progress(self._before, self._plan.images)
            self._annotate(engine, workers)
            self._check_sources()
            if lost := self._wanted.keys() - self._written:  # do not trust the engine
                raise TableError(
                    f"{self._folder.path}: {len(lost):,} parts were not delivered by the engine: "
                    "run the same command again"
                )
        if not self._manifest["complete"]:
            self._settle(complete=True)
        return self._summary()

    def _check_installed(self) -> None:
        """Fail early if an extra or driver that the sources need is not installed any more."""
        for extra in self._manifest["plan"]["extras"]:
            require(extra)
        for url in self._manifest["plan"]["protocols"].values():
            storage.check_driver(url)

    def _annotate(self, engine: Engine, workers: int | None) -> None:
        images = self._before
        tasks = self._plan.tasks(self._wanted, self._failed)
        with contextlib.closing(engine(tasks, self._job, workers)) as results:
            for result in results:
                images += result.images
                parts = self._open.setdefault(result.shard, {})
                parts[result.chunk] = result
                if sum(part.images for part in parts.values()) == self._wanted[result.shard]:
                    self._close(result.shard)
                self._progress(images, self._plan.images)

    def _failed(self, shard: int) -> Collection[str] | None:
        """Names of a shard's pictures to retry; None if the whole shard is annotated."""
        return retry.failed(self._earlier(shard)) if shard in self._retried else None

    def _earlier(self, shard: int) -> Any:
        return retry.read_part(self._folder.path / part_name(shard))

    def _close(self, shard: int) -> None:
        """Write a shard of which every picture is annotated, unless a source has changed.

        Checked before the part counts: a stopped run never reaches the final check.
        """
        results = self._open.pop(shard)
        if not self._watch.changed(item.path for item in self._plan.items(shard)):
            self._done[shard] = self._write(shard, [results[chunk] for chunk in sorted(results)])
            self._written.add(shard)

    def _write(self, shard: int, results: Iterable[Result]) -> dict[str, Any]:
        """Write the part of a shard, given the results of all its chunks in order."""
        import pyarrow as pa
        import pyarrow.compute as pc

        batches = [
            batch
            for result in results
            for data in result.batches
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
        if shard in self._retried and self._manifest["plan"]["sources"]:
            self._folder.keep_part(shard)
            self._replaced[shard] = self._done[shard]
        return self._folder.write_part(shard, encode_part(table), about)

    def _check_sources(self) -> None:
        """Discard this run's parts that read from a source that was replaced during the run.

        A replaced tar or table yields pictures under other pictures' names. Its parts are discarded
        even if the original file has been restored since; where errors were tried again, the rows
        of before are put back, as their pictures may be gone. A local file that was only gone, as
        when its disk is unmounted, spoils no part.

        Raises:
            TableError: parts are missing because a source was replaced or gone.
            SourceError: a source cannot be checked now.
        """
        self._watch.look_at_all()
        paths = self._watch.replaced
        spoilt = [
            shard
            for shard in (self._wanted if paths else ())
            if any(item.path in paths for item in self._plan.items(shard))
        ]
        if not spoilt:  # no change, or only in sources that this run did not read
            gone, lost = self._watch.seen - paths, self._wanted.keys() - self._written
            if gone and lost:
                raise TableError(
                    f"{min(gone)} was gone while {self._folder.path} was made: {len(lost):,} parts "
                    "are missing, finished ones are kept. Put it back, and run the same command "
                    "again"
                )
            return
        discarded = self._written.intersection(spoilt)
        for shard in discarded:
            del self._done[shard]
        self._done |= {shard: self._replaced[shard] for shard in discarded & self._replaced.keys()}
        # At once for all; if the rest is stopped, the next run does it.
        self._folder.settle(self._done)
        for shard in discarded:
            if shard in self._replaced:
                self._folder.restore_part(shard)
            else:
                self._folder.drop_part(shard)
        raise TableError(
            f"{min(paths)} changed while {self._folder.path} was made, so its names may now be "
            f"those of other pictures: {len(spoilt):,} parts do not count. Restore the old file, "
            "with its modification time, and run the same command again, or start another table"
        )

    def _settle(self, *, complete: bool) -> None:
        if complete:
            self._folder.drop_strangers(self._plan.shards)
            self._folder.settle(self._done)
            self._folder.drop_kept()
        self._manifest["complete"] = complete
        self._folder.write_manifest(self._manifest)

    def _summary(self) -> Summary:
        summary = Summary(self._plan.images, annotated=self._plan.images - self._before)
        for about in self._done.values():
            summary.faces += about["faces"]
            summary.errors.update(about["errors"])
            summary.without_face += about["rows"] - about["faces"] - sum(about["errors"].values())
        return summary
