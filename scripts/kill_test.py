"""Kill ``facewise annotate`` repeatedly; the table must equal that of an uninterrupted run.

    python scripts/kill_test.py ../shared/data/fairface.tar --kills 30

SIGKILL hits the parent at random moments, then a last run completes. Every file of its table is
compared byte by byte with that of a run that was never killed, and the rows are counted. No child
may survive a kill, because it could still write. Writes docs/results/kill-test.json.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def command(source: Path, out: Path, shard_size: int, workers: int) -> list[str]:
    return [
        *(sys.executable, "-m", "facewise", "annotate", str(source), "--out", str(out)),
        *("--shard-size", str(shard_size), "--workers", str(workers)),
    ]


def children_of(pid: int) -> set[int]:
    found = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == pid:
            found.add(int(stat.parent.name))
    return found


def alive(pids: set[int]) -> set[int]:
    """The processes that are still running; zombies do not count."""
    out = set()
    for pid in pids:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            continue
        if state not in "ZX":
            out.add(pid)
    return out


def files(table: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted(table.iterdir()) if p.suffix == ".parquet"}


def parts(table: Path) -> int:
    return len(list(table.glob("part-*.parquet")))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--shard-size", type=int, default=250)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", type=Path, help="folder for the tables; a temporary one if none")
    parser.add_argument("--out", type=Path, default=Path("docs/results/kill-test.json"))
    args = parser.parse_args()
    if sys.platform != "linux":
        sys.exit("scripts/kill_test.py counts on Linux: it looks for survivors in /proc")
    rng = random.Random(args.seed)
    with tempfile.TemporaryDirectory(dir=args.work) as name:
        quiet, killed = Path(name) / "quiet", Path(name) / "killed"
        begun = time.monotonic()
        run = command(args.source, quiet, args.shard_size, args.workers)
        subprocess.run(run, check=True, stdout=subprocess.DEVNULL)
        whole = time.monotonic() - begun
        orphans, landed, seen = 0, 0, []
        run = command(args.source, killed, args.shard_size, args.workers)
        for _ in range(args.kills):
            process = subprocess.Popen(run, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            # Anywhere from the first import to a few parts in; all kills together stay below a
            # whole run.
            deadline = time.monotonic() + rng.uniform(0.3, 1.8 * whole / args.kills)
            while process.poll() is None and time.monotonic() < deadline:
                time.sleep(0.02)
            children = children_of(process.pid)
            landed += process.poll() is None
            process.send_signal(signal.SIGKILL)
            process.wait()
            limit = time.monotonic() + 5
            while alive(children) and time.monotonic() < limit:
                time.sleep(0.02)
            orphans += len(alive(children))
            seen.append(parts(killed) if killed.exists() else 0)
        subprocess.run(run, check=True, stdout=subprocess.DEVNULL)
        expected, actual = files(quiet), files(killed)
        import pyarrow.parquet as pq

        from facewise.batch.job import CHUNK
        from facewise.models import load_spec

        spec = load_spec()
        table = pq.read_table(killed, columns=["image_id", "face_index"])
        keys = list(zip(*(table[c].to_pylist() for c in table.column_names), strict=True))
        result = {
            "images": len({image for image, _ in keys}),
            "rows": len(keys),
            "rows_twice": len(keys) - len(set(keys)),
            "kills": args.kills,
            "kills_that_hit_a_running_parent": landed,
            "parts_after_each_kill": seen,
            "orphans_five_seconds_after": orphans,
            "files": len(expected),
            "files_that_differ": sum(
                expected.get(n) != actual.get(n) for n in {*expected, *actual}
            ),
            "quiet_run_seconds": round(whole, 1),
            "cores": os.cpu_count(),
            "model": f"{spec.name}@{spec.version}",
            "weights": spec.sha256[:12],
            "pictures_a_task": CHUNK,
        }
    args.out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))
    if result["files_that_differ"] or result["rows_twice"] or orphans:
        sys.exit("the table differs from that of a run that was never killed")


if __name__ == "__main__":
    main()
