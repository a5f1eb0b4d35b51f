"""A link to a Redis server that fails fast: short timeouts, no retries, and a breaker that remembers a failure."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from ...stream.redact import redact, redact_uri
from .base import DepotError, DepotFull

if TYPE_CHECKING:
    from redis import ConnectionPool, Redis
    from redis.client import Pipeline

_log = logging.getLogger(__name__)

T = TypeVar("T")

MAX_TIMEOUT_S = 0.5
_SETTINGS = frozenset({"host", "port", "path", "username", "password", "db", "connection_class"})


class DepotDown(DepotError, ConnectionError):
    """The server cannot be reached, hangs or is not a Redis server; it is tried again by and by."""


class DepotRefused(DepotError, PermissionError):
    """The server is there, and does not let this user do this."""


class Breaker:
    """Lets calls through until one fails; then none, until a wait is over; then one, which decides.

        closed --failure--> open for first_wait_s --wait over--> one call --success--> closed
                              ^------ failure: twice the wait, at most max_wait_s ------'

    Any thread may use it.
    """

    def __init__(
        self,
        *,
        first_wait_s: float = 0.5,
        max_wait_s: float = 30.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if not 0 < first_wait_s <= max_wait_s:
            raise ValueError(f"waits grow from above 0 s to the longest; got {first_wait_s} and {max_wait_s} s")
        self._first_wait_s, self._max_wait_s, self._clock = first_wait_s, max_wait_s, clock
        self._wait_s = 0.0  # 0 while closed
        self._next_s = 0.0
        self._is_trying = False
        self._lock = threading.Lock()

    @property
    def is_open(self) -> bool:
        """Whether the last call failed."""
        return self._wait_s > 0

    @property
    def remaining_s(self) -> float:
        """Until a call is let through."""
        return max(0.0, self._next_s - self._clock()) if self.is_open else 0.0

    def admit(self) -> bool:
        """Whether a call may go; after a wait only the first that asks may, until it is known how it went."""
        with self._lock:
            if not self.is_open:
                return True
            if self._clock() < self._next_s:
                return False
            self._is_trying = True
            self._next_s = self._clock() + self._wait_s
            return True

    def succeeded(self) -> bool:
        """Closes it; whether it was open."""
        with self._lock:
            was_open = self.is_open
            self._wait_s, self._is_trying = 0.0, False
            return was_open

    def failed(self) -> bool:
        """Opens it, or keeps it open for longer; whether it was closed."""
        with self._lock:
            was_closed = not self.is_open
            if was_closed:
                self._wait_s = self._first_wait_s
            elif self._is_trying:
                self._wait_s = min(2 * self._wait_s, self._max_wait_s)
            else:  # began before another call's failure: that one counts
                return False
            self._is_trying = False
            self._next_s = self._clock() + self._wait_s
            return was_closed


class RedisLink:
    """One server, asked through `call`, which answers or raises a DepotError; any thread may use it.

    The password is in no message: nothing that redis-py says of an address is passed on unmasked.

    url: redis://user:password@host:6379/0, rediss:// for TLS, unix:///path.
    timeout_s: of the connection, and of each answer.
    num_failures: counts the times that it was lost.
    """

    def __init__(self, url: str, *, timeout_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        if not 0 < timeout_s <= MAX_TIMEOUT_S:
            raise ValueError(f"a Redis server has above 0 and at most {MAX_TIMEOUT_S} s to answer; got {timeout_s} s")
        self.where = redact_uri(url)
        self.num_failures = 0
        self.breaker = Breaker(clock=clock)
        self._url = url
        self._pool, self._client = _connect(url, timeout_s)

    def call(self, ask: Callable[[Redis], T]) -> T:
        """What `ask` answers; DepotDown at once while the server is known to be away."""
        import redis

        if not self.breaker.admit():
            raise DepotDown(f"{self.where} is away; it is tried again in {self.breaker.remaining_s:.1f} s")
        try:
            answer = ask(self._client)
        except DepotError:  # of the one who asks
            raise
        except (redis.AuthenticationError, redis.exceptions.AuthorizationError) as error:
            self._lost()
            raise DepotRefused(f"{self.where} refuses the user or the password: {self._said(error)}") from None
        except (redis.ConnectionError, redis.TimeoutError, redis.InvalidResponse, OSError, UnicodeError) as error:
            self._lost()
            raise DepotDown(f"{self.where} cannot be reached: {self._said(error)}") from None
        except redis.ResponseError as error:
            self._found()
            raise self._refusal(error) from None
        except (redis.RedisError, ValueError, TypeError, LookupError, ArithmeticError, RecursionError) as error:
            # redis-py parses what no Redis server says, and stumbles
            self._lost()
            raise DepotDown(f"what answers at {self.where} is not a Redis server: {self._said(error)}") from None
        self._found()
        return answer

    def strange(self) -> DepotError:
        """What to raise at an answer that is no answer to what was asked: a server may be anything."""
        return DepotError(f"{self.where} answers what no Redis server does; see what is listening there")

    def close(self) -> None:
        self._client.close()
        self._pool.disconnect(inuse_connections=False)

    def _found(self) -> None:
        if self.breaker.succeeded():
            _log.info("%s is back", self.where)

    def _lost(self) -> None:
        self.num_failures += 1
        # Idle connections from before lead to a server that is gone; the others are their threads' to find out.
        self._pool.disconnect(inuse_connections=False)
        if self.breaker.failed():
            _log.info("%s is lost", self.where)

    def _refusal(self, error: Exception) -> DepotError:
        said = self._said(error)
        code = str(error).partition(" ")[0]
        if "OutOfMemory" in type(error).__name__ or code in ("OOM", "MISCONF") or "maxmemory" in said:
            return DepotFull(f"{self.where} has no room: {said}; raise its maxmemory or lower the budget")
        if code in ("NOPERM", "NOAUTH", "WRONGPASS") or "Permission" in type(error).__name__:
            return DepotRefused(f"{self.where} does not permit this: {said}")
        if "ReadOnly" in type(error).__name__ or code == "READONLY":
            # A replica now: next time the name may lead to the new primary.
            self._pool.disconnect(inuse_connections=False)
        return DepotError(f"{self.where} refuses: {said}")

    def _said(self, error: BaseException) -> str:
        """What the server or redis-py says, masked and short: it is not ours."""
        return redact(str(error), self._url).replace("\n", " ")[:200] or type(error).__name__


def answers(pipe: Pipeline) -> list[Any]:
    """Sends all at once; the answers, or the first error among them.

    redis-py's own raising would write the arguments, megabytes of payload, into the message.
    """
    found: Sequence[Any] = pipe.execute(raise_on_error=False)
    for answer in found:
        if isinstance(answer, Exception):
            raise answer
    return list(found)


def _connect(url: str, timeout_s: float) -> tuple[ConnectionPool, Redis]:
    """A client that has not connected yet; ValueError for a url that leads nowhere."""
    import redis
    from redis.backoff import NoBackoff
    from redis.connection import parse_url
    from redis.retry import Retry

    where = redact_uri(url)
    try:
        settings: dict[str, Any] = parse_url(url)  # type: ignore[no-untyped-call]
    except (ValueError, TypeError, AttributeError):  # its words may hold a piece of the password
        raise ValueError(
            f"got {where}, wanted redis://user:password@host:6379/0, rediss://... or unix:///path; "
            "write '@ / : # ?' in a password as %40 %2F %3A %23 %3F"
        ) from None
    unknown = sorted(name for name in settings if name not in _SETTINGS and not name.startswith("ssl_"))
    if unknown:
        raise ValueError(f"{where} sets {', '.join(unknown)}; only db, username, password and ssl_... can be set")
    database = url.partition("://")[2].partition("?")[0].partition("/")[2].strip("/")
    if not url.startswith("unix://") and database and not database.isdecimal():
        raise ValueError(f"a Redis database is a number: redis://host:6379/0; got {where}")
    # Settings of ours come last: a url cannot make a call take longer.
    limits: dict[str, Any] = {
        "socket_timeout": timeout_s,
        "socket_connect_timeout": timeout_s,
        "retry": Retry(NoBackoff(), 0),
        "health_check_interval": 0,
        "protocol": 2,
        "decode_responses": False,
    }
    try:
        pool = redis.ConnectionPool(**{**settings, **limits})
        return pool, redis.Redis(connection_pool=pool)
    except (redis.RedisError, TypeError, ValueError):
        raise ValueError(f"got {where}, of which redis-py can make no connection; check its options") from None
