"""Local paths and URLs: one way to open either. Bytes are read here, nothing is ever written."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import stat
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO, Final
from urllib.parse import urlsplit

from facewise.errors import FacewiseError, ImageNotFoundError, MissingExtraError, OptionError

ATTEMPTS: Final = 3
"""Of a read from object storage, whose errors pass more often than not."""

_systems: dict[tuple[str, ...], Any] = {}


def is_url(path: str) -> bool:
    return "://" in path


def local(path: str) -> str:
    """The path of a ``file://`` URL, to be read as any other; else what is given.

    fsspec opens a pipe that nobody writes to, and waits for good.
    """
    return path.removeprefix("file://").removeprefix("local://")


def file_system(url: str) -> tuple[Any, str]:
    """The fsspec file system of a URL and the path on it.

    Where fsspec lacks the driver of a protocol, Arrow's own file systems (s3, gs, hdfs, abfs) do.

    Raises:
        OptionError: neither knows the protocol, or the URL or its settings say too little.
        MissingExtraError: fsspec is not installed.
        OSError: it cannot be reached now, as by a driver that connects at once; like any other
            failure to read, this may pass.
    """
    try:
        import fsspec
    except ImportError as error:
        raise MissingExtraError("reading URLs", "batch") from error
    protocol = url.split("://", 1)[0]
    try:
        system = _connect(protocol, url)
        return system, str(system._strip_protocol(url))
    except (ImportError, TypeError, ValueError, OSError) as error:  # TypeError: without its host
        if may_pass(error):
            raise
        raise OptionError(
            f"{url}: no file system for {protocol}:// ({error}); install its fsspec driver "
            f"({fsspec.__name__} lists them), or copy the files here"
        ) from error


def check_driver(url: str) -> None:
    """Settle that there is a file system for a URL, whether its server answers now or not.

    Raises:
        OptionError: there is none.
        MissingExtraError: fsspec is not installed.
    """
    with contextlib.suppress(OSError):
        file_system(url)


def may_pass(error: Exception) -> bool:
    """Whether what came of connecting is of the network or the server, not of this installation."""
    # Arrow's are OSErrors, too, where HDFS's own libraries are missing.
    return isinstance(error, OSError) and "to load lib" not in str(error)


def _connect(protocol: str, url: str) -> Any:
    """One a server: what a URL says of its host, port and user tells file systems apart."""
    import fsspec

    try:
        kind = fsspec.get_filesystem_class(protocol)
    except (ImportError, ValueError):
        parts = urlsplit(url)
        key: tuple[str, ...] = (protocol, parts.netloc, parts.query)
        if key not in _systems:
            from fsspec.implementations.arrow import ArrowFSWrapper
            from pyarrow import fs

            _systems[key] = ArrowFSWrapper(fs.FileSystem.from_uri(url)[0])
    else:
        # Not fsspec's own of a whole URL, which takes "::" in a picture's name for a chain of them.
        options = kind._get_kwargs_from_urls(url)
        key = (protocol, *(str(part) for part in sorted(options.items())))
        if key not in _systems:
            _systems[key] = fsspec.filesystem(protocol, **options)
    return _systems[key]


def with_protocol(url: str, path: str) -> str:
    """A path that was listed on a URL's file system as a URL again, its host included."""
    _, inner = file_system(url)
    if inner and url.rstrip("/").endswith(inner):
        slash = "/" * (inner.startswith("/") and not path.startswith("/"))
        return f"{url.rstrip('/').removesuffix(inner)}{slash}{path}"
    return f"{url.split('://', 1)[0]}://{path.lstrip('/')}"


def open_binary(path: str) -> BinaryIO:
    """A seekable file.

    Raises:
        ImageNotFoundError: it has gone, or cannot be read; reading the file raises it, too, so that
            a failing disk or network is never taken for a damaged file.
    """
    path = local(path)
    try:
        if is_url(path):
            system, inner = file_system(path)
            file = system.open(inner, "rb")
        else:
            file = Path(path).open("rb")  # noqa: SIM115  closed with what is returned
    except FacewiseError:
        raise
    except Exception as error:  # drivers raise errors of their own kinds
        raise unreadable(error, path) from error
    return io.BufferedReader(_Source(file, path))


