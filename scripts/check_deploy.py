"""Check the deploying files where no image can be built.

    python scripts/check_deploy.py            # everything
    python scripts/check_deploy.py --files    # only read the files

Reads Dockerfile, compose.yaml, nginx.conf and Procfile against rules like hadolint's, then
runs the Dockerfile's own build steps in a clean folder, starts its own command there, sends photos,
and compares the size on disk and the memory with a small host's: 500 MB and 512 MB.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).parents[1]
SLUG_LIMIT_MB, MEMORY_LIMIT_MB = 500, 512
PHOTOS, CLIENTS = 200, 8


def dockerfile() -> list[tuple[str, str]]:
    """Instructions as (name, rest), continued lines joined."""
    text = (ROOT / "Dockerfile").read_text().replace("\\\n", " ")
    lines = [line.strip() for line in text.splitlines()]
    pairs = (line.split(None, 1) for line in lines if line and not line.startswith("#"))
    return [(name.upper(), rest) for name, rest in pairs]


def problems() -> list[str]:
    steps = dockerfile()
    names = [name for name, _ in steps]
    bases = [rest.split()[0] for name, rest in steps if name == "FROM"]
    runs = " ".join(rest for name, rest in steps if name == "RUN")
    users = [rest for name, rest in steps if name == "USER"]
    compose = (ROOT / "compose.yaml").read_text()
    nginx = (ROOT / "deploy/nginx.conf").read_text()
    procfile = (ROOT / "Procfile").read_text()
    ignored = (ROOT / ".dockerignore").read_text()
    rules = {
        "every base image has a tag other than latest (DL3006, DL3007)": all(
            ":" in base and not base.endswith(":latest") for base in bases
        ),
        "the base image is slim": all("slim" in base for base in bases),
        "COPY, not ADD (DL3020)": "ADD" not in names,
        "pip keeps no cache (DL3042)": runs.count("pip install") == runs.count("--no-cache-dir"),
        "no sudo, no cd, absolute WORKDIR (DL3003, DL3004, DL3000)": not re.search(
            r"\b(sudo|cd)\b", runs
        )
        and all(rest.startswith("/") for name, rest in steps if name == "WORKDIR"),
        "the last user is not root (DL3002)": bool(users) and users[-1] not in ("0", "root"),
        "one CMD, in exec form (DL3025)": names.count("CMD") == 1
        and dict(steps)["CMD"].startswith("["),
        "a health check": "HEALTHCHECK" in names,
        "the context holds only what is copied": ignored.startswith("*\n"),
        "compose: read-only, no capabilities, no new privileges, twice": compose.count(
            "read_only: true"
        )
        == compose.count("cap_drop: [ALL]")
        == compose.count("no-new-privileges:true")
        == 2,
        "compose: nginx waits for healthy workers": "service_healthy" in compose,
        "compose: ethnicity is not switched on": not re.search(
            r"^\s*FACEWISE_ATTRIBUTES", compose, re.MULTILINE
        ),
        "nginx does not buffer bodies": "proxy_request_buffering off;" in nginx,
        "nginx: TLS and rate limits": "listen 443 ssl" in nginx and "limit_req zone" in nginx,
        "nginx: braces balance": nginx.count("{") == nginx.count("}"),
        "Procfile binds the host's port": "--port $PORT" in procfile and "0.0.0.0" in procfile,
        "one Python everywhere": all(
            f":{(ROOT / '.python-version').read_text().strip()}-" in base for base in bases
        ),
    }
    for rule, holds in rules.items():
        print(f"{'ok  ' if holds else 'FAIL'} {rule}")
    return [rule for rule, holds in rules.items() if not holds]


def build(folder: Path) -> Path:
    """The build stage's COPY and RUN steps, its paths moved under ``folder``."""
    source, target = folder / "src", folder / "opt"
    source.mkdir()
    for name, rest in dockerfile()[1:]:
        if name == "FROM":
            break
        if name == "COPY":
            *items, where = rest.split()
            for item in items:
                if (ROOT / item).is_dir():
                    ignore = shutil.ignore_patterns("__pycache__")
                    shutil.copytree(ROOT / item, source / where, ignore=ignore)
                else:
                    shutil.copy(ROOT / item, source / where)
        if name == "RUN":
            command = rest.replace("/opt/facewise", str(target))
            command = command.replace("python -m venv", f"{sys.executable} -m venv", 1)
            subprocess.run(["bash", "-euc", command], cwd=source, check=True)
    return target


