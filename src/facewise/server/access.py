"""Access control: the optional API key and the optional rate limit."""

from __future__ import annotations

import hmac
import ipaddress
import math
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from starlette.requests import Request

from facewise.server.problems import ProblemError
from facewise.settings import Settings
from facewise.text import counted

REMEMBERED_CLIENTS: Final = 10_000


def client_of(request: Request) -> str:
    """The client as limits count it: its IPv4 address, or its IPv6 /64, which one customer owns."""
    host = request.client.host if request.client else ""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    if isinstance(address, ipaddress.IPv4Address):
        return host
    return str(address.ipv4_mapped or ipaddress.IPv6Network((address, 64), strict=False))


class Access:
    """Checks made before any of a request's body is read."""

    def __init__(self, settings: Settings, clock: Callable[[], float] = time.monotonic) -> None:
        keys = settings.api_key
        self._keys = keys.get_secret_value().encode().split(b",") if keys else []
        self._rate = settings.rate_limit_per_minute
        self._clock = clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    @property
    def needs_key(self) -> bool:
        return bool(self._keys)

    def check_key(self, request: Request) -> None:
        """Check the API key, each in constant time.

        Raises:
            ProblemError: 401.
        """
        if not self._keys:
            return
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        # Not strip(): decoded as Latin-1, bytes of other letters would count as white space.
        given = token.strip(" \t") if scheme.lower() == "bearer" else ""
        given = given or request.headers.get("x-api-key", "")
        # Headers are decoded as Latin-1; encoding restores the bytes that were sent.
        sent = given.encode("latin-1", "replace")
        # A list, so that all are compared: the time does not say which one matched.
        if not any([hmac.compare_digest(sent, key) for key in self._keys]):  # noqa: C419
            raise ProblemError(
                401,
                "unauthorized",
                "Send the key that the operator gave you, as the header Authorization: Bearer KEY",
                {"WWW-Authenticate": 'Bearer realm="facewise"'},
            )

    @contextmanager
    def counted(self, request: Request) -> Iterator[Callable[[int], None]]:
        """Count a photo, and refund it if there turns out to be no room for it.

        A batch counts as one photo before its body is read; the yielded function adds the rest.

        Raises:
            ProblemError: 429 with Retry-After.
        """
        self.check_rate(request)
        taken = 1

        def add(photos: int) -> None:
            nonlocal taken
            taken += photos
            self.charge(request, photos)

        try:
            yield add
        except ProblemError as problem:
            if problem.status == 503:
                self.charge(request, -taken)
            raise

    def check_rate(self, request: Request) -> None:
        """Take a token from the client's bucket, which refills over a minute.

        Raises:
            ProblemError: 429 with Retry-After.
        """
        if self._rate is None:
            return
        client = client_of(request)
        level, now = self._level(client)
        if level < 1:
            wait = math.ceil((1 - level) * 60 / self._rate)
            raise ProblemError(
                429,
                "rate_limited",
                f"More than {counted(self._rate, 'photo', 'photos')} per minute: try again in "
                f"{counted(wait, 'second', 'seconds')}.",
                {"Retry-After": str(wait)},
            )
        self._store(client, level - 1, now)

    def charge(self, request: Request, photos: int) -> None:
        """Count photos unchecked (the bucket may fall below zero); negative numbers refund them."""
        if self._rate is not None:
            client = client_of(request)
            level, now = self._level(client)
            self._store(client, level - photos, now)

    def _level(self, client: str) -> tuple[float, float]:
        assert self._rate is not None
        now = self._clock()
        level, then = self._buckets.get(client, (float(self._rate), now))
        return min(float(self._rate), level + (now - then) * self._rate / 60), now

    def _store(self, client: str, level: float, now: float) -> None:
        self._buckets[client] = (level, now)
        self._buckets.move_to_end(client)
        while len(self._buckets) > REMEMBERED_CLIENTS:
            self._buckets.popitem(last=False)
