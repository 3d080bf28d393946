"""All errors that facewise raises, in one class tree.

Each class has a stable machine-readable ``code``, which also appears in the REST API's problem
documents and in the ``error_code`` column of annotated tables. Messages say what to do.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar, TypeVar

T = TypeVar("T")


class FacewiseError(Exception):
    """Base of all errors raised by facewise."""

    code: ClassVar[str] = "facewise_error"


class ImageError(FacewiseError, ValueError):
    """The input cannot be turned into a photo. Base of all errors about images.

    Attributes:
        source: the picture's path; None if it has none.
        index: its place among the pictures of a call with several; None if there was one.

    ``str`` begins with both; ``reason`` omits them.
    """

    code = "image_error"
    source: str | None = None
    index: int | None = None

    @property
    def reason(self) -> str:
        """What is wrong and what to do, without the picture's name."""
        return super().__str__()

    def __str__(self) -> str:
        place = None if self.index is None else f"photos[{self.index}]"
        name = ", ".join(part for part in (place, self.source) if part is not None)
        return f"{name}: {self.reason}" if name else self.reason


class ImageNotFoundError(ImageError, FileNotFoundError):
    """The path does not exist, cannot be read, or is a directory; or reading a file object failed.

    Has the fields of an OSError: ``errno``, ``strerror``, ``filename``.
    """

    code = "image_not_found"

    def __init__(self, number: int, reason: str, path: str) -> None:
        # OSError fills its fields in __new__ unless another __init__ precedes its own, as
        # ValueError's does here.
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
    """More bytes or pixels than the limit, or so many parts that reading would take far too long.

    Attributes:
        limit: the argument that sets the limit, "max_bytes" or "max_pixels"; None if none does.
    """

    code = "image_too_large"
    limit: str | None = None

    @property
    def reason(self) -> str:
        return self._or(f"raise {self.limit} of Analyzer or load_photo")

    def with_option(self) -> str:
        """``reason`` for the command line: names the option that raises the limit."""
        return self._or(f"raise --{self.limit}".replace("_", "-"))

    def with_setting(self) -> str:
        """``reason`` for the server's answers: names the setting that raises the limit."""
        setting = f"FACEWISE_{self.limit}".upper()
        return self._or(f"ask the server's operator to raise {setting}")

    def _or(self, advice: str) -> str:
        return super().reason if self.limit is None else f"{super().reason}, or {advice}"


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
    """A weight file's SHA-256 differs from its spec's, or the spec is malformed."""

    code = "model_integrity"


class OptionError(FacewiseError, ValueError):
    """An option or setting has a value that cannot be used."""

    code = "invalid_option"


class SourceError(FacewiseError):
    """A source of ``annotate`` could not be listed this time; nothing was started."""

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
        """Rebuild from the two arguments; exceptions are rebuilt from their message by default."""
        return type(self), (self.feature, self.extra)


@contextmanager
def needs_extra(feature: str, extra: str) -> Iterator[None]:
    """Around imports of what an extra brings.

    Raises:
        MissingExtraError: one cannot be imported. facewise's own modules are in no extra, so their
            errors pass.
    """
    try:
        yield
    except ImportError as error:
        if (error.name or "").startswith("facewise"):
            raise
        raise MissingExtraError(feature, extra) from error


def check_count(name: str, value: float) -> int:
    """Check an option that counts something: a whole number, 1 or more.

    Raises:
        OptionError: it is anything else, including NaN and infinity, which would act as no limit.
    """
    try:
        if value >= 1 and int(value) == value:
            return int(value)
    except (TypeError, ValueError, OverflowError):  # not a number; int(NaN); int(infinity)
        pass
    raise OptionError(f"{name} must be a whole number, 1 or more, not {value!r}")


def check_options(
    call: str, given: Iterable[str], known: Iterable[str], fixed: Collection[str] = ()
) -> None:
    """Check the names of keyword arguments.

    Args:
        call: what they were given to, as the message names it.
        given: names that were given.
        known: those it takes.
        fixed: those that only a new object can have.

    Raises:
        TypeError: one is unknown or fixed, as Python raises for its own.
    """
    for name in sorted(set(given) - set(known)):
        if name in fixed:
            raise TypeError(f"{call} cannot change {name}: make a new one, with {name}=...")
        raise TypeError(f"{call} has no option {name!r}; it has {', '.join(sorted(known))}")


def check_list(name: str, value: Iterable[T]) -> tuple[T, ...]:
    """Check an option that lists names.

    Raises:
        OptionError: it is not a list. A string would count as a list of its letters.
    """
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise OptionError(f"{name} must be a list of names, not {value!r}")
    return tuple(value)
