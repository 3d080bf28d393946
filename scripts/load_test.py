"""Load test: many clients on one server, against the bare pipeline on the same photos.

    python scripts/load_test.py [--clients 64] [--seconds 60]

Starts ``facewise serve`` on loopback, warms it up, lets the clients post photos of one to six faces
as fast as it answers (after a 503 they wait as long as Retry-After says), and writes
docs/results/load.json and load.md. The bare pipeline is ``Analyzer.analyze`` in a separate process,
with as many threads as the server. Faces per CPU second are compared, since CPU time is what a
server costs and a busy machine distorts wall time.

The pipeline is also timed on batches, to decide whether requests should share them. As long as that
gains only a few per cent they don't, because they would wait for each other.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import os
import platform
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
from PIL import Image

from facewise.models import load_spec

ROOT = Path(__file__).parents[1]
OUT = ROOT / "docs/results"
TICK = os.sysconf("SC_CLK_TCK")


def photos() -> list[tuple[bytes, int]]:
    """Photos of one to six faces, 640 px wide, as JPEG."""
    portrait = Image.open(ROOT / "tests/data/astronaut.jpg").convert("RGB").crop((90, 10, 360, 280))
    out = []
    for count in range(1, 7):
        sheet = Image.new("RGB", (640, 440), (205, 205, 200))
        for index in range(count):
            sheet.paste(portrait.resize((200, 200)), (10 + index % 3 * 210, 10 + index // 3 * 215))
        data = io.BytesIO()
        sheet.save(data, "JPEG", quality=90)
        out.append((data.getvalue(), count))
    return out


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICK


def resident_mb(pid: int) -> float:
    match = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert match is not None
    return int(match.group(1)) * 1024 / 1e6


def bare(threads: int, seconds: float) -> None:
    """The pipeline without a server; prints faces and CPU seconds."""
    from facewise import Analyzer

    analyzer = Analyzer(threads=1)
    items = photos()
    for data, _ in items:
        analyzer.analyze(data)
    end = time.monotonic() + seconds
    before = time.process_time()

    def work(start: int) -> tuple[int, int]:
        faces, done = 0, start
        while time.monotonic() < end:
            faces += len(analyzer.analyze(items[done % len(items)][0]))
            done += 1
        return faces, done - start

    with ThreadPoolExecutor(threads) as pool:
        results = list(pool.map(work, range(threads)))
    used = time.process_time() - before
    faces, done = (sum(column) for column in zip(*results, strict=True))
    # Would it pay to batch requests that are waiting together? The same photos, six per call.
    before, shared = time.process_time(), 0
    for _ in range(max(2, done // 18)):
        shared += sum(map(len, analyzer.analyze_many([data for data, _ in items])))
    together = shared / (time.process_time() - before)
    result = {"faces": faces, "photos": done, "cpu_seconds": used, "batched_rate": together}
    print(json.dumps(result))


class Tally:
    """What the clients have observed."""

    def __init__(self) -> None:
        self.latencies: list[float] = []
        self.faces = 0
        self.busy = 0
        self.errors: list[str] = []


async def client(
    url: str, number: int, items: list[tuple[bytes, int]], end: float, t: Tally
) -> None:
    async with httpx.AsyncClient(base_url=url, timeout=60, trust_env=False) as http:
        done = number
        while time.monotonic() < end:
            data, expected = items[done % len(items)]
            done += 1
            began = time.perf_counter()
            try:
                answer = await http.post(
                    "/v1/analyze", content=data, headers={"Content-Type": "image/jpeg"}
                )
            except httpx.HTTPError as error:
                t.errors.append(type(error).__name__)
                continue
            if answer.status_code == 200:
                t.latencies.append(time.perf_counter() - began)
                found = len(answer.json()["faces"])
                t.faces += found
                if found != expected:
                    t.errors.append(f"{found} faces for {expected}")
            elif answer.status_code == 503 and "retry-after" in answer.headers:
                t.busy += 1
                await asyncio.sleep(float(answer.headers["retry-after"]))
            else:
                t.errors.append(str(answer.status_code))


async def press(url: str, pid: int, clients: int, seconds: float) -> tuple[Tally, list[float]]:
    """Run the clients; returns what they observed and the server's memory, sampled every second."""
    items, tally, memory = photos(), Tally(), []
    end = time.monotonic() + seconds
    tasks = [asyncio.create_task(client(url, n, items, end, tally)) for n in range(clients)]
    while time.monotonic() < end:
        await asyncio.sleep(1)
        memory.append(resident_mb(pid))
    await asyncio.gather(*tasks)
    return tally, memory


def quantile(values: list[float], q: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(q * len(ordered)))]


