"""Model cards: the Markdown beside a model's spec, as it is or as a page."""

from __future__ import annotations

import html
from string import Template
from typing import Final

from markdown_it import MarkdownIt

from facewise.models import ModelSpec

_PAGE: Final = Template("""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>$title</title>
<link rel="icon" href="../../../static/icon.svg" type="image/svg+xml">
<link rel="stylesheet" href="../../../static/base.css">
<link rel="stylesheet" href="../../../static/prose.css">
</head>
<body>
<header class="bar"><a class="wordmark" href="../../../">facewise</a>
<nav aria-label="Pages"><a href="../../../">App</a> <a href="../../../docs">API</a></nav></header>
<main class="prose">
$body
</main>
</body>
</html>
""")


def card_markdown(spec: ModelSpec) -> str:
    """The card beside the spec; where there is none, what the spec itself says."""
    path = spec.path.with_suffix(".md")
    if path.is_file():
        return path.read_text(encoding="utf-8")
    lines = [f"# {spec.name} {spec.version}", "", spec.description, "", "## Data", ""]
    lines += [f"- {line}" for line in spec.data]
    lines += ["", "## Licence", "", spec.licence, ""]
    if spec.figures:
        lines += ["## Figures", "", "| figure | value |", "|---|---|"]
        lines += [f"| {name} | {value} |" for name, value in spec.figures.items()]
    return "\n".join(lines) + "\n"


def card_page(spec: ModelSpec) -> str:
    """The card as a page. Raw HTML in the Markdown is shown as text."""
    renderer = MarkdownIt("commonmark", {"html": False}).enable("table")
    # Without this, a picture or link of a card could name another host.
    renderer.disable("image")
    body = renderer.render(card_markdown(spec))
    # A wide table scrolls within itself: the keyboard must be able to reach it, too.
    body = body.replace("<table>", '<table tabindex="0">')
    return _PAGE.substitute(title=html.escape(f"{spec.name}: model card"), body=body)
