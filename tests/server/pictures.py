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


def unusual_files(pictures: Path) -> dict[str, bytes]:
    """The same face in less usual files of these formats: compressed, animated, of other modes."""
    face = Image.open(sorted((pictures / "faces").glob("*.webp"))[0]).convert("RGB")
    face = face.resize((96, 96))
    moving: dict[str, object] = {"save_all": True, "append_images": [face.rotate(90)]}
    return {
        "progressive JPEG": encoded(face, "JPEG", progressive=True, quality=70),
        "CMYK JPEG": encoded(face.convert("CMYK"), "JPEG"),
        "palette PNG": encoded(face.convert("P"), "PNG"),
        "animated PNG": encoded(face, "PNG", **moving),
        "lossless WebP": encoded(face, "WEBP", lossless=True),
        "animated WebP": encoded(face, "WEBP", **moving),
        "animated GIF": encoded(face, "GIF", **moving),
        "animated AVIF": encoded(face, "AVIF", **moving),
        "LZW TIFF": encoded(face, "TIFF", compression="tiff_lzw"),
        "Deflate TIFF": encoded(face, "TIFF", compression="tiff_adobe_deflate"),
        "JPEG TIFF": encoded(face, "TIFF", compression="jpeg"),
        "two-page TIFF": encoded(face, "TIFF", **moving),
    }
