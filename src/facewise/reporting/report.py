"""A report in two forms: Markdown with separate plots, and a single HTML file that embeds them."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from string import Template
from typing import Any, Final
from urllib.parse import quote

from facewise.files import write_text
from facewise.text import printable

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
    """A Markdown table on its own, for pages assembled by hand.

    Args:
        header: names of the columns.
        rows: one value per column each.
        rule: the line between header and rows, for one column.
    """
    return "\n".join([_row(header), rule * len(header) + "|", *map(_row, rows)])


class Report:
    """A report that grows block by block, in the order of the calls.

    Args:
        title: the first heading, as plain text.
        sections: list the sections under the title, with links to them.
    """

    def __init__(self, title: str, *, sections: bool = False) -> None:
        self.title = printable(title)
        self.sections = sections
        self.plots: dict[str, str] = {}
        self._lines = [f"# {escaped(self.title)}"]

    def heading(self, text: str, level: int = 2) -> None:
        self._lines += ["", f"{'#' * level} {text}"]

    def text(self, markdown: str) -> None:
        """Add paragraphs, lists or tables given as Markdown; nothing if it is empty."""
        if markdown:
            self._lines += ["", markdown.strip()]

    def bullets(self, items: Iterable[str]) -> None:
        self._lines += ["", *(f"- {item}" for item in items)]

    def table(self, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
        """Add a table; nothing if it has no rows."""
        if rows := list(rows):
            self._lines += ["", markdown_table(header, rows, rule="| --- ")]

    def plot(self, name: str, svg: str, caption: str) -> None:
        """Add a plot.

        Args:
            name: file name without suffix, unique in the report; characters that a file's name or a
                link cannot have become hyphens.
            svg: an ``<svg>`` element.
            caption: what it shows, also used as alternative text.
        """
        name = re.sub(r"[^\w.-]", "-", name, flags=re.ASCII)
        if name in self.plots:
            raise ValueError(f"the report has a plot {name!r} already")
        self.plots[name] = svg
        caption = caption.translate({ord("["): "(", ord("]"): ")"})  # a bracket could end it early
        self._lines += ["", f"![{caption}]({name}.svg)"]

    def markdown(self, folder: str = "") -> str:
        """The report as Markdown, with plots linked from ``folder``."""
        title, *rest = self._lines
        names = [line[3:] for line in rest if line.startswith("## ")] if self.sections else []
        links = " · ".join(f"[{name}](#{_anchor(name)})" for name in names)
        text = "\n".join([title, *(["", links] if links else []), *rest]) + "\n"
        for name in self.plots if folder else ():
            text = text.replace(f"]({name}.svg)", f"]({quote(folder)}/{name}.svg)")
        return text

    def html(self) -> str:
        """The report as one self-contained page; raw HTML in its text is shown as text.

        markdown-it-py, a dependency of rich, converts the Markdown.
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
        # A wide table scrolls, so it must be reachable by keyboard.
        body = body.replace("<table>", '<div class="table" tabindex="0"><table>')
        body = body.replace("</table>", "</table></div>")
        if self.sections:
            body = re.sub(r"<h2>(.*?)</h2>", _with_anchor, body)
        return _PAGE.substitute(title=html.escape(self.title), body=body)

    def write(self, path: Path) -> None:
        """Write ``path`` with the suffixes .md and .html, and plots into a folder named after it.

        Plots of an earlier report that this one lacks are deleted.
        """
        folder = path.parent / f"{path.stem}-figures"
        for old in folder.glob("*.svg"):
            if old.stem not in self.plots:
                old.unlink()
        for name, svg in self.plots.items():
            write_text(folder / f"{name}.svg", svg)
        write_text(path.with_suffix(".md"), self.markdown(folder.name))
        write_text(path.with_suffix(".html"), self.html())


def escaped(text: str) -> str:
    """Escape a line of text so that Markdown, tables included, shows it literally.

    Special characters become entities; underscores within words are kept.
    """
    marks = r"[&<>*`~|\\$#\[\]]|(?<![^\W_])_|_(?![^\W_])"
    return re.sub(marks, lambda mark: f"&#{ord(mark[0])};", text)


def _anchor(heading: str) -> str:
    """The name by which GitHub links to a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def _with_anchor(heading: re.Match[str]) -> str:
    return f'<h2 id="{_anchor(html.unescape(heading[1]))}">{heading[1]}</h2>'


def _method(rule: Any) -> Any:
    """Adapt a rule: markdown-it binds it to the renderer, which it passes first."""
    return lambda _self, tokens, index, *rest: rule(tokens, index, *rest)


def _cell(value: object) -> str:
    return str(value).replace("\\", "\\\\").replace("|", "\\|").replace("\n", " ")


def _row(values: Sequence[object]) -> str:
    return f"| {' | '.join(map(_cell, values))} |"
