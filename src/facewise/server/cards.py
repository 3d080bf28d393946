"""Model cards: the Markdown beside a model's spec, as is or as an HTML page."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from itertools import pairwise
from string import Template
from typing import Final

from markdown_it import MarkdownIt
from markdown_it.common.utils import escapeHtml
from markdown_it.token import Token

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
<a class="skip" href="#main">Skip to the card</a>
<header class="bar"><a class="wordmark" href="../../../">facewise</a>
<nav aria-label="Pages"><a href="../../../">App</a> <a href="../../../docs">API</a></nav></header>
<main id="main" class="prose">
$body
</main>
</body>
</html>
""")


def card_markdown(spec: ModelSpec) -> str:
    """The card beside the spec; if there is none, one made from the spec."""
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
    """The card as a page, its sections listed before the first. Raw HTML is shown as text."""
    renderer = MarkdownIt("commonmark", {"html": False}).enable("table")
    # Otherwise a card could embed a picture from another host.
    renderer.disable("image")
    tokens = renderer.parse(card_markdown(spec))
    listed = _name(tokens)
    starts = (i for i, token in enumerate(tokens) if token.tag == "h2")
    tokens.insert(next(starts, len(tokens)), Token("html_block", "", 0, content=listed))
    body = renderer.renderer.render(tokens, renderer.options, {})
    return _PAGE.substitute(title=html.escape(f"{spec.name}: model card"), body=body)


def _name(tokens: Sequence[Token]) -> str:
    """Give headings ids and label tables by the heading above; returns the list of sections."""
    names = {"main"}  # used by the page itself
    name = ""
    sections: list[tuple[str, list[str]]] = []
    for token, inner in pairwise(tokens):
        if token.type == "heading_open" and token.tag in ("h2", "h3", "h4"):
            words = "".join(child.content for child in inner.children or ())
            name = re.sub(r"\W+", "-", words.lower()).strip("-") or "section"
            while name in names:
                name += "-again"
            names.add(name)
            token.attrSet("id", name)
            link = f'<a href="#{name}">{escapeHtml(words)}</a>'
            if token.tag == "h2":
                sections.append((link, []))
            elif token.tag == "h3" and sections:
                sections[-1][1].append(link)
        elif token.type == "table_open":
            # A wide table scrolls, so it must be reachable by keyboard.
            token.attrSet("tabindex", "0")
            if name:
                token.attrSet("aria-labelledby", name)
    if not sections:
        return ""
    items = [link + (_list(below) if below else "") for link, below in sections]
    return f'<nav aria-label="Sections">{_list(items)}</nav>\n'


def _list(items: Sequence[str]) -> str:
    return "\n<ul>\n" + "".join(f"<li>{item}</li>\n" for item in items) + "</ul>\n"
