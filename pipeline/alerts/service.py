"""Alerts: rules watched, what fires told, and what could not be told kept. What the server holds of all this."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

from ..serve.url_guard import UrlRules
from .alert import Alert, new_alert
from .courier import Courier, CourierStats
from .dead_letter import DeadLetter, DeadLetters
from .desk import AlertDesk
from .rule import AlertRule
from .watcher import RuleNow, Watcher
from .webhook import Outcome
from .words import checks_for

_MAX_RECENT = 100


class NoRule(KeyError):
    """There is no alert rule of this id (404)."""

    def __str__(self) -> str:
        return str(self.args[0])


class Alerts:
    """All alerts of one server. A context manager: entered, it takes the file and watches, ValueError where it
    cannot; any thread may call.

    desk: whoever runs the streams. model_name: whom the rules are put to; ValueError for a rule that it cannot know.
    kept_at: the file of what is not told yet; None: nothing outlives the process. urls: where webhooks may lead.
    """

    def __init__(
        self,
        desk: AlertDesk,
        rules: Sequence[AlertRule],
        *,
        model_name: str,
        kept_at: Path | str | None = None,
        urls: UrlRules | None = None,
    ) -> None:
        self._rules = {rule.id: rule for rule in rules}
        checked = [(rule, checks_for(rule, model_name)) for rule in rules]
        self._letters = DeadLetters(kept_at)
        self._courier = Courier(rules, self._letters, urls=urls)
        self._watcher = Watcher(desk, checked, self._fired)
        self._mutex = threading.Lock()
        self._recent: deque[Alert] = deque(maxlen=_MAX_RECENT)

    def __enter__(self) -> Alerts:
        self._letters.open()
        self._courier.start()
        self._watcher.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends all of it; what is not told stays in the file. May be called again."""
        with ExitStack() as closing:
            closing.callback(self._letters.close)
            closing.callback(self._courier.close)
            closing.callback(self._watcher.close)

    def rules(self) -> list[RuleNow]:
        """All rules, and how they are doing."""
        return self._watcher.rules()

    @property
    def recent(self) -> tuple[Alert, ...]:
        """The newest that fired, newest first."""
        with self._mutex:
            return tuple(reversed(self._recent))

    @property
    def dead(self) -> tuple[DeadLetter, ...]:
        """Those that could not be told, oldest first."""
        return self._letters.dead

    @property
    def deliveries(self) -> CourierStats:
        """How telling goes."""
        return self._courier.stats

    def test(self, rule_id: str) -> Future[Outcome]:
        """Tells the rule's webhook once that this is a test. NoRule where there is no such rule, ValueError where it
        has no webhook."""
        rule = self._known(rule_id)
        wall = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        return self._courier.try_once(new_alert(rule, at_s=0.0, wall=wall, is_test=True))

    def replay(self, rule_id: str | None = None) -> int:
        """Tells again what could not be told, of one rule or of all; how many these are."""
        if rule_id is not None:
            self._known(rule_id)
        return self._courier.replay(rule_id)

    def _known(self, rule_id: str) -> AlertRule:
        if rule_id not in self._rules:
            raise NoRule(f"there is no alert {rule_id!r}; there are: {', '.join(self._rules) or 'none'}")
        return self._rules[rule_id]

    def _fired(self, rule: AlertRule, alert: Alert) -> None:
        with self._mutex:
            self._recent.append(alert)
        if rule.webhook is not None:
            self._courier.send(alert)
