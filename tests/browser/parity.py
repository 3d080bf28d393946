"""Comparison of the page's answers with the Python pipeline's, on the same files."""

from __future__ import annotations

import base64
import io
import json
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter

from facewise import Analyzer

CELL_PX = 260
COLUMNS, ROWS = 3, 2
PNG_PX, PNG_PROBABILITY = 2.0, 0.01
JPEG_PROBABILITY, JPEG_SHARE = 0.03, 0.99

Answers = list[dict[str, Any]]

ANALYZE = """async (text) => {
    const engine = await import(new URL("static/engine-device.js", document.baseURI));
    const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
    // As on the page of a server that has all of them on.
    const attributes = ["age", "gender", "ethnicity"];
    await engine.describe({within: {attributes}});
    return engine.analyze(new Blob([bytes]), {attributes, years: true});
}"""


def montages(folder: Path, seed: int = 8) -> Iterator[Image.Image]:
    """Endless sheets of six faces, turned, scaled, lit, blurred and flipped at random."""
    rng = np.random.default_rng(seed)
    faces = [Image.open(path).convert("RGB") for path in sorted(folder.glob("*.webp"))]
    while True:
        grey = tuple(int(v) for v in rng.integers(40, 220, 3))
        sheet = Image.new("RGB", (COLUMNS * CELL_PX, ROWS * CELL_PX), grey)
        for place in range(COLUMNS * ROWS):
            face = faces[int(rng.integers(len(faces)))]
            side = int(face.width * rng.uniform(0.5, 1.2))
            face = face.resize((side, side), Image.Resampling.BICUBIC)
            if rng.random() < 0.5:
                face = face.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
            if rng.random() < 0.3:
                face = face.filter(ImageFilter.GaussianBlur(float(rng.uniform(0.5, 3))))
            face = ImageEnhance.Brightness(face).enhance(float(rng.uniform(0.5, 1.4)))
            turn = float(rng.uniform(-15, 15))
            face = face.rotate(turn, Image.Resampling.BICUBIC, fillcolor=grey)
            corner = (CELL_PX - side) // 2
            sheet.paste(
                face, (place % COLUMNS * CELL_PX + corner, place // COLUMNS * CELL_PX + corner)
            )
        yield sheet


def encoded(picture: Image.Image, kind: str) -> bytes:
    out = io.BytesIO()
    picture.save(out, kind, **({"quality": 90} if kind == "JPEG" else {}))
    return out.getvalue()


def ask_page(page: Any, data: bytes) -> Answers:
    """Ask the page's own pipeline, which ``page`` has loaded."""
    answer = page.evaluate(ANALYZE, base64.b64encode(data).decode())
    faces: Answers = answer["faces"]
    return faces


def ask_python(analyzer: Analyzer, data: bytes) -> Answers:
    return [prediction.to_dict(years=True) for prediction in analyzer.analyze(data)]


def probabilities(face: dict[str, Any]) -> list[float]:
    """The 19 numbers of the contract."""
    parts = (face["age"]["decades"], face["gender"], face["ethnicity"])
    return [p for part in parts for p in part["probabilities"].values()]


@dataclass(slots=True)
class Differences:
    """Differences over all faces of some pictures."""

    faces: int = 0
    abstentions: int = 0
    unmatched: int = 0
    pixels: list[float] = field(default_factory=list)
    probabilities: list[float] = field(default_factory=list)
    years: list[float] = field(default_factory=list)
    other_abstentions: int = 0
    other_intervals: int = 0

    def add(self, expected: Answers, actual: Answers) -> None:
        """Compare the faces of one picture; boxes within half a face's width are the same face."""
        self.faces += len(expected)
        free = list(actual)
        for face in expected:
            self.abstentions += len(face["abstained"])
            near = [other for other in free if _is_near(face["bbox"], other["bbox"])]
            if not near:
                self.unmatched += 1
                continue
            other = near[0]
            free.remove(other)
            places = [
                np.ravel(f["bbox"]).tolist() + np.ravel(f["landmarks"]).tolist()
                for f in (face, other)
            ]
            self.pixels += _distances(*places)
            self.probabilities += _distances(probabilities(face), probabilities(other))
            self.years += _distances(face["age"]["probabilities"], other["age"]["probabilities"])
            self.other_abstentions += set(face["abstained"]) != set(other["abstained"])
            self.other_intervals += face["age"]["interval_years"] != other["age"]["interval_years"]
        self.unmatched += len(free)

    def complaints(self, kind: str) -> list[str]:
        """What exceeds the limits for "PNG" or "JPEG" files; empty if nothing does."""
        out = []
        if self.faces == 0:
            out.append("no face was compared")
        if self.unmatched:
            out.append(f"{self.unmatched} faces found by one of the two only")
        if kind == "PNG":
            if max(self.pixels, default=0) > PNG_PX:
                out.append(f"a box or landmark is {max(self.pixels):.2f} px off")
            if max(self.probabilities + self.years, default=0) > PNG_PROBABILITY:
                out.append(f"a probability is {max(self.probabilities + self.years):.4f} off")
            if self.other_abstentions:
                out.append(f"{self.other_abstentions} faces with other abstentions")
        elif self.share_within(JPEG_PROBABILITY) < JPEG_SHARE:
            share = self.share_within(JPEG_PROBABILITY)
            out.append(f"only {share:.1%} of probabilities lie within {JPEG_PROBABILITY}")
        return out

    def share_within(self, limit: float) -> float:
        return float(np.mean(np.array(self.probabilities) <= limit)) if self.probabilities else 0.0

    def summary(self) -> dict[str, float]:
        return {
            "faces": self.faces,
            "abstentions": self.abstentions,
            "found_by_one_only": self.unmatched,
            "largest_difference_px": round(max(self.pixels, default=0), 3),
            "largest_difference_of_a_probability": round(max(self.probabilities, default=0), 5),
            "largest_difference_of_a_year": round(max(self.years, default=0), 5),
            "share_of_probabilities_within_0.03": round(self.share_within(JPEG_PROBABILITY), 5),
            "faces_with_other_abstentions": self.other_abstentions,
            "faces_with_another_interval": self.other_intervals,
        }


def _is_near(box: Sequence[float], other: Sequence[float]) -> bool:
    half = (box[2] - box[0]) / 2
    return all(abs(a - b) < half for a, b in zip(box, other, strict=True))


def _distances(some: Iterable[float], others: Iterable[float]) -> list[float]:
    return [abs(a - b) for a, b in zip(some, others, strict=True)]


def page_model(device: Path, folder: Path) -> Path:
    """Write the page's own, packed model as a spec that the Python pipeline can open."""
    spec = json.loads((device / "device.json").read_text(encoding="utf-8"))["model"]
    shutil.copy(device / spec["file"], folder / spec["file"])
    path = folder / "page-model.json"
    path.write_text(json.dumps(spec), encoding="utf-8")
    return path


def compare(
    page: Any,
    analyzers: Sequence[Analyzer],
    folder: Path,
    faces: int,
    kinds: Sequence[str] = ("PNG", "JPEG"),
) -> list[dict[str, Differences]]:
    """Ask the page and the analyzers about the same montages, as PNG and as JPEG.

    Returns:
        For each analyzer, how the page differs from it, on ``faces`` faces or a few more.
    """
    found = [{kind: Differences() for kind in kinds} for _ in analyzers]
    for sheet in montages(folder):
        for kind in kinds:
            data = encoded(sheet, kind)
            shown = ask_page(page, data)
            for analyzer, differences in zip(analyzers, found, strict=True):
                differences[kind].add(ask_python(analyzer, data), shown)
        if min(differences[kinds[0]].faces for differences in found) >= faces:
            return found
    raise AssertionError("unreachable: montages never end")
