"""``facewise serve``."""

from __future__ import annotations

import logging
import os
import platform
import sys
import threading
import webbrowser
from datetime import datetime
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from facewise.cli.options import Verbose
from facewise.errors import OptionError, needs_extra

if TYPE_CHECKING:
    from facewise.settings import Settings


def serve(
    host: Annotated[str | None, typer.Option(help="Address to bind; default: 127.0.0.1.")] = None,
    port: Annotated[
        int | None, typer.Option(help="Port; default: 8000; 0 picks a free one.")
    ] = None,
    attributes: Annotated[
        str | None,
        typer.Option(help="Comma-separated; beyond loopback, ethnicity is off unless named."),
    ] = None,
    model: Annotated[str | None, typer.Option(help="Name, name@version, or a spec's path.")] = None,
    coverage: Annotated[
        float | None, typer.Option(help="Coverage of intervals: 0.8, 0.9 or 0.95.")
    ] = None,
    threads: Annotated[int | None, typer.Option(help="Photos analysed at the same time.")] = None,
    config: Annotated[
        Path | None, typer.Option(help="TOML file of settings, like FACEWISE_CONFIG.")
    ] = None,
    open_page: Annotated[
        bool, typer.Option("--open/--no-open", help="Open the page in the browser.")
    ] = True,
    list_settings: Annotated[
        bool, typer.Option("--settings", help="List all settings with their values, and exit.")
    ] = False,
    verbose: Verbose = 0,
) -> None:
    """Serve the web app and the REST API.

    Every setting has a FACEWISE_* variable; --settings lists them.
    """
    with needs_extra("the server", "server"):
        from facewise.server.run import run
        from facewise.settings import CONFIG_VARIABLE, Settings, load_settings
    if config is not None:
        os.environ[CONFIG_VARIABLE] = str(config)
    try:
        settings = load_settings(
            host=host,
            port=port,
            attributes=attributes,
            model=model,
            coverage=coverage,
            threads=threads,
        )
    except OptionError:
        if list_settings:  # whoever mends a setting needs the list, too: here of the defaults
            _list(Settings.model_construct())
        raise
    if list_settings:
        _list(settings)
        return
    import_module("cv2")  # if this failed later, at start-up, uvicorn would print a traceback
    _log_requests()

    def announce(url: str) -> None:
        print(f"facewise is at {url}  (Ctrl+C stops it)", flush=True)
        if open_page and not settings.is_published and _has_desktop():
            # Some browsers return only when closed, but the page needs the server meanwhile.
            threading.Thread(target=webbrowser.open, args=(url,), daemon=True).start()

    run(settings, announce)


class _Stamped(logging.Formatter):
    """Lines that begin with the time and its offset from UTC, in ISO 8601."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(message)s")

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: N802
        time = datetime.fromtimestamp(record.created).astimezone()
        return time.isoformat(timespec="milliseconds")


def _log_requests() -> None:
    """Log requests, with -v also of probes that succeed, and with -vv what uvicorn does.

    Otherwise uvicorn logs errors only, as it warns of each client that speaks no HTTP.
    """
    for handler in logging.getLogger().handlers:
        handler.setFormatter(_Stamped())
    # Not the command's own count, as -v may also stand before the command's name.
    level = logging.getLogger("facewise").level
    server = logging.INFO if level > logging.INFO else logging.DEBUG
    logging.getLogger("facewise.server").setLevel(server)
    uvicorns = logging.INFO if level <= logging.DEBUG else logging.ERROR
    logging.getLogger("uvicorn").setLevel(uvicorns)
    logging.getLogger("python_multipart").setLevel(logging.ERROR)  # its warnings quote the body


def _list(settings: Settings) -> None:
    """Print all settings with their values; secrets are masked."""
    for name, field in type(settings).model_fields.items():
        value = _plain(getattr(settings, name))
        default = _plain(field.get_default(call_default_factory=True))
        words = field.description or ""
        if value != default:
            words += f" (default: {default})"
        typer.echo(f"FACEWISE_{name.upper():<26} {value:<12} {words}".rstrip())


def _plain(value: Any) -> str:
    """A setting's value formatted for people."""
    if isinstance(value, tuple):
        value = ",".join(map(str, value))
    if isinstance(value, float):
        return str(value).removesuffix(".0")
    return "none" if value in (None, "") else str(value)


def _has_desktop() -> bool:
    """Whether there is a terminal, and a screen to open a browser on."""
    if not sys.stdout.isatty():
        return False
    if os.name == "nt" or platform.system() == "Darwin":
        return True
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
