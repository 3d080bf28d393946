"""Write the example photos of the web page from the astronaut's portrait (NASA, public domain).

    python scripts/make_examples.py [FOLDER WITH scikit-image's chelsea.png]

"Six ways" shows the same face small, blurred, dark, grey and mirrored: lower quality widens the
interval or makes facewise abstain.
"""

from __future__ import annotations

import sys
from pathlib import Path

from PIL import Image, ImageEnhance, ImageFilter, ImageOps

ROOT = Path(__file__).parents[1]
OUT = ROOT / "src/facewise/server/page/static/examples"


def six_ways(portrait: Image.Image) -> Image.Image:
    face = portrait.crop((90, 10, 360, 280))
    small = Image.new("RGB", face.size, (216, 214, 208))
    small.paste(face.resize((96, 96), Image.Resampling.LANCZOS), (87, 87))
    ways = (
        face,
        ImageOps.mirror(face),
        small,
        face.filter(ImageFilter.GaussianBlur(4)),
        ImageEnhance.Brightness(face).enhance(0.35),
        ImageOps.grayscale(face).convert("RGB"),
    )
    sheet = Image.new("RGB", (3 * 270 + 4 * 15, 2 * 270 + 3 * 15), (245, 245, 243))
    for index, way in enumerate(ways):
        row, column = divmod(index, 3)
        sheet.paste(way, (15 + column * 285, 15 + row * 285))
    return sheet


def main() -> None:
    OUT.mkdir(parents=True, exist_ok=True)
    portrait = Image.open(ROOT / "tests/data/astronaut.jpg").convert("RGB")
    portrait.save(OUT / "portrait.jpg", quality=88, optimize=True)
    six_ways(portrait).save(OUT / "six-ways.jpg", quality=88, optimize=True)
    if len(sys.argv) > 1:
        cat = Image.open(Path(sys.argv[1]) / "chelsea.png").convert("RGB")
        cat.save(OUT / "cat.jpg", quality=86, optimize=True)


if __name__ == "__main__":
    main()
