"""Pictures made for tests."""

from __future__ import annotations

import io
from pathlib import Path

from PIL import Image


def encoded(image: Image.Image, kind: str = "JPEG", **options: object) -> bytes:
    """Encode a picture as the bytes of a file."""
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def crowd(portrait: bytes, columns: int, rows: int, cell_px: int = 200) -> bytes:
    """The astronaut once per cell: a photo with a known number of faces."""
    face = Image.open(io.BytesIO(portrait)).convert("RGB").crop((90, 10, 360, 280))
    sheet = Image.new("RGB", (columns * cell_px, rows * cell_px), (200, 200, 196))
    for index in range(columns * rows):
        row, column = divmod(index, columns)
        sheet.paste(face.resize((cell_px, cell_px)), (column * cell_px, row * cell_px))
    return encoded(sheet, quality=90)


def every_format(pictures: Path) -> dict[str, bytes]:
    """One small real face in every format that is read without extras."""
    face = Image.open(sorted((pictures / "faces").glob("*.webp"))[0]).convert("RGB")
    face = face.resize((96, 96))
    kinds = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "AVIF", "PPM")
    return {kind: encoded(face, kind) for kind in kinds} | {
        "PGM": encoded(face.convert("L"), "PPM")
    }
