"""Settings of the server: keyword arguments, then ``FACEWISE_*`` variables, then a TOML file.

``FACEWISE_CONFIG`` names the file; its keys are the fields below. The library takes arguments
only: settings are for those who run a service. (It honours two variables of other projects, for
their own telemetry: ORT_DISABLE_TELEMETRY and RAY_USAGE_STATS_ENABLED.)
"""

from __future__ import annotations

import difflib
import ipaddress
import os
import re
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import Field, SecretStr, ValidationError, ValidationInfo, field_validator
from pydantic.fields import FieldInfo
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from facewise.calibration import DEFAULT_COVERAGE
from facewise.errors import OptionError
from facewise.images import DEFAULT_MAX_BYTES, DEFAULT_MAX_PIXELS
from facewise.labels import ATTRIBUTES, check_attributes, without_sensitive
from facewise.machine import cores
from facewise.text import split_names

CONFIG_VARIABLE: Final = "FACEWISE_CONFIG"
_FOREIGN: Final = re.compile(
    r"FACEWISE_(CONFIG|DATA|PARITY_FACES|SERVICE_HOST|SERVICE_PORT\w*|PORT_\d+_\w+)"
)
"""Variables that are not settings: the one that names the file, those of commands and tests, and
those that Kubernetes and Docker links set for a service named facewise."""
_LINKED_PORT: Final = re.compile(r"(tcp|udp|sctp)://.*")
"""What they set FACEWISE_PORT to: the service's address, which is not where to listen."""
MULTIPART_OVERHEAD_BYTES: Final = 64_000
"""Allowance beyond the limit on photos, for boundaries, part headers and small fields."""
KEY_LENGTH: Final = 8
"""Minimum length of the API key: a shorter one can be guessed."""
PUBLISHED_MAX_FACES: Final = 500
"""Default limit per photo if the server is published: 1,000 faces occupy a thread for half a
minute."""
_ORIGIN: Final = re.compile(
    r"([a-z][a-z0-9+.-]*)://([a-z0-9._-]+|\[[0-9a-f:.]+\])(?::(\d{1,5}))?/?"
)
_USUAL_PORTS: Final = {"http": "80", "https": "443"}
CommaSeparated = Annotated[tuple[str, ...], NoDecode]


class _Variables(EnvSettingsSource):
    """``FACEWISE_*`` variables, except a linked port and empty ones, which compose files set by
    ``${NAME:-}``. An empty key counts, and is refused: ignored, it would leave the server open.
    """

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        value, key, is_complex = super().get_field_value(field, field_name)
        is_empty = value == "" and field_name != "api_key"
        is_linked = field_name == "port" and _LINKED_PORT.fullmatch(value or "")
        return None if is_empty or is_linked else value, key, is_complex


