"""Courier: brings alerts to their webhooks from a thread of its own, again and again until they arrive or are dead."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Iterable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass

from ...stream.backoff import Backoff
from ..serve.url_guard import UrlRules
from .alert import Alert
from .dead_letter import DeadLetters
from .rule import AlertRule
from .webhook import Outcome, Webhook

_log = logging.getLogger(__name__)

_AT_ONCE, _AT_ONCE_OF_RULE = 8, 2


@dataclass(frozen=True, slots=True)
class CourierStats:
    """Made by a Courier, read by routes and metrics. num_tried: messages sent, each try. num_waiting: on their way."""

    num_told: int
    num_tried: int
    num_given_up: int
    num_waiting: int


class Courier:
    """Tells webhooks. At least once: an alert is on the disk before its first try, and tried again by the next process
    where this one is killed; who receives it knows it by its id.

        send -> dead letters: waiting -> try, wait, try, ... -> told
                                            '--- no use, or `max_tries` ---> dead letters: dead -- replay --> waiting

    Nothing blocks whoever sends, and nobody waits for another's slow receiver: as many tries at once as 8, of one rule
    2, each over within `try_s`. Over `max_waiting` an alert goes to the dead letters at once. Any thread may call.
    """

    def __init__(
        self,
        rules: Iterable[AlertRule],
        letters: DeadLetters,
        *,
        urls: UrlRules | None = None,
        backoff: Backoff | None = None,
        max_tries: int = 10,
        max_waiting: int = 256,
        try_s: float = 10.0,
    ) -> None:
        """letters: theirs to close who made them. urls: where webhooks may lead; None: the public internet."""
        if max_tries < 1 or max_waiting < 1 or not try_s > 0:
            raise ValueError(
                f"a courier needs one try, one place and some time; got max_tries={max_tries}, "
                f"max_waiting={max_waiting}, try_s={try_s}"
            )
        self._rules = {rule.id: rule for rule in rules}
        self._letters = letters
        self._urls, self._try_s = urls or UrlRules(), try_s
        self._backoff = backoff or Backoff(first_s=1.0, longest_s=600.0)
        self._max_tries, self._max_waiting = max_tries, max_waiting
        self._mutex = threading.Lock()
        self._open: set[str] = set()  # ids of alerts on their way
        self._num_told = self._num_tried = self._num_given_up = 0
        self._loop: asyncio.AbstractEventLoop | None = None  # while it runs
        self._is_closing = False
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, name="millpond alerts courier", daemon=True)

    def start(self) -> Courier:
        """Begins, with those that an earlier process did not get told."""
        self._thread.start()
        self._ready.wait()
        left = self._letters.waiting
        if left:
            _log.info("%d alerts are left from before, and told now", len(left))
        for alert in left:
            self._begin(alert)
        return self

    def send(self, alert: Alert) -> None:
        """Takes an alert of a rule that has a webhook; it is told as soon as that goes."""
        self._letters.keep(alert)
        self._begin(alert)

    def try_once(self, alert: Alert) -> Future[Outcome]:
        """Sends it once, now, and keeps nothing of it: for trying whether a webhook works."""
        rule = self._rule_of(alert)
        with self._mutex:
            if self._loop is None or self._is_closing:
                raise RuntimeError("the courier does not run; start it")
            return asyncio.run_coroutine_threadsafe(self._try(rule, alert), self._loop)

    def replay(self, rule_id: str | None = None) -> int:
        """Sends again what was given up, of one rule or of all; how many these are."""
        revived = self._letters.revive(rule_id)
        for alert in revived:
            self._begin(alert)
        return len(revived)

    @property
    def stats(self) -> CourierStats:
        """How it goes."""
        with self._mutex:
            return CourierStats(self._num_told, self._num_tried, self._num_given_up, len(self._open))

    def close(self) -> None:
        """Ends it, in the middle of a try too: what was not told stays in the dead letters, waiting. May be called
        again."""
        with self._mutex:
            self._is_closing = True
            loop = self._loop
        if loop is not None:
            with suppress(RuntimeError):  # it ended meanwhile
                loop.call_soon_threadsafe(self._stop.set)
        if self._thread.ident is not None and self._thread is not threading.current_thread():
            self._thread.join()

    def __enter__(self) -> Courier:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.close()

    def _rule_of(self, alert: Alert) -> AlertRule:
        rule = self._rules.get(alert.rule)
        if rule is None or rule.webhook is None:
            raise ValueError(f"an alert is told by its rule's webhook; got one of {alert.rule!r}, which has none")
        return rule

    def _begin(self, alert: Alert) -> None:
        with self._mutex:
            if self._loop is None or self._is_closing or alert.id in self._open:
                return  # it is in the file
            is_full = len(self._open) >= self._max_waiting
            if not is_full:
                self._open.add(alert.id)
                asyncio.run_coroutine_threadsafe(self._tell(alert), self._loop)
        if is_full:
            self._give_up(alert, f"{self._max_waiting} alerts were on their way already")

    # The courier's thread, from here on.

    def _run(self) -> None:
        asyncio.run(self._live())

    async def _live(self) -> None:
        self._stop = asyncio.Event()
        self._room = asyncio.Semaphore(_AT_ONCE)
        self._room_of = {rule_id: asyncio.Semaphore(_AT_ONCE_OF_RULE) for rule_id in self._rules}
        self._webhook = Webhook(self._urls, self._try_s)
        with self._mutex:
            self._loop = asyncio.get_running_loop()
            if self._is_closing:
                self._stop.set()
        self._ready.set()
        await self._stop.wait()
        with self._mutex:
            self._loop = None  # nothing begins any more; `asyncio.run` cancels what has

    async def _tell(self, alert: Alert) -> None:
        try:
            problem = await self._try_until_told(alert)
            if problem is not None:
                self._give_up(alert, problem)
        except Exception:  # noqa: BLE001 - one alert's trouble is not the others'
            _log.exception("alert %s of rule %r could not be handled", alert.id, alert.rule)
            self._give_up(alert, "it could not be handled; see the log")
        finally:
            with self._mutex:
                self._open.discard(alert.id)

    async def _try_until_told(self, alert: Alert) -> str | None:
        """None when it was told; else why not."""
        try:
            rule = self._rule_of(alert)
        except ValueError as error:
            return str(error)
        waits = self._backoff.start()
        for num_tries in range(1, self._max_tries + 1):
            outcome = await self._try(rule, alert)
            if outcome.problem is None:
                self._letters.told(alert.id)
                with self._mutex:
                    self._num_told += 1
                _log.info("alert %s of rule %r was told, try %d", alert.id, rule.id, num_tries)
                return None
            if outcome.is_final or num_tries == self._max_tries:
                return f"{outcome.problem}; tried {num_tries} times"
            if num_tries == 1:
                _log.warning("alert %s of rule %r: %s; it is tried again", alert.id, rule.id, outcome.problem)
            await asyncio.sleep(max(waits.draw(), outcome.wait_s))
        raise AssertionError("the last try decides")

    async def _try(self, rule: AlertRule, alert: Alert) -> Outcome:
        assert rule.webhook is not None and rule.secret is not None
        async with self._room_of[rule.id], self._room:
            with self._mutex:
                self._num_tried += 1
            return await self._webhook.post(rule.webhook, rule.secret, alert.body)

    def _give_up(self, alert: Alert, problem: str) -> None:
        self._letters.give_up(alert.id, problem)
        with self._mutex:
            self._num_given_up += 1
        _log.warning("alert %s of rule %r is not told: %s; it is kept for a replay", alert.id, alert.rule, problem)