def run(clients: int, seconds: float, threads: int) -> dict[str, object]:
    process = subprocess.Popen(
        [sys.executable, "-m", "facewise", "serve", "--port", "0", "--no-open"],
        env={**os.environ, "FACEWISE_THREADS": str(threads), "MALLOC_ARENA_MAX": "2"},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert process.stdout is not None
        match = re.search(r"http://\S+", process.stdout.readline())
        assert match is not None, "the server did not start"
        asyncio.run(press(match.group(), process.pid, clients, min(40, seconds)))  # warm-up
        warm_mb, cpu, began = resident_mb(process.pid), cpu_seconds(process.pid), time.monotonic()
        tally, memory = asyncio.run(press(match.group(), process.pid, clients, seconds))
        passed, cpu = time.monotonic() - began, cpu_seconds(process.pid) - cpu
    finally:
        process.terminate()
        process.wait()
    command = [sys.executable, __file__, "--bare", "--threads", str(threads)]
    output = subprocess.run(
        [*command, "--seconds", str(min(30, seconds))], capture_output=True, text=True, check=True
    ).stdout
    alone = json.loads(output.splitlines()[-1])
    spec = load_spec("default")
    server_rate, bare_rate = tally.faces / cpu, alone["faces"] / alone["cpu_seconds"]
    return {
        "model": f"{spec.name}@{spec.version}",
        "clients": clients,
        "seconds": round(passed, 1),
        "threads": threads,
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "photos": len(tally.latencies),
        "faces": tally.faces,
        "busy_503": tally.busy,
        "errors": len(tally.errors),
        "error_kinds": sorted(set(tally.errors)),
        "photos_per_second": round(len(tally.latencies) / passed, 2),
        "latency_seconds": {
            name: round(quantile(tally.latencies, q), 3)
            for name, q in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99))
        },
        "memory_mb": {
            "after_warm_up": round(warm_mb),
            "highest": round(max(memory)),
            "end": round(memory[-1]),
        },
        "faces_per_cpu_second": round(server_rate, 2),
        "bare_pipeline_faces_per_cpu_second": round(bare_rate, 2),
        "batches_of_six_faces_per_cpu_second": round(alone["batched_rate"], 2),
        "share_of_bare_pipeline": round(server_rate / bare_rate, 3),
    }


def as_markdown(r: dict) -> str:  # type: ignore[type-arg]
    late, memory = r["latency_seconds"], r["memory_mb"]
    rows = {
        "model": r["model"],
        "clients, seconds": f"{r['clients']}, {r['seconds']:g}",
        "server threads, cores of the machine": f"{r['threads']}, {r['cores']}",
        "photos answered, faces": f"{r['photos']}, {r['faces']}",
        "503 with Retry-After": r["busy_503"],
        "errors": r["errors"],
        "photos a second": r["photos_per_second"],
        "latency p50, p95, p99": f"{late['p50']}, {late['p95']}, {late['p99']} s",
        "memory after warm-up, highest, end": f"{memory['after_warm_up']}, {memory['highest']}, "
        f"{memory['end']} MB",
        "faces a CPU-second, server": r["faces_per_cpu_second"],
        "faces a CPU-second, bare pipeline": r["bare_pipeline_faces_per_cpu_second"],
        "faces a CPU-second, photos sharing batches of six": r[
            "batches_of_six_faces_per_cpu_second"
        ],
        "server's share": f"{r['share_of_bare_pipeline']:.0%}",
    }
    lines = ["# Load test", "", "`make load` writes this page and `load.json`.", ""]
    lines += ["| figure | value |", "|---|---|"]
    lines += [f"| {name} | {value} |" for name, value in rows.items()]
    return "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description="Load test of the server.")
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--bare", action="store_true", help="only the pipeline")
    arguments = parser.parse_args()
    if sys.platform != "linux":
        sys.exit("scripts/load_test.py counts on Linux: times and memory are from /proc")
    if arguments.bare:
        bare(arguments.threads, arguments.seconds)
        return 0
    result = run(arguments.clients, arguments.seconds, arguments.threads)
    OUT.mkdir(parents=True, exist_ok=True)
    (OUT / "load.json").write_text(json.dumps(result, indent=1) + "\n")
    (OUT / "load.md").write_text(as_markdown(result))
    print(json.dumps(result, indent=1))
    memory = result["memory_mb"]
    assert isinstance(memory, dict)
    flat = memory["end"] <= memory["after_warm_up"] * 1.1 + 10
    share = float(str(result["share_of_bare_pipeline"]))
    return 0 if not result["errors"] and flat and share >= 0.8 else 1


if __name__ == "__main__":
    sys.exit(main())
