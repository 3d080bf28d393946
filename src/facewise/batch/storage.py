"""Open local paths and URLs in the same way. Read-only: nothing is ever written here."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import re
import stat
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO, Final
from urllib.parse import urlsplit

from facewise.errors import FacewiseError, ImageNotFoundError, OptionError, needs_extra

ATTEMPTS: Final = 3
"""Attempts to read from object storage, whose errors are mostly transient."""

_systems: dict[tuple[str, ...], Any] = {}
_arrow: dict[str, tuple[Any, str]] = {}


DRIVERS: Final = {
    **dict.fromkeys(("http", "https"), "aiohttp"),
    **dict.fromkeys(("s3", "s3a"), "s3fs"),
    **dict.fromkeys(("gs", "gcs"), "gcsfs"),
    **dict.fromkeys(("az", "abfs", "abfss", "adl"), "adlfs"),
}
"""The packages with fsspec's commonest drivers, by protocol."""

WEB: Final = ("http://", "https://")

_URL: Final = re.compile(r"[A-Za-z][\w+.-]*://")


def is_url(path: str) -> bool:
    """Whether a path begins with a protocol; a sentence that quotes a URL does not."""
    return _URL.match(path) is not None


def local(path: str) -> str:
    """Strip ``file://`` or ``local://``, so that such URLs are read as plain local paths.

    fsspec would block forever on a pipe that nobody writes to.
    """
    return path.removeprefix("file://").removeprefix("local://")


def path_part(path: str) -> str:
    """The path in a web address, without its query, which may be a signature.

    Other paths as they are: in object storage, a ``?`` may be part of a name.
    """
    return urlsplit(path).path if path.startswith(WEB) else path


def file_system(url: str) -> tuple[Any, str]:
    """The fsspec file system of a URL and the path on it.

    If fsspec lacks a driver for the protocol, Arrow's file systems (s3, gs, hdfs, abfs) are used.

    Raises:
        OptionError: neither knows the protocol, or the URL or its settings are incomplete.
        MissingExtraError: fsspec is not installed.
        OSError: the server cannot be reached now (some drivers connect at once); this may be
            transient, like any other failure to read.
    """
    with needs_extra("reading URLs", "batch"):
        import fsspec
    protocol = url.split("://", 1)[0]
    try:
        return _connect(protocol, url)
    except (ImportError, TypeError, ValueError, OSError) as error:  # TypeError: no host in the URL
        if may_pass(error):
            raise
        known = protocol in DRIVERS
        driver = f"pip install {DRIVERS[protocol]}" if known else f"{fsspec.__name__} lists them"
        raise OptionError(
            f"{url}: no file system for {protocol}:// ({error}); install its fsspec driver "
            f"({driver}), or copy the files here"
        ) from error


def check_driver(url: str) -> None:
    """Check that a URL has a file system, whether or not its server answers now.

    Raises:
        OptionError: it has none.
        MissingExtraError: fsspec is not installed.
    """
    with contextlib.suppress(OSError):
        file_system(url)


def may_pass(error: Exception) -> bool:
    """Whether a connection error comes from the network or server, not from this installation."""
    # Arrow also raises OSError when HDFS's libraries are missing.
    return isinstance(error, OSError) and "to load lib" not in str(error)


def _connect(protocol: str, url: str) -> tuple[Any, str]:
    """A URL's file system, one per server (host, port, user and other options), and path."""
    import fsspec

    try:
        kind = fsspec.get_filesystem_class(protocol)
    except (ImportError, ValueError):
        return _connect_arrow(url)
    # Not fsspec's url_to_fs, which takes "::" in a picture's name for chained URLs.
    options = kind._get_kwargs_from_urls(url)
    key = (protocol, *(str(part) for part in sorted(options.items())))
    if key not in _systems:
        _systems[key] = fsspec.filesystem(protocol, **options)
    return _systems[key], str(_systems[key]._strip_protocol(url))


def _connect_arrow(url: str) -> tuple[Any, str]:
    """The same by Arrow, which is shown the server only: its URLs must be percent-encoded.

    Paths are taken as they are, like fsspec's drivers take those of object storage.
    """
    server, path = _server_and_path(url)
    if server not in _arrow:
        from fsspec.implementations.arrow import ArrowFSWrapper
        from pyarrow import fs

        system, root = fs.FileSystem.from_uri(f"{server}/")
        _arrow[server] = ArrowFSWrapper(system), root.rstrip("/")
    system, root = _arrow[server]
    return system, f"{root}/{path}" if path or not root else root


def _server_and_path(url: str) -> tuple[str, str]:
    """``s3://bucket/a/b.jpg`` as ``("s3://bucket", "a/b.jpg")``."""
    protocol, _, rest = url.partition("://")
    host, _, path = rest.partition("/")
    return f"{protocol}://{host}", path.strip("/")


def with_protocol(url: str, path: str) -> str:
    """Turn a path listed on a URL's file system back into a URL, including the host."""
    if is_url(path):  # as web servers list them
        return path
    _, inner = file_system(url)
    server, below = _server_and_path(url)
    root = inner.strip("/").removesuffix(below)  # "bucket/", where paths begin with it
    return f"{server}/{path.strip('/').removeprefix(root).lstrip('/')}"


