"""Nothing of a photo touches the disk: the server runs where no file can be written at all."""

from __future__ import annotations

import io
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image

from .pictures import encoded

LAUNCH = """
import resource, signal
# Any write to a file ends the process (SIGXFSZ), whatever the path; sockets and pipes are no files.
resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
{extra}
import sys
sys.argv = ["facewise", "serve", "--port", "0", "--no-open"]
from facewise.cli import main
main()
"""
WRITE_A_FILE = "import os; os.write(os.open({path!r}, os.O_CREAT | os.O_WRONLY), b'x')"


def start(tmp_path: Path, extra: str = "") -> subprocess.Popen[str]:
    environment = {
        **os.environ,
        "TMPDIR": str(tmp_path / "not" / "there"),
        "PYTHONDONTWRITEBYTECODE": "1",
        "FACEWISE_THREADS": "1",
    }
    return subprocess.Popen(
        [sys.executable, "-c", LAUNCH.format(extra=extra)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        cwd=tmp_path,
    )


@pytest.mark.skipif(not hasattr(signal, "SIGXFSZ"), reason="no file-size limit on this system")
def test_no_byte_reaches_a_file(tmp_path: Path, portrait: bytes) -> None:
    """Bodies far above Starlette's 1 MB spool pass, and SIGTERM ends the server cleanly."""
    noise = np.random.default_rng(0).integers(0, 255, (2000, 2600, 3), np.uint8)
    picture = Image.fromarray(noise)
    picture.paste(Image.open(io.BytesIO(portrait)))
    large = encoded(picture, "PNG")
    assert len(large) > 15_000_000
    with start(tmp_path) as process:
        try:
            assert process.stdout is not None
            match = re.search(r"http://\S+", process.stdout.readline())
            assert match is not None
            with httpx.Client(base_url=match.group(), timeout=120, trust_env=False) as client:
                answers = [
                    client.post("/v1/analyze", files={"file": ("x.jpg", large)}),
                    client.post("/v1/analyze", content=large, headers={"Content-Type": "image/x"}),
                    client.post("/v1/analyze/batch", files=[("files", ("x", large))] * 2),
                    client.post("/v1/analyze", files={"file": b"\xff" * 30_000_000}),
                    client.get("/metrics"),
                    client.get("/"),
                ]
            assert [answer.status_code for answer in answers] == [200, 200, 200, 413, 200, 200]
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=60)
        finally:
            process.kill()
    # uvicorn stops gracefully, then lets the signal have its usual effect.
    assert process.returncode in (0, -signal.SIGTERM)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not hasattr(signal, "SIGXFSZ"), reason="no file-size limit on this system")
def test_a_server_that_wrote_would_die(tmp_path: Path) -> None:
    """The negative control: under the same limit one written byte ends the process."""
    extra = WRITE_A_FILE.format(path=str(tmp_path / "spool"))
    with start(tmp_path, extra) as process:
        process.communicate(timeout=60)
    assert process.returncode == -signal.SIGXFSZ
