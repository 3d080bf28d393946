"""Check the deployment files without building an image.

    python scripts/check_deploy.py            # everything
    python scripts/check_deploy.py --files    # only read the files
    python scripts/check_deploy.py --write    # everything, and write the figures to the docs

Checks Dockerfile, compose.yaml, nginx.conf and Procfile against rules like hadolint's. Then runs
the Dockerfile's build steps in a clean folder, starts its command there with the settings from
docs/deploy-heroku.md, sends photos up to the largest that these allow, and compares the size on
disk and the memory with a small host's limits: 500 MB and 512 MB.
"""

from __future__ import annotations

import argparse
import ipaddress
import json
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).parents[1]
SLUG_LIMIT_MB, MEMORY_LIMIT_MB = 500, 512
PROCESS_MB = 288
"""Memory of a server that holds no photo."""
BYTES_A_PIXEL = 3
"""Of a batch's other photos."""
PHOTOS, CLIENTS, LARGEST_EVERY = 60, 8, 10
FIGURES = ROOT / "docs/results/deploy.json"
HEROKU = ROOT / "docs/deploy-heroku.md"
SENTENCE = re.compile(r"\d+ MB on disk \(of 500\),\s+\d+ MB peak memory \(of 512\)")
LARGE_PHOTO = """
import io, math, sys
from PIL import Image
side = math.isqrt(int(sys.argv[2]))
picture = Image.open(sys.argv[1]).convert("RGB").resize((side, side))
picture.save(sys.stdout.buffer, "JPEG", quality=90, subsampling=0, progressive=True)
"""


