"""Every error facewise raises, in one tree.

Each class carries a stable machine-readable ``code``; the same string stands in the REST API's
problem documents and in the ``error_code`` column of annotated tables. Messages say what to do.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar, TypeVar

T = TypeVar("T")


class FacewiseError(Exception):
    """Base of all errors raised by facewise."""

    code: ClassVar[str] = "facewise_error"


class ImageError(FacewiseError, ValueError):
    """The input cannot be turned into a photo. Base of all errors about images.

    Attributes:
        source: which picture, where that is known: its path, its place among several. ``str``
            begins with it, ``reason`` leaves it out.
    """

    code = "image_error"
    source: str | None = None

    @property
    def reason(self) -> str:
        """What is wrong and what to do, without the picture's name."""
        return super().__str__()

    def __str__(self) -> str:
        return self.reason if self.source is None else f"{self.source}: {self.reason}"


class ImageNotFoundError(ImageError, FileNotFoundError):
    """The path does not exist, cannot be read, or is a directory; or reading a file object failed.

    Has the fields of an OSError: ``errno``, ``strerror``, ``filename``.
    """

    code = "image_not_found"

    def __init__(self, number: int, reason: str, path: str) -> None:
        # OSError fills its fields in __new__, unless a class puts another __init__ before its own,
        # as ValueError's is here.
        OSError.__init__(self, number, reason, path)

        self.source = path

    @property
    def reason(self) -> str:
        return str(self.strerror)


class EmptyImageError(ImageError):
    """The input has no bytes."""

    code = "image_empty"


class NotAnImageError(ImageError):
    """The bytes are not an image in any format known to facewise."""

    code = "not_an_image"


class UnsupportedFormatError(ImageError):
    """An image, but in a format that is not accepted or whose extra is not installed."""

    code = "unsupported_format"


class CorruptImageError(ImageError):
    """The image is truncated or damaged."""

    code = "image_corrupt"


class ImageTooLargeError(ImageError):
    """More bytes or more pixels than the limit, or so many parts that reading takes far too long.

    Attributes:
        limit: the argument that sets it, "max_bytes" or "max_pixels"; None where none does.
    """

    code = "image_too_large"
    limit: str | None = None

    def with_option(self) -> str:
        """``reason``, and the command line's option that allows more, where there is one."""
        if self.limit is None:
            return self.reason
        return f"{self.reason}, or raise --{self.limit.replace('_', '-')}"


class ImageTooSmallError(ImageError):
    """A side is shorter than the limit."""

    code = "image_too_small"


class InvalidArrayError(ImageError, TypeError):
    """An array (or another object) whose type, dtype or shape is not that of an image."""

    code = "invalid_array"


class ModelError(FacewiseError):
    """Base of all errors about models."""

    code = "model_error"


class ModelNotFoundError(ModelError, LookupError):
    """No model of that name and version is installed."""

    code = "model_not_found"


class ModelIntegrityError(ModelError):
    """A weight file does not have the SHA-256 its spec states, or the spec is malformed."""

    code = "model_integrity"


class OptionError(FacewiseError, ValueError):
    """An option or setting has a value that cannot be used."""

    code = "invalid_option"


class SourceError(FacewiseError):
    """A source of ``annotate`` could not be listed this time; nothing was begun."""

    code = "source_unreadable"


class TableError(FacewiseError):
    """An annotated table is in use, was made with other settings, or cannot be read or written."""

    code = "table_error"


class MissingExtraError(FacewiseError, ImportError):
    """A feature needs an extra that is not installed; the message names it."""

    code = "missing_extra"

    def __init__(self, feature: str, extra: str) -> None:
        super().__init__(f"{feature} needs an extra: pip install 'facewise[{extra}]'")
        self.feature, self.extra = feature, extra

    def __reduce__(self) -> tuple[Any, ...]:
        """By its two arguments: an exception is rebuilt from its message otherwise."""
        return type(self), (self.feature, self.extra)


def check_count(name: str, value: float) -> int:
    """An option that counts something: a whole number, 1 or more.

    Raises:
        OptionError: it is anything else, NaN and infinity included, which compare as if there were
            no limit.
    """
    try:
        if value >= 1 and int(value) == value:
            return int(value)
    except (TypeError, ValueError, OverflowError):  # of no number; int's of NaN; int's of infinity
        pass
    raise OptionError(f"{name} must be a whole number, 1 or more, not {value!r}")


def check_list(name: str, value: Iterable[T]) -> tuple[T, ...]:
    """An option that lists names.

    Raises:
        OptionError: it is no list. A string is one of letters, which nobody means.
    """
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise OptionError(f"{name} must be a list of names, not {value!r}")
    return tuple(value)