def size_mb(folder: Path) -> float:
    return sum(p.stat().st_size for p in folder.rglob("*") if not p.is_symlink()) / 1e6


def memory_mb(pid: int) -> float:
    """Peak resident memory of a process, megabytes."""
    status = Path(f"/proc/{pid}/status").read_text()
    match = re.search(r"VmHWM:\s+(\d+) kB", status)
    assert match is not None
    return int(match.group(1)) * 1024 / 1e6


def try_it(target: Path, folder: Path) -> float:
    """Start the image's command as it would start there, send photos; peak memory, megabytes."""
    environment = {
        "PATH": f"{target / 'bin'}:/usr/bin:/bin",
        "FACEWISE_HOST": "0.0.0.0",
        "FACEWISE_PORT": "0",
        "FACEWISE_THREADS": "2",
        "MALLOC_ARENA_MAX": "2",
        "PYTHONDONTWRITEBYTECODE": "1",
        "HOME": str(folder / "nowhere"),
        "TMPDIR": str(folder / "nowhere"),
    }
    command = json.loads(dict(dockerfile())["CMD"])
    process = subprocess.Popen(
        [str(target / "bin" / command[0]), *command[1:]],
        env=environment,
        cwd=folder,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        match = re.search(r":(\d+)/", process.stdout.readline())
        assert match is not None, "the command did not start"
        url = f"http://127.0.0.1:{match.group(1)}"
        bodies = [
            (ROOT / "tests/data/astronaut.jpg").read_bytes(),
            (ROOT / "src/facewise/server/page/static/examples/six-ways.jpg").read_bytes(),
        ]

        def send(number: int) -> None:
            request = urllib.request.Request(
                f"{url}/v1/analyze", bodies[number % 2], {"Content-Type": "image/jpeg"}
            )
            answer = json.load(urllib.request.urlopen(request, timeout=60))
            assert len(answer["faces"]) == (1, 6)[number % 2]
            assert "ethnicity" not in answer["faces"][0], "published: it must be off"

        with ThreadPoolExecutor(CLIENTS) as pool:
            list(pool.map(send, range(PHOTOS)))
        peak = memory_mb(process.pid)
        process.send_signal(signal.SIGTERM)
        process.wait(60)
    finally:
        process.kill()
    return peak


def main() -> int:
    parser = argparse.ArgumentParser(description="Check the deploying files.")
    parser.add_argument("--files", action="store_true", help="only read them")
    parser.add_argument("--out", type=Path, help="write the figures to this JSON file")
    arguments = parser.parse_args()
    failed = problems()
    if not arguments.files:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            started = time.perf_counter()
            target = build(folder)
            seconds = time.perf_counter() - started
            slug, peak = size_mb(target), try_it(target, folder)
        print(
            f"     installed in {seconds:.0f} s, {slug:.0f} MB on disk, peak memory {peak:.0f} MB"
        )
        if slug > SLUG_LIMIT_MB:
            failed.append("slug size")
        if peak > MEMORY_LIMIT_MB:
            failed.append("memory")
        if arguments.out:
            figures = {
                "slug_mb": round(slug),
                "peak_memory_mb": round(peak),
                "photos": PHOTOS,
                "clients": CLIENTS,
            }
            arguments.out.parent.mkdir(parents=True, exist_ok=True)
            arguments.out.write_text(json.dumps(figures, indent=1) + "\n")
    print("FAILED: " + ", ".join(failed) if failed else "all well")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