def dockerfile() -> list[tuple[str, str]]:
    """Instructions as (name, rest), with continued lines joined."""
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
    gitignored = (ROOT / ".gitignore").read_text()
    docker_docs = (ROOT / "docs/deploy-docker.md").read_text()
    settings = (ROOT / "src/facewise/settings.py").read_text()
    titles = (ROOT / "src/facewise/server/problems.py").read_text()
    middleware = (ROOT / "src/facewise/server/middleware.py").read_text()
    request_id = middleware.partition('_REQUEST_ID: Final = re.compile(r"')[2].partition('"')[0]
    refusals = [
        (int(status), json.loads(body))
        for status, body in re.findall(r"return (\d+) '(.+)';", nginx)
    ]
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
        "a health check, at the port that is set": "FACEWISE_PORT" in dict(steps)["HEALTHCHECK"],
        "the context holds only what is copied": ignored.startswith("*\n"),
        "compose: read-only, no capabilities, no new privileges, twice": compose.count(
            "read_only: true"
        )
        == compose.count("cap_drop: [ALL]")
        == compose.count("no-new-privileges:true")
        == 2,
        "compose: nginx waits for healthy workers": "service_healthy" in compose,
        "compose: nginx's root may not read everybody's files, and the docs say whose the key is": (
            "DAC_OVERRIDE" not in re.sub("#.*", "", compose)
            and "chown -R root: deploy/tls" in docker_docs
        ),
        "compose: bodies and the largest photo fit into the memory": fits(
            dict(re.findall(r'(FACEWISE_\w+): "(\d+)"', compose)), 1024**3 / 1e6, any_format_mb
        )
        and "mem_limit: 1g" in compose,
        "Heroku: bodies and the largest JPEG fit into the memory": fits(
            heroku_settings(), MEMORY_LIMIT_MB, any_jpeg_mb
        ),
        "Heroku: the largest photo of any format that the docs name fits into the memory": fits(
            heroku_settings() | {"FACEWISE_MAX_PIXELS": any_format_pixels()},
            MEMORY_LIMIT_MB,
            any_file_mb,
        ),
        "git leaves the private key out": "/deploy/tls/" in gitignored.splitlines(),
        "compose: ethnicity is not switched on": not re.search(
            r"^\s*FACEWISE_ATTRIBUTES", compose, re.MULTILINE
        ),
        "nginx does not buffer bodies": "proxy_request_buffering off;" in nginx,
        "nginx waits longer for a body than the app": "client_body_timeout 75s;" in nginx
        and "upload_timeout_seconds: float = Field(\n        default=60.0" in settings,
        "nginx packs WebAssembly, in both examples": bool(
            re.search(r"location /static/ \{[^}]*gzip on;[^}]*application/wasm", nginx)
        )
        and "gzip_static on;" in (ROOT / "docs/static-hosting-own.md").read_text(),
        "nginx: TLS and rate limits": "listen 443 ssl" in nginx and "limit_req zone" in nginx,
        "nginx: who reaches a limit is not written to the error log, with address and query": all(
            f"limit_{kind}_log_level info;" in nginx for kind in ("req", "conn")
        )
        and "error_log" not in nginx,  # its default level is above info
        "nginx: a /64 of IPv6 is one client, in every zone": "_zone $binary" not in nginx
        and [key(nginx, address) for address in ("2001:db8::1", "2001:db8::a:0:0:1", "9.9.9.9")]
        == [bytes.fromhex("20010db800000000")] * 2 + [bytes([9, 9, 9, 9])]
        and key(nginx, "::ffff:9.9.9.9") != key(nginx, "::ffff:9.9.9.8"),
        "nginx: batches, which are one request each, have a lower limit of their own": bool(
            re.search(r"zone=batches:\d+m rate=\d+r/m;", nginx)
            and re.search(r"location /v1/analyze/batch \{[^}]*limit_req zone=batches ", nginx)
        ),
        "nginx's own refusals are problem documents of the app's codes": [
            status for status, _ in refusals
        ]
        == [413, 429, 503]
        and all(
            body["status"] == status and f'"{body["code"]}": "{body["title"]}"' in titles
            for status, body in refusals
        ),
        "nginx takes a client's X-Request-ID where the app does, and its refusals repeat it": (
            f'"~^{request_id}$" $http_x_request_id;' in nginx
            and "proxy_set_header X-Request-ID $id;" in nginx
            and nginx.count("add_header X-Request-ID $id always;") == len(refusals)
            and all(body["request_id"] == "$id" for _, body in refusals)
        ),
        "nginx's processes count a worker's requests together": bool(
            re.search(r"upstream workers \{[^}]*\bzone workers \d+k;[^}]*least_conn;", nginx)
        ),
        "nginx: braces balance": nginx.count("{") == nginx.count("}"),
        "docs/deploy-heroku.md says what docs/results/deploy.json does": docs_agree(),
        "Procfile binds the host's port": "--port $PORT" in procfile and "0.0.0.0" in procfile,
        "one Python everywhere": all(
            f":{(ROOT / '.python-version').read_text().strip()}-" in base for base in bases
        ),
    }
    for rule, holds in rules.items():
        print(f"{'ok  ' if holds else 'FAIL'} {rule}")
    return [rule for rule, holds in rules.items() if not holds]


def key(nginx: str, address: str) -> bytes:
    """The key that nginx's map derives from a client's address."""
    packed = ipaddress.ip_address(address).packed
    block = nginx.partition("map $binary_remote_addr $client {")[2].partition("\n  }")[0]
    for pattern in re.findall('"~(.+)"', block):
        if match := re.search(pattern.encode(), packed):
            return match.groupdict().get("network", packed)
    return packed


def build(folder: Path) -> Path:
    """Run the build stage's COPY and RUN steps with its paths moved under ``folder``."""
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


def heroku_settings() -> dict[str, str]:
    """The settings in docs/deploy-heroku.md."""
    text = HEROKU.read_text().replace("\\\n", " ")
    match = re.search(r"heroku config:set (.+)", text)
    assert match is not None
    return dict(pair.split("=", 1) for pair in match.group(1).split())


