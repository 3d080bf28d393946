"""Replace the generated part, between two marks, of a page written by hand."""

from __future__ import annotations


def between(text: str, marks: tuple[str, str], content: str) -> str:
    """The text with new content between its marks."""
    before, rest = text.split(marks[0])
    _, after = rest.split(marks[1])
    return f"{before}{marks[0]}\n{content}\n{marks[1]}{after}"
