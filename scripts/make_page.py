"""Build the page that runs on the visitor's own device.

    python scripts/make_page.py                                    # writes dist/page
    python scripts/make_page.py --attributes age,gender,ethnicity  # with ethnicity, off by default

Builds two things: the pipeline and its models, in the server's page folder, from which the server
offers them; and ``dist/page``, the same page as a static folder for any host. Constants are read
from the Python modules and the models' specs and written to ``device.json``.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import html
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import onnx
from flat_network import flatten, layers_of
from gpu_plan import UnknownGraphError, gpu_plan
from pack_model import pack

from facewise import (
    attributes,
    calibration,
    cascade,
    images,
    labels,
    mtcnn,
    portrait,
    quality,
    resample,
    windows,
)
from facewise._version import __version__
from facewise.models import DETECTOR_SPEC, WEIGHTS_FOLDER, load_spec
from facewise.server.cards import card_page
from facewise.server.middleware import CONTENT_SECURITY_POLICY
from facewise.server.pages import DEVICE, PAGE
from facewise.server.schemas import SCHEMA_VERSION

ROOT = Path(__file__).parents[1]
WEB = ROOT / "web"
COST = ROOT / "docs/results/page-model.json"
PUBLISHED = ("age", "gender")
"""A published page omits ethnicity unless its builder asks for it."""
LIMIT_BYTES = {"model": 6_000_000, "folder": 12_000_000}
RUNTIME = "ort-wasm-simd-threaded.wasm"
WORTH_PACKING = {"bytes": 10_000, "share": 0.9}
"""Smaller files, and those that gzip hardly shrinks, get no compressed copy."""
HEAD = "<!-- head of the static page -->"


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def entry(file: str, data: bytes) -> dict[str, Any]:
    return {"file": file, "sha256": sha256(data), "bytes": len(data)}


def write_models(folder: Path) -> dict[str, Any]:
    """Write the detector for the page's kernels and the packed attribute model; their specs."""
    detector = json.loads(DETECTOR_SPEC.read_text(encoding="utf-8"))
    for network in detector["networks"].values():
        source = WEIGHTS_FOLDER / network["file"]
        data, layers = flatten(layers_of(onnx.load(source)))
        (folder / source.with_suffix(".bin").name).write_bytes(data)
        network.update(entry(source.with_suffix(".bin").name, data), layers=layers)
    spec = load_spec()
    packed = pack(onnx.load(spec.weights_path)).SerializeToString()
    if len(packed) > LIMIT_BYTES["model"]:
        sys.exit(f"{spec.file} takes {len(packed):,} bytes packed: the page allows 6 MB")
    (folder / spec.file).write_bytes(packed)
    model = json.loads(spec.path.read_text(encoding="utf-8"))
    model.update(entry(spec.file, packed))
    try:
        model["gpu"] = gpu_plan(packed, spec.size_px)
    except UnknownGraphError as error:
        print(f"without WebGPU: {error}")
    kernels = entry("kernels.wasm", (folder / "kernels.wasm").read_bytes())
    runtime = entry(RUNTIME, (folder / RUNTIME).read_bytes())
    return {"kernels": kernels, "runtime": runtime, "detector": detector, "model": model}