def any_format_pixels() -> str:
    """The limit in docs/deploy-heroku.md that keeps other formats than JPEG in memory, too."""
    found = re.search(r"`FACEWISE_MAX_PIXELS=(\d+)` keeps", HEROKU.read_text())
    assert found is not None
    return found.group(1)


def any_file_mb(megapixels: float) -> float:
    """What decoding a photo takes, of any format (table in docs/library.md)."""
    return 21 * megapixels


def any_format_mb(megapixels: float) -> float:
    """The same, also of a file made to take memory."""
    return max(any_file_mb(megapixels), 13 * megapixels + 220)


def any_jpeg_mb(megapixels: float) -> float:
    return 10 * megapixels


def fits(settings: dict[str, str], limit_mb: float, decoding_mb: Callable[[float], float]) -> bool:
    """Whether the settings' worst case fits a host's memory: computed, as no test reaches it."""
    megapixels = int(settings["FACEWISE_MAX_PIXELS"]) / 1e6
    photos = decoding_mb(megapixels) + BYTES_A_PIXEL * megapixels
    bodies = int(settings["FACEWISE_UPLOAD_MEMORY_BYTES"]) / 1e6
    return PROCESS_MB + bodies + int(settings["FACEWISE_THREADS"]) * photos <= limit_mb


def sentence(figures: dict[str, int]) -> str:
    slug, peak = figures["slug_mb"], figures["peak_memory_mb"]
    return f"{slug} MB on disk (of 500), {peak} MB peak memory (of 512)"


def docs_agree() -> bool:
    """Whether the page states the figures of the last run."""
    found = SENTENCE.search(HEROKU.read_text())
    written = sentence(json.loads(FIGURES.read_text()))
    return found is not None and " ".join(found.group().split()) == written


def try_it(target: Path, folder: Path) -> float:
    """Start the image's command as on the host and send photos; peak memory, megabytes."""
    settings = heroku_settings()
    environment = {
        **settings,
        "FACEWISE_TRUSTED_PROXIES": "127.0.0.1",  # this script acts as the router
        "PATH": f"{target / 'bin'}:/usr/bin:/bin",
        "FACEWISE_HOST": "0.0.0.0",
        "FACEWISE_PORT": "0",
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
        portrait = ROOT / "tests/data/astronaut.jpg"
        six = ROOT / "src/facewise/server/page/static/examples/six-ways.jpg"
        python, pixels = str(target / "bin/python"), settings["FACEWISE_MAX_PIXELS"]
        large = subprocess.run(
            [python, "-c", LARGE_PHOTO, str(portrait), pixels], capture_output=True, check=True
        ).stdout
        bodies = [(portrait.read_bytes(), 1), (six.read_bytes(), 6), (large, 1)]

        def send(number: int) -> None:
            data, faces = bodies[2 if number % LARGEST_EVERY == 0 else number % 2]
            request = urllib.request.Request(
                f"{url}/v1/analyze",
                data,
                {
                    "Content-Type": "image/jpeg",
                    "X-Forwarded-For": f"192.0.2.{number}",
                },
            )
            answer = json.load(urllib.request.urlopen(request, timeout=300))
            assert len(answer["faces"]) == faces
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
    parser.add_argument("--write", action="store_true", help="put the figures into docs/")
    arguments = parser.parse_args()
    if not arguments.files and sys.platform != "linux":
        sys.exit("scripts/check_deploy.py without --files counts on Linux: memory is from /proc")
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
        if arguments.write:
            figures = {
                "slug_mb": round(slug),
                "peak_memory_mb": round(peak),
                "photos": PHOTOS,
                "of_which_largest": len(range(0, PHOTOS, LARGEST_EVERY)),
                "clients": CLIENTS,
            }
            FIGURES.write_text(json.dumps(figures, indent=1) + "\n")
            HEROKU.write_text(SENTENCE.sub(sentence(figures), HEROKU.read_text()))
    print("FAILED: " + ", ".join(failed) if failed else "all well")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