class _Source(io.RawIOBase):
    """A file whose failures to read are told apart from those of what parses it."""

    def __init__(self, file: Any, path: str) -> None:
        self._file, self._path = file, path

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            if not is_url(self._path):
                return int(self._file.readinto(buffer))
            data = self._file.read(len(buffer))  # which every driver has
        except Exception as error:
            raise unreadable(error, self._path) from error
        buffer[: len(data)] = data
        return len(data)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        try:
            self._file.seek(offset, whence)
        except OSError as error:
            raise unreadable(error, self._path) from error
        return self.tell()

    def tell(self) -> int:
        return int(self._file.tell())

    def close(self) -> None:
        self._file.close()
        super().close()


FINGERPRINTS: Final = ("ETag", "etag", "md5Hash", "LastModified", "last_modified", "mtime")
"""What drivers call the one thing that changes with a file; the first that is there is taken."""


def fingerprint(path: str) -> dict[str, Any]:
    """What changes when a file is written anew, without reading it.

    Raises:
        ImageNotFoundError: it has gone, or cannot be looked at.
    """
    try:
        if not is_url(path):
            status = Path(path).stat()
            return {"size": status.st_size, "mtime_ns": status.st_mtime_ns}
        system, inner = file_system(path)
        about = system.info(inner)
    except FacewiseError:
        raise
    except Exception as error:
        raise unreadable(error, path) from error
    changing = [name for name in FINGERPRINTS if about.get(name) is not None][:1]
    return {"size": about.get("size"), **{name: str(about[name]) for name in changing}}


def absolute(path: str) -> str:
    """A local path as seen from any folder, without ``..``, its links kept; a URL as it is."""
    path = local(path)
    if is_url(path):
        return path
    parts = path.split("/")
    if ".." in parts and os.name == "posix":  # Windows takes ``..`` by the spelling itself
        last = len(parts) - parts[::-1].index("..")
        folder = climbed(os.path.join(os.getcwd(), "/".join(parts[:last])))  # noqa: PTH109, PTH118
        path = "/".join([folder, *parts[last:]])
    return os.path.abspath(path)  # noqa: PTH100  Path.resolve follows


@lru_cache(1024)  # lists lead through the same folders a million times
def climbed(folder: str) -> str:
    """A folder without ``..``: that of a link is above what the link leads to."""
    path = "/"
    for part in folder.split("/"):
        if part == "..":
            path = os.path.dirname(os.path.realpath(path) if os.path.islink(path) else path)  # noqa: PTH114, PTH120
        elif part not in ("", "."):
            path = os.path.join(path, part)  # noqa: PTH118
    return path


def beside(path: str, name: str) -> str:
    """What ``name`` means in a list or table at ``path``: relative names count from its folder."""
    path, name = local(path), local(name)
    if is_url(name) or Path(name).is_absolute():
        return name
    if is_url(path):
        return f"{path.rpartition('/')[0]}/{name}"
    return str(Path(path).parent / name)


def readable(name: str) -> str:
    """A name as UTF-8: bytes that are none are spelt out."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def read_range(path: str, limit: int, *, offset: int = 0) -> bytes:
    """Bytes of a file from ``offset``, at most ``limit``.

    Raises:
        ImageNotFoundError: it has gone, or cannot be read.
        OptionError: nobody knows the protocol of a URL.
        MissingExtraError: fsspec is not installed.
    """
    if not is_url(path):
        try:
            return _read_local(path, limit, offset)
        except (OSError, ValueError) as error:
            raise unreadable(error, path) from error
    failure: Exception = OSError("not tried")
    for _ in range(ATTEMPTS):
        try:
            return _read_url(path, limit, offset)
        except FileNotFoundError as error:
            raise unreadable(error, path) from error
        except FacewiseError:  # no file system: another attempt would find none, either
            raise
        except Exception as error:  # drivers raise errors of their own kinds
            failure = error
    raise unreadable(failure, path) from failure


def _read_url(path: str, limit: int, offset: int) -> bytes:
    from fsspec.implementations.arrow import ArrowFSWrapper

    system, inner = file_system(path)
    # Without this, Arrow's file systems open a stream from 0 on that cannot seek, and seek in it.
    more = {"seekable": True} if isinstance(system, ArrowFSWrapper) else {}
    data: bytes = system.cat_file(inner, start=offset, end=offset + limit, **more)
    return data


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


def unreadable(error: Exception, path: str) -> ImageNotFoundError:
    """The error of a file that could not be opened or read."""
    if isinstance(error, FileNotFoundError):
        number, reason = errno.ENOENT, os.strerror(errno.ENOENT)  # fsspec's have neither
    else:
        number = getattr(error, "errno", None) or errno.EIO
        reason = getattr(error, "strerror", None) or f"{type(error).__name__}: {error}"
    return ImageNotFoundError(
        number,
        f"cannot be read ({reason}): check the path",
        path,
    )
