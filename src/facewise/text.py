"""Counts, names and reasons as text for people."""

from __future__ import annotations

import os
from collections.abc import Sequence


def counted(count: int, one: str, many: str) -> str:
    """A count with its noun, such as "1 face" or "1,200 faces"."""
    return f"{count:,} {one if count == 1 else many}"


def split_names(text: str | None) -> tuple[str, ...] | None:
    """Names of a comma-separated list, without empty ones; None stays None."""
    if text is None:
        return None
    return tuple(part.strip() for part in text.split(",") if part.strip())


def as_utf8(name: str) -> str:
    """A name as valid UTF-8, with invalid bytes as backslash escapes."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def printable(text: str) -> str:
    """Text on one line, with unprintable characters escaped, as in ``ls`` and ``repr``."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def reason_of(error: Exception) -> str:
    """What went wrong, without an OSError's number and path."""
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def by_reason(skipped: Sequence[Sequence[str]], most: int = 10) -> list[str]:
    """How many names were skipped for each reason, most common first, with the first name."""
    names: dict[str, list[str]] = {}
    for name, why in skipped:
        names.setdefault(why, []).append(name)
    reasons = sorted(names.items(), key=lambda item: -len(item[1]))
    lines = [f"{len(those)}, the first {those[0]}: {why}" for why, those in reasons[:most]]
    if others := sum(len(those) for _, those in reasons[most:]):
        lines.append(f"{others} for {len(reasons) - most} other reasons")
    return lines
