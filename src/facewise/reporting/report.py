"""One report, two forms: Markdown with pictures beside it, and one HTML file that holds them."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from string import Template
from typing import Any, Final

_PAGE: Final = Template("""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>$title</title>
<style>
body { font: 16px/1.55 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem }
.table { overflow-x: auto }
table { border-collapse: collapse; font-size: .9rem; margin: 1rem 0 }
th, td { border-bottom: 1px solid #8886; padding: .3rem .7rem; text-align: left }
td { font-variant-numeric: tabular-nums }
.figure { display: block; margin: 1.5rem 0 }
.figure svg { max-width: 100%; height: auto; background: #fff }
code { font-size: .9em }
</style>
</head>
<body>
<main>
$body
</main>
</body>
</html>
""")


def markdown_table(
    header: Sequence[str], rows: Iterable[Sequence[object]], *, rule: str = "|---"
) -> str:
    """A table by itself, for pages that are put together by hand.

    Args:
        header: names of the columns.
        rows: a value a column each.
        rule: what stands between them, of each column.
    """
    return "\n".join([_row(header), rule * len(header) + "|", *map(_row, rows)])


class Report:
    """Grows block by block, in the order in which its methods are called.

    Args:
        title: the first heading.
    """

    def __init__(self, title: str) -> None:
        self.title = title
        self.plots: dict[str, str] = {}
        self._lines = [f"# {title}"]

    def heading(self, text: str, level: int = 2) -> None:
        self._lines += ["", f"{'#' * level} {text}"]

    def text(self, markdown: str) -> None:
        """Paragraphs, lists or tables that are Markdown already."""
        self._lines += ["", markdown.strip()]

    def bullets(self, items: Iterable[str]) -> None:
        self._lines += ["", *(f"- {item}" for item in items)]

    def table(self, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
        """A table; nothing at all where it would have no rows."""
        if rows := list(rows):
            self._lines += ["", markdown_table(header, rows, rule="| --- ")]

    def plot(self, name: str, svg: str, caption: str) -> None:
        """A plot.

        Args:
            name: file name without suffix, unique in the report.
            svg: an ``<svg>`` element.
            caption: what it shows, also for those who cannot see it.
        """
        if name in self.plots:
            raise ValueError(f"the report has a plot {name!r} already")
        self.plots[name] = svg
        self._lines += ["", f"![{caption}]({name}.svg)"]

    def markdown(self, folder: str = "") -> str:
        """The report as Markdown, its plots looked for in ``folder``."""
        text = "\n".join(self._lines) + "\n"
        for name in self.plots if folder else ():
            text = text.replace(f"]({name}.svg)", f"]({folder}/{name}.svg)")
        return text

    def html(self) -> str:
        """The report as one page without any outside file; raw HTML in its texts is shown as text.

        Markdown is turned into HTML by markdown-it-py, which rich brings along.
        """
        from markdown_it import MarkdownIt

        renderer = MarkdownIt("commonmark", {"html": False}).enable("table")

        def image(tokens: Sequence[Any], index: int, *_: Any) -> str:
            token = tokens[index]
            name = str(token.attrGet("src")).removesuffix(".svg")
            caption = html.escape(token.content)
            svg = self.plots.get(name)
            if svg is None:
                return f"<em>{caption}</em>"
            return (
                f'<span class="figure" role="img" aria-label="{caption}">{svg}</span>'
                f"<br><small>{caption}</small>"
            )

        renderer.add_render_rule("image", _method(image))
        body = renderer.render(self.markdown())
        body = body.replace("<table>", '<div class="table"><table>')
        body = body.replace("</table>", "</table></div>")
        return _PAGE.substitute(title=html.escape(self.title), body=body)

    def write(self, path: Path) -> None:
        """Write ``path`` with the suffixes .md and .html; plots into a folder of its name.

        Plots of an earlier report that this one does not show go.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        folder = path.parent / f"{path.stem}-figures"
        for old in folder.glob("*.svg"):
            if old.stem not in self.plots:
                old.unlink()
        if self.plots:
            folder.mkdir(exist_ok=True)
            for name, svg in self.plots.items():
                (folder / f"{name}.svg").write_text(svg, encoding="utf-8")
        path.with_suffix(".md").write_text(self.markdown(folder.name), encoding="utf-8")
        path.with_suffix(".html").write_text(self.html(), encoding="utf-8")


def escaped(text: str) -> str:
    """A line of any text as Markdown that shows it, in tables too: marks become entities.

    An underscore within a word is none.
    """
    marks = r"[&<>*`~|\\$#\[\]]|(?<![^\W_])_|_(?![^\W_])"
    return re.sub(marks, lambda mark: f"&#{ord(mark[0])};", text)


def _method(rule: Any) -> Any:
    """markdown-it binds a rule to its renderer, and passes that first."""
    return lambda _self, tokens, index, *rest: rule(tokens, index, *rest)


def _cell(value: object) -> str:
    return str(value).replace("\\", "\\\\").replace("|", "\\|").replace("\n", " ")


def _row(values: Sequence[object]) -> str:
    return f"| {' | '.join(map(_cell, values))} |"