def device_spec(models: dict[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    """All constants that the pipeline in the browser needs."""
    models["detector"].update(
        cell_px=windows.CELL_PX,
        stride_px=windows.STRIDE_PX,
        batch_size=cascade.BATCH_SIZE,
        band_area_px=windows.PIECE_AREA_PX,
        min_band_px=windows.MIN_STEP_PX,
        pixels_a_cell=mtcnn.PIXELS_A_CELL,
        detail=resample.DETAIL,
        bordered_px=portrait.BORDERED_PX,
        most_sides=portrait.MOST_SIDES,
        border_value=images.BORDER,
    )
    models["model"]["batch_size"] = attributes.BATCH_SIZE
    return {
        "schema_version": SCHEMA_VERSION,
        "facewise_version": __version__,
        "attributes": names,
        "coverage": 0.9,
        "gate_coverage": calibration.GATE_COVERAGE,
        "border": images.BORDER,
        "min_std_years": calibration.MIN_STD_YEARS,
        "reasons": calibration.QUALITY_REASONS,
        "unsure": calibration.UNSURE,
        "labels": {
            "decades": labels.DECADE_LABELS,
            "gender": labels.GENDER_LABELS,
            "ethnicity": labels.ETHNICITY_LABELS,
        },
        "limits": {
            "max_bytes": images.DEFAULT_MAX_BYTES,
            "max_pixels": images.DEFAULT_MAX_PIXELS,
            "min_side_px": images.DEFAULT_MIN_SIDE_PX,
        },
        "quality": {
            "sharpness_size_px": quality.SHARPNESS_SIZE_PX,
            "inner_px": quality.INNER_PX,
            "nose_depth": quality.NOSE_DEPTH,
            "face_height": quality.FACE_HEIGHT,
            "fine_sigma_px": quality.FINE_SIGMA_PX,
            "coarse_sigmas_px": quality.COARSE_SIGMAS_PX,
            "min_deviation": quality.MIN_DEVIATION,
        },
        **models,
    }


def write_packed(folder: Path) -> None:
    """Write gzip copies beside the files worth compressing, for hosts that serve such copies."""
    for path in sorted(folder.iterdir()):
        data = path.read_bytes()
        packed = gzip.compress(data, 9, mtime=0)
        if len(data) > WORTH_PACKING["bytes"] and len(packed) < WORTH_PACKING["share"] * len(data):
            path.with_name(f"{path.name}.gz").write_bytes(packed)


def build_device(folder: Path, names: tuple[str, ...]) -> None:
    """Build models, spec and script, completely or not at all."""
    making = folder.with_name(folder.name + ".making")
    shutil.rmtree(making, ignore_errors=True)
    making.mkdir(parents=True)
    node: list[str | Path] = [sys.executable, ROOT / "scripts/node.py", "node"]
    if subprocess.run([*node, WEB / "build.mjs", making]).returncode:
        sys.exit("the script was not built: `make page` installs what it needs (web/package.json)")
    (making / "NOTICES.txt").write_text(
        "worker.js and the .wasm and .mjs files hold ONNX Runtime Web: Copyright (c) Microsoft "
        "Corporation, MIT licence, https://github.com/microsoft/onnxruntime\n\n"
        + (ROOT / "THIRD_PARTY_NOTICES.md").read_text(encoding="utf-8"),
        encoding="utf-8",
    )
    spec = device_spec(write_models(making), names)
    (making / "device.json").write_text(json.dumps(spec, indent=1) + "\n", encoding="utf-8")
    write_packed(making)
    shutil.rmtree(folder, ignore_errors=True)
    making.rename(folder)


def replaced(text: str, old: str, new: str) -> str:
    if old not in text:
        sys.exit(f"the page has changed: {old!r} is not in it; adapt scripts/make_page.py")
    return text.replace(old, new)


def page_policy() -> str:
    """The server's content security policy, as far as a page can declare it for itself."""
    parts = CONTENT_SECURITY_POLICY.split("; ")
    return "; ".join(part for part in parts if not part.startswith("frame-ancestors"))


def index_page() -> str:
    policy = html.escape(page_policy(), quote=False)
    text = (PAGE / "index.html").read_text(encoding="utf-8")
    text = replaced(text, 'data-engine="server"', 'data-engine="device"')
    text = replaced(text, '"v1/models/default/card"', '"card.html"')
    # What the server's page says until its engine answers; here, the models have to load first.
    text = replaced(text, "BMP, GIF, TIFF, AVIF, PGM, PPM or HEIC", "AVIF, GIF or BMP")
    forgotten = "Photos are analysed in memory and forgotten."
    text = replaced(
        text, forgotten, "Photos are analysed on this device: they are not sent anywhere."
    )
    head = '<script type="module" src="static/offline.js"></script>'
    text = replaced(text, HEAD, head)
    charset = '<meta charset="utf-8">'
    meta = f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
    return replaced(text, charset, f"{charset}\n{meta}")


def card() -> str:
    """The model card, with what storing these weights in 12 bits costs, if that was measured."""
    spec = load_spec()
    text = card_page(spec)
    text = text.replace("../../../static/", "static/").replace("../../../docs", "card.html")
    text = replaced(text, ' <a href="card.html">API</a>', "").replace('"../../../"', '"./"')
    cost = json.loads(COST.read_text(encoding="utf-8")) if COST.exists() else {}
    if cost.get("sha256") != spec.sha256:  # nothing was measured, or other weights were
        print("the card says nothing of 12 bits: scripts/page_model_cost.py measures them")
        return text
    rows = "".join(
        f"<tr><td>{html.escape(name)}</td><td>{shipped:.3f}</td><td>{packed:.3f}</td></tr>"
        for name, (shipped, packed) in cost["figures"].items()
    )
    section = (
        "<h2>On this page</h2><p>Here the weights are stored in 12 bits each instead of 16 "
        f"({cost['bytes'] / 1e6:.2f} MB). Measured on {cost['faces']:,} faces of the val splits, "
        "found and cut out once:</p><table><thead><tr><th></th><th>as shipped</th>"
        f"<th>on this page</th></tr></thead><tbody>{rows}</tbody></table>"
    )
    return replaced(text, "</main>", f"{section}\n</main>")


def build_static(out: Path, device: Path) -> None:
    """Build the whole page as a folder that works on any host and under any path."""
    shutil.rmtree(out, ignore_errors=True)
    shutil.copytree(PAGE / "static", out / "static", ignore=lambda *_: ["device"])
    shutil.copytree(device, out / "static/device")
    for name in ("docs.js", "engine-server.js"):
        (out / "static" / name).unlink()
    shutil.copy(WEB / "page/offline.js", out / "static/offline.js")
    (out / "index.html").write_text(index_page(), encoding="utf-8")
    (out / "card.html").write_text(card(), encoding="utf-8")
    headers = (WEB / "page/headers.txt").read_text(encoding="utf-8")
    files = sorted(path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file())
    version = sha256("".join(sha256((out / file).read_bytes()) for file in files).encode())[:16]
    worker = (WEB / "page/sw.js").read_text(encoding="utf-8")
    kept = ["./", *(file for file in files if not file.endswith((".txt", ".md", ".gz")))]
    worker = replaced(worker, "__FILES__", json.dumps(kept, indent=1))
    (out / "sw.js").write_text(replaced(worker, "__VERSION__", version), encoding="utf-8")
    (out / "_headers").write_text(replaced(headers, "__POLICY__", page_policy()), encoding="utf-8")


def packed_bytes(folder: Path) -> int:
    """Size of the folder as tar.gz, without the gzip copies in it."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        archive.add(
            folder, folder.name, filter=lambda item: None if item.name.endswith(".gz") else item
        )
    return out.tell()


def attributes_of(text: str) -> tuple[str, ...]:
    """The attributes that ``--attributes`` names, in the usual order; PUBLISHED if it is empty."""
    names = text.split(",") if text else PUBLISHED
    if not set(names) <= set(labels.ATTRIBUTES):
        sys.exit(f"--attributes: name some of {','.join(labels.ATTRIBUTES)}")
    return tuple(name for name in labels.ATTRIBUTES if name in names)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--attributes", default=os.environ.get("ATTRIBUTES", ""))
    parser.add_argument("--out", type=Path, default=ROOT / "dist/page", help="the static folder")
    parser.add_argument("--device", type=Path, default=DEVICE, help="the server's part of it")
    options = parser.parse_args()
    names = attributes_of(options.attributes)
    build_device(options.device, names)
    build_static(options.out, options.device)
    size = packed_bytes(options.out)
    print(f"{options.out}: {size / 1e6:.2f} MB as tar.gz; attributes: {', '.join(names)}")
    if "ethnicity" not in names:
        print("ethnicity is off: a builder who may publish it names it, with --attributes")
    if size > LIMIT_BYTES["folder"]:
        sys.exit("the folder is larger than 12 MB as tar.gz")


if __name__ == "__main__":
    main()
