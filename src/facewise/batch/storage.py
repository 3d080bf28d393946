"""Local paths and URLs: one way to open either. Bytes are read here, nothing is ever written."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import Any, BinaryIO, Final

from facewise.errors import ImageNotFoundError, MissingExtraError, OptionError

ATTEMPTS: Final = 3
"""Of a read from object storage, whose errors pass more often than not."""

_systems: dict[str, Any] = {}


def is_url(path: str) -> bool:
    return "://" in path


def file_system(url: str) -> tuple[Any, str]:
    """The fsspec file system of a URL and the path on it.

    Where fsspec lacks the driver of a protocol, Arrow's own file systems (s3, gs, hdfs, abfs) do.

    Raises:
        OptionError: neither knows the protocol, or it cannot be reached as it is configured.
        MissingExtraError: fsspec is not installed.
    """
    try:
        import fsspec
    except ImportError as error:
        raise MissingExtraError("reading URLs", "batch") from error
    protocol = url.split("://", 1)[0]
    try:
        if protocol not in _systems:
            _systems[protocol] = _connect(protocol, url)
        system = _systems[protocol]
        return system, str(system._strip_protocol(url))
    except (ImportError, ValueError, OSError) as error:
        raise OptionError(
            f"{url}: no file system for {protocol}:// ({error}); install its fsspec driver "
            f"({fsspec.__name__} lists them), or copy the files here"
        ) from error


def _connect(protocol: str, url: str) -> Any:
    import fsspec

    try:
        return fsspec.filesystem(protocol)
    except (ImportError, ValueError):
        from fsspec.implementations.arrow import ArrowFSWrapper
        from pyarrow import fs

        return ArrowFSWrapper(fs.FileSystem.from_uri(url)[0])


def with_protocol(url: str, path: str) -> str:
    """A path on a URL's file system as a URL again."""
    return f"{url.split('://', 1)[0]}://{path.lstrip('/') if not url.startswith('file') else path}"


def open_binary(path: str) -> BinaryIO:
    """A seekable file; errors are those of the file system."""
    if is_url(path):
        system, inner = file_system(path)
        file: BinaryIO = system.open(inner, "rb")
        return file
    return Path(path).open("rb")


def absolute(path: str) -> str:
    """A local path as seen from any folder, its links kept; a URL as it is."""
    return path if is_url(path) else os.path.abspath(path)  # noqa: PTH100  Path.resolve follows


def beside(path: str, name: str) -> str:
    """What ``name`` means in a list or table at ``path``: relative names count from its folder."""
    if is_url(name) or Path(name).is_absolute():
        return name
    if is_url(path):
        return f"{path.rpartition('/')[0]}/{name}"
    return str(Path(path).parent / name)


def readable(name: str) -> str:
    """A name as UTF-8: bytes that are none are spelt out."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def exists(path: str) -> bool:
    if is_url(path):
        system, inner = file_system(path)
        return bool(system.exists(inner))
    return os.path.lexists(path)


def read_range(path: str, limit: int, *, offset: int = 0) -> bytes:
    """Bytes of a file from ``offset``, at most ``limit``.

    Raises:
        ImageNotFoundError: it has gone, or cannot be read.
    """
    if not is_url(path):
        try:
            return _read_local(path, limit, offset)
        except (OSError, ValueError) as error:
            raise _unreadable(error, path) from error
    failure: Exception = OSError("not tried")
    for _ in range(ATTEMPTS):
        try:
            system, inner = file_system(path)
            data: bytes = system.cat_file(inner, start=offset, end=offset + limit)
            return data
        except FileNotFoundError as error:
            raise _unreadable(error, path) from error
        except Exception as error:  # drivers raise errors of their own kinds
            failure = error
    raise _unreadable(failure, path) from failure


def _read_local(path: str, limit: int, offset: int) -> bytes:
    # Not blocking: a pipe that nobody writes to must not stop a run for good.
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | _BINARY)
    with os.fdopen(descriptor, "rb") as file:
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if not stat.S_ISREG(mode):
            raise OSError(errno.EINVAL, "not a regular file")
        if offset:
            file.seek(offset)
        return file.read(limit)


_BINARY: Final = getattr(os, "O_BINARY", 0)


def _unreadable(error: Exception, path: str) -> ImageNotFoundError:
    if isinstance(error, FileNotFoundError):
        reason = os.strerror(errno.ENOENT)
    else:
        reason = getattr(error, "strerror", None) or f"{type(error).__name__}: {error}"
    return ImageNotFoundError(
        getattr(error, "errno", None) or errno.EIO,
        f"cannot be read ({reason}): check the path",
        path,
    )