class Settings(BaseSettings):
    """Everything an operator can set. ``FACEWISE_MAX_BYTES=5000000`` sets ``max_bytes``."""

    model_config = SettingsConfigDict(env_prefix="FACEWISE_", extra="forbid", frozen=True)

    host: str = Field(
        default="127.0.0.1", description="address to bind; 0.0.0.0 lets others reach it"
    )
    port: int = Field(default=8000, ge=0, le=65535, description="0 picks a free one")
    model: str = Field(default="default", description="name, name@version, or a spec's path")
    attributes: CommaSeparated | None = Field(
        default=None,
        description="comma-separated, others are left out; none: all, but without ethnicity "
        "if published",
    )
    coverage: float = Field(
        default=DEFAULT_COVERAGE, description="level of intervals and label sets"
    )
    threads: int = Field(
        default_factory=cores, ge=1, le=256, description="photos analysed at the same time"
    )
    queue: int = Field(
        default=32,
        ge=0,
        le=10_000,
        description="requests that may wait for a thread; a batch counts as one",
    )
    uploads: int = Field(
        default=64,
        ge=1,
        le=10_000,
        description="requests that may hold a body in memory",
    )
    uploads_per_client: int | None = Field(
        default=None,
        ge=1,
        le=10_000,
        description="how many of them may be one client's; none: all, but a quarter if published",
    )
    max_bytes: int = Field(
        default=DEFAULT_MAX_BYTES, ge=1_000, description="largest photo, in bytes"
    )
    max_batch_bytes: int = Field(
        default=64_000_000, ge=1_000, description="largest batch, all photos together"
    )
    max_batch_photos: int = Field(default=32, ge=1, le=32, description="photos per batch")
    upload_memory_bytes: int = Field(
        default=512_000_000, validate_default=True, description="all bodies in memory together"
    )
    max_pixels: int = Field(
        default=DEFAULT_MAX_PIXELS, ge=1_000, description="largest photo, in pixels"
    )
    max_faces: int | None = Field(
        default=None,
        ge=1,
        description="most faces per photo, the largest are kept; none: all, but "
        f"{PUBLISHED_MAX_FACES} if published",
    )
    min_face_px: float | None = Field(
        default=None, gt=0, description="smallest face to look for; none: grows with the photo"
    )
    upload_timeout_seconds: float = Field(
        default=60.0,
        gt=0,
        description="how long an upload may pause, or lag behind the slowest rate",
    )
    upload_bytes_per_second: float = Field(
        default=25_000.0, gt=0, description="slowest average rate of an upload"
    )
    shutdown_timeout_seconds: int = Field(
        default=30, ge=0, description="time for running work to finish"
    )
    api_key: SecretStr | None = Field(
        default=None,
        description=f"key that requests must send, at least {KEY_LENGTH} characters, or several, "
        "comma-separated; none: no key",
    )
    rate_limit_per_minute: int | None = Field(
        default=None, ge=1, description="photos per minute and client; none: no limit"
    )
    cors_origins: CommaSeparated = Field(
        default=(),
        description="sites whose pages may read answers, such as https://app.example; or *",
    )
    device_folder: Path | None = Field(
        default=None,
        description="output of `make page`, dist/page, for analysing in the browser; none: the "
        "package's",
    )
    providers: CommaSeparated | None = Field(
        default=None, description="ONNX Runtime execution providers, comma-separated; none: the CPU"
    )
    root_path: str = Field(default="", description="prefix behind a proxy, such as /faces")
    trusted_proxies: CommaSeparated = Field(
        default=(), description="addresses whose X-Forwarded-For and -Proto are trusted"
    )

    @field_validator("attributes", "providers", "cors_origins", "trusted_proxies", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        if isinstance(value, str):
            return split_names(value)
        return value

    @field_validator("attributes")
    @classmethod
    def _known(cls, value: tuple[str, ...] | None) -> tuple[str, ...] | None:
        return None if value is None else check_attributes(value)

    @field_validator("api_key")
    @classmethod
    def _long_enough(cls, value: SecretStr | None) -> SecretStr | None:
        if value is None:
            return None
        # White space, such as a file's final newline, is lost in headers: no client could send it.
        keys = [key.strip() for key in value.get_secret_value().split(",")]
        if min(map(len, keys)) < KEY_LENGTH:
            raise ValueError(
                f"choose a key of {KEY_LENGTH} characters or more; a comma separates two keys"
            )
        return SecretStr(",".join(keys))

    @field_validator("cors_origins")
    @classmethod
    def _origins(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(part if part == "*" else _origin(part) for part in value)

    @field_validator("root_path")
    @classmethod
    def _prefix(cls, value: str) -> str:
        if not re.fullmatch(r"(/[^/?#\s]+)*", value):
            raise ValueError(
                f"{value!r} is no prefix: begin it with /, end it without, as in /faces"
            )
        return value

    @field_validator("trusted_proxies")
    @classmethod
    def _networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if value == ("*",):
            return value
        for part in value:
            try:
                ipaddress.ip_network(part)
            except ValueError as error:
                raise ValueError(
                    f"{part!r} would never be trusted: name each proxy by address or network, "
                    "10.0.0.7 or 172.30.0.0/24 (bits after the prefix are 0), or write * alone"
                ) from error
        return value

    @field_validator("upload_memory_bytes")
    @classmethod
    def _holds_a_body(cls, value: int, info: ValidationInfo) -> int:
        limits = (info.data.get("max_bytes", 0), info.data.get("max_batch_bytes", 0))
        least = max(limits) + MULTIPART_OVERHEAD_BYTES
        if value < least:
            raise ValueError(
                f"must be at least {least}, so that the largest body fits: raise it, or lower "
                "FACEWISE_MAX_BYTES and FACEWISE_MAX_BATCH_BYTES"
            )
        return value

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        variables = _Variables(settings_cls)
        path = os.environ.get(CONFIG_VARIABLE)
        if not path:
            return init_settings, variables
        return init_settings, variables, TomlConfigSettingsSource(settings_cls, path)

    @property
    def is_published(self) -> bool:
        """Whether clients other than this machine's user are expected: the server is bound beyond
        loopback, or to loopback with a proxy in front.
        """
        return not is_loopback(self.host) or bool(self.root_path) or bool(self.trusted_proxies)

    @property
    def is_private(self) -> bool:
        """Whether only this machine's user is expected and no operator has chosen attributes: a
        proxy or tunnel that publishes the server anyway is then undeclared.
        """
        return not self.is_published and self.attributes is None

    @property
    def served_attributes(self) -> tuple[str, ...]:
        """Attributes that are computed and shown, in the contract's order."""
        if self.attributes is not None:
            return self.attributes
        if self.is_published:
            return without_sensitive(ATTRIBUTES)
        return ATTRIBUTES

    @property
    def served_max_faces(self) -> int | None:
        """Most faces answered per photo, the largest first; None for all."""
        if self.max_faces is None and self.is_published:
            return PUBLISHED_MAX_FACES
        return self.max_faces

    @property
    def served_uploads_per_client(self) -> int:
        """Most requests of one client that may hold a body in memory at once."""
        if self.uploads_per_client is not None:
            return self.uploads_per_client
        # On loopback clients cannot be told apart.
        return max(1, self.uploads // 4) if self.is_published else self.uploads

    @property
    def attributes_reason(self) -> str:
        """Why these attributes, in a sentence for the start-up log."""
        names = ", ".join(self.served_attributes)
        if self.attributes is not None:
            return f"attributes: {names} (named by the operator)"
        if self.is_published:
            where = (
                f"{self.host} can be reached by others"
                if not is_loopback(self.host)
                else ("a proxy in front publishes it")
            )
            return (
                f"attributes: {names}; ethnicity is off because {where}: no default should sort "
                "the people in front of a public page by race. An operator who may do so can turn "
                "it on: FACEWISE_ATTRIBUTES=age,gender,ethnicity"
            )
        return f"attributes: {names} (only this machine can reach {self.host})"


def _origin(text: str) -> str:
    """Normalise an origin to what browsers send, since it is compared character by character."""
    match = _ORIGIN.fullmatch(text.lower())
    if match is None:
        raise ValueError(
            f"{text!r} is not a site's origin: write scheme and host, and the port unless it is "
            "the usual one, as in https://app.example or http://localhost:3000 (other alphabets "
            "as xn--...), or * for all"
        )
    scheme, host, port = match.groups()
    usual = port is None or port == _USUAL_PORTS.get(scheme)
    return f"{scheme}://{host}" if usual else f"{scheme}://{host}:{port}"


def is_loopback(host: str) -> bool:
    """Whether a bind address can be reached from this machine only."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def load_settings(**overrides: Any) -> Settings:
    """Read the settings; arguments that are None are ignored.

    Raises:
        OptionError: a value cannot be used; the message names the setting and the variable.
    """
    path = os.environ.get(CONFIG_VARIABLE)
    if path and not os.path.isfile(path):  # noqa: PTH113
        raise OptionError(f"{CONFIG_VARIABLE}={path}: no such file; give the path of a TOML file")
    _check_variables()
    try:
        return Settings(**{key: value for key, value in overrides.items() if value is not None})
    except ValidationError as error:
        parts = []
        for item in error.errors():
            name = ".".join(str(part) for part in item["loc"]) or "settings"
            if item["type"] == "extra_forbidden":
                field = name.lower().removeprefix("facewise_")  # who wrote a variable's name
                parts.append(f"{name} is not a setting{_nearest(field)}")
                continue
            message = item["msg"].removeprefix("Value error, ")
            if item["type"] in ("int_parsing", "float_parsing"):
                message = f"{item['input']!r} is not a number: write digits alone, without a unit"
            parts.append(f"{name} (FACEWISE_{name.upper()}): {message}")
        raise OptionError("; ".join(parts)) from error
    except ValueError as error:  # the TOML file does not parse
        raise OptionError(f"{CONFIG_VARIABLE}={path}: {error}") from error


def _check_variables() -> None:
    """Refuse misspelt variables: an API key under another name would leave the server open."""
    prefix = "FACEWISE_"
    unknown = [
        f"{name} is not a setting{_nearest(name[len(prefix) :].lower(), prefix)}"
        for name in sorted(os.environ)
        if name.upper().startswith(prefix)
        and name[len(prefix) :].lower() not in Settings.model_fields
        and not _FOREIGN.fullmatch(name.upper())
    ]
    if unknown:
        raise OptionError("; ".join(unknown))


def _nearest(name: str, prefix: str = "") -> str:
    near = difflib.get_close_matches(name, Settings.model_fields, n=1, cutoff=0.7)
    if not near:
        return ": correct or remove it (facewise serve --settings lists them)"
    return f": did you mean {prefix + near[0].upper() if prefix else near[0]}?"