def open_binary(path: str) -> BinaryIO:
    """Open a path or URL as a seekable file.

    Raises:
        ImageNotFoundError: it is gone or cannot be read. Reading the file raises this as well, so
            that a failing disk or network is never mistaken for a damaged file.
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
    except Exception as error:  # drivers raise their own types of errors
        raise unreadable(error, path) from error
    return io.BufferedReader(_Source(file, path))


class _Source(io.RawIOBase):
    """A file whose read errors can be distinguished from its parser's errors."""

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
            data = self._file.read(len(buffer))  # every driver has read()
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


FINGERPRINTS: Final = (
    "ETag",
    "etag",
    "md5Hash",
    "LastModified",
    "last_modified",
    "Last-Modified",
    "mtime",
)
"""Drivers' names for the property that changes with a file; the first one present is used."""


def fingerprint(path: str) -> dict[str, Any]:
    """Properties that change when a file is rewritten, obtained without reading it.

    Raises:
        ImageNotFoundError: it is gone, or its properties cannot be read.
        OptionError: the URL has no file system.
        MissingExtraError: fsspec is not installed.
    """
    try:
        if not is_url(path):
            status = Path(path).stat()
            return {"size": status.st_size, "mtime_ns": status.st_mtime_ns}
        system, inner = file_system(path)
        system.invalidate_cache()  # or drivers answer from a glob's listing, however old it is
        about = system.info(inner)
    except FacewiseError:
        raise
    except Exception as error:
        raise unreadable(error, path) from error
    changing = [name for name in FINGERPRINTS if about.get(name) is not None][:1]
    return {"size": about.get("size"), **{name: str(about[name]) for name in changing}}


def absolute(path: str) -> str:
    """An absolute local path without ``..``, with links unresolved; URLs are unchanged."""
    path = local(path)
    if is_url(path):
        return path
    parts = path.split("/")
    if ".." in parts and os.name == "posix":  # Windows resolves ``..`` lexically
        last = len(parts) - parts[::-1].index("..")
        folder = climbed(os.path.join(os.getcwd(), "/".join(parts[:last])))  # noqa: PTH109, PTH118
        path = "/".join([folder, *parts[last:]])
    return os.path.abspath(path)  # noqa: PTH100  Path.resolve follows links


@lru_cache(1024)  # lists name the same folders a million times
def climbed(folder: str) -> str:
    """A folder without ``..``; after a link, ``..`` is the parent of the link's target."""
    path = "/"
    for part in folder.split("/"):
        if part == "..":
            path = os.path.dirname(os.path.realpath(path) if os.path.islink(path) else path)  # noqa: PTH114, PTH120
        elif part not in ("", "."):
            path = os.path.join(path, part)  # noqa: PTH118
    return path


def beside(path: str, name: str) -> str:
    """Resolve ``name`` from a list or table at ``path``, relative to its folder."""
    path, name = local(path), local(name)
    if is_url(name) or Path(name).is_absolute():
        return name
    if is_url(path):
        # A query is the list's own, and may have slashes.
        listing = path.partition("?")[0] if path.startswith(WEB) else path
        return f"{listing.rpartition('/')[0]}/{name}"
    return str(Path(path).parent / name)


def read_range(path: str, limit: int, *, offset: int = 0) -> bytes:
    """Read at most ``limit`` bytes of a file from ``offset``.

    Raises:
        ImageNotFoundError: it is gone or cannot be read.
        OptionError: the URL has no file system.
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
        except FacewiseError:  # no file system: retrying would not help
            raise
        except Exception as error:  # drivers raise their own types of errors
            failure = error
            if _is_gone(error):
                break
            if offset == 0 and _is_empty(path):  # S3 refuses a range of it
                return b""
    raise unreadable(failure, path) from failure


def _read_url(path: str, limit: int, offset: int) -> bytes:
    from fsspec.implementations.arrow import ArrowFSWrapper

    system, inner = file_system(path)
    data: bytes
    if path.startswith(WEB):
        # cat_file takes what a server without ranges sends, the whole file, for the range. With a
        # size it is one request, as the server is not asked for it.
        with system.open(inner, "rb", size=offset + limit, cache_type="none") as file:
            file.seek(offset)
            data = file.read(limit)
    elif isinstance(system, ArrowFSWrapper):  # cat_file knows no offset before fsspec 2026.7
        with system.open(inner, "rb") as file:
            file.seek(offset)
            data = file.read(limit)
    elif limit == 0:
        data = b""  # S3 answers a range of no bytes with the whole file
    else:
        data = system.cat_file(inner, start=offset, end=offset + limit)
    return data


def _read_local(path: str, limit: int, offset: int) -> bytes:
    # Non-blocking: a pipe that nobody writes to must not hang a run.
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


def _is_gone(error: Exception) -> bool:
    return isinstance(error, FileNotFoundError) or getattr(error, "status", None) == 404  # aiohttp


def _is_empty(url: str) -> bool:
    with contextlib.suppress(Exception):  # drivers raise their own types of errors
        return bool(fingerprint(url)["size"] == 0)
    return False


def unreadable(error: Exception, path: str) -> ImageNotFoundError:
    """The error of a file that could not be opened or read."""
    advice = "check the path"
    if "range requests" in str(error):  # fsspec's words for web servers that ignore them
        number, reason = errno.EIO, "its web server sends whole files only"
        advice = "copy it here"
    elif _is_gone(error):
        number, reason = errno.ENOENT, os.strerror(errno.ENOENT)  # fsspec's errors lack both
    else:
        number = getattr(error, "errno", None) or errno.EIO
        reason = getattr(error, "strerror", None) or f"{type(error).__name__}: {error}"
    return ImageNotFoundError(
        number,
        f"cannot be read ({reason}): {advice}",
        path,
    )
