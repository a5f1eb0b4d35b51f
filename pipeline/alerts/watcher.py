"""Watcher: asks the streams what their rules want to know, and tells what fires. One thread for all rules."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import NamedTuple

from ...stream.redact import redact
from ..answer import Answer
from ..question import NothingRemembered, Question
from .alert import Alert, new_alert
from .desk import AlertDesk, LogRow
from .machine import Answered, Ask, Failed, Fire, Phase, Saw, State, Which, step
from .rule import AlertRule
from .words import Check, Checks

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RuleNow:
    """How a rule is doing. Made by the watcher, read by routes and metrics.

    phase: quiet, holding or standing. num_asked: cheap questions; num_verified: verifiers'. num_unclear: answers that
    were neither yes nor no. num_refused: verifiers that did not say yes. problem: why it cannot be watched now.
    """

    rule: AlertRule
    phase: Phase
    last_fired_s: float | None
    num_fired: int
    num_asked: int
    num_verified: int
    num_refused: int
    num_unclear: int
    num_failed: int
    problem: str | None


@dataclass(eq=False, slots=True)
class _Run:
    """A rule and how far it is. The watcher's thread alone writes it."""

    rule: AlertRule
    checks: Checks
    state: State = field(default_factory=State)
    num_frames: int | None = None
    has_news: bool = False
    has_frame: bool = False
    asked: Future[Answer] | None = None
    asked_at_s: float = 0.0  # on the clock of the machine
    is_bounded: bool = False  # whether what was asked is about the newest stretch alone
    is_away: bool = False  # whether the desk knows of no such stream
    problem: str | None = None
    num_fired: int = 0
    num_asked: int = 0
    num_verified: int = 0
    num_refused: int = 0
    num_unclear: int = 0
    num_failed: int = 0


class _Back(NamedTuple):
    """A question that came back."""

    run: _Run
    which: Which
    asked: Future[Answer]


class Watcher:
    """Watches the rules' streams until it is closed. Asks at most one question of a rule at a time, and few in all:
    people ask too.

    fired: called from the watcher's thread, so it must be short.
    look_s: how often it looks whether frames came. answer_s: an answer that takes longer is not waited for.
    max_questions: on their way at once, over all rules.
    """

    def __init__(
        self,
        desk: AlertDesk,
        rules: Iterable[tuple[AlertRule, Checks]],
        fired: Callable[[AlertRule, Alert], None],
        *,
        look_s: float = 0.2,
        answer_s: float = 120.0,
        max_questions: int = 2,
    ) -> None:
        if not (look_s > 0 and answer_s > 0 and max_questions >= 1):
            raise ValueError(
                f"a watcher looks and waits for some time, and asks one question or more; got look_s={look_s}, "
                f"answer_s={answer_s}, max_questions={max_questions}"
            )
        self._desk, self._fired = desk, fired
        self._look_s, self._answer_s, self._max_questions = look_s, answer_s, max_questions
        self._runs = [_Run(rule, checks) for rule, checks in rules]
        self._order = deque(self._runs)
        self._stream_ids = {run.rule.stream_id for run in self._runs}
        self._back: queue.SimpleQueue[_Back] = queue.SimpleQueue()
        self._wake = threading.Event()
        self._mutex = threading.Lock()
        self._news: set[str] = set()  # streams of which something was told
        self._is_closing = False
        self._thread = threading.Thread(target=self._live, name="millpond alerts watcher", daemon=True)

    def start(self) -> Watcher:
        self._desk.on_event(self._on_event)
        self._thread.start()
        return self

    def close(self) -> None:
        """Ends it; questions on their way are given up. May be called again."""
        self._is_closing = True
        self._wake.set()
        if self._thread.ident is not None and self._thread is not threading.current_thread():
            self._thread.join()

    def __enter__(self) -> Watcher:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.close()

    def rules(self) -> list[RuleNow]:
        """How all rules are doing; from any thread."""
        return [
            RuleNow(
                run.rule,
                run.state.phase,
                run.state.fired_s,
                run.num_fired,
                run.num_asked,
                run.num_verified,
                run.num_refused,
                run.num_unclear,
                run.num_failed,
                run.problem,
            )
            for run in self._runs
        ]

    def _on_event(self, stream_id: str, row: LogRow) -> None:
        if row.kind in ("narration", "event", "gap") and stream_id in self._stream_ids:
            with self._mutex:
                self._news.add(stream_id)

    # The watcher's thread, from here on.

    def _live(self) -> None:
        while not self._is_closing:
            try:
                while not self._back.empty():
                    self._take(self._back.get())
                self._look_around()
            except Exception:  # noqa: BLE001 - the thread outlives what one rule, or whoever listens, does wrong
                _log.exception("looking after the alerts failed")
            self._wake.wait(self._look_s)
            self._wake.clear()
        for run in self._runs:
            if run.asked is not None:
                run.asked.cancel()

    def _look_around(self) -> None:
        with self._mutex:
            news, self._news = self._news, set()
        self._order.rotate(-1)  # where only some may ask, each is first in turn
        for run in tuple(self._order):
            if run.asked is not None and time.monotonic() - run.asked_at_s > self._answer_s:
                _log.warning("alert rule %r: no answer within %g s", run.rule.id, self._answer_s)
                run.asked.cancel()
                self._fail(run)
            self._look(run, run.rule.stream_id in news)

    def _look(self, run: _Run, has_news: bool) -> None:
        try:
            now = self._desk.state(run.rule.stream_id)
        except (KeyError, ValueError, RuntimeError) as error:  # there is no such stream, or the desk is not ready
            run.is_away = True
            self._trouble(run, str(error))
            return
        if run.is_away:
            run.is_away, run.problem, run.num_frames = False, None, None
        is_new = now.num_frames != run.num_frames
        run.num_frames = now.num_frames
        run.has_news |= has_news or (is_new and now.change_share >= run.rule.change_share)
        run.has_frame |= is_new
        is_full = sum(other.asked is not None for other in self._runs) >= self._max_questions
        if now.seen_until_s is None or (run.asked is None and is_full) or not (run.has_frame or run.has_news):
            return
        had_news, run.has_news, run.has_frame = run.has_news, False, False
        self._go(run, Saw(now.seen_until_s, had_news))

    def _go(self, run: _Run, event: Saw | Answered | Failed, answer: Answer | None = None) -> None:
        run.state, do = step(run.rule, run.state, event)
        if isinstance(do, Ask):
            self._ask(run, do.which)
        elif isinstance(do, Fire):
            run.num_fired += 1
            self._fire(run, do, answer)

    def _ask(self, run: _Run, which: Which, *, everything: bool = False) -> None:
        check = _check_of(run, which)
        assert run.state.now_s is not None
        since_s = None if everything else run.state.now_s - run.rule.window_s
        if which is Which.TRIGGER:
            run.num_asked += 1
        else:
            run.num_verified += 1
        question = Question(check.text, since_s=since_s, max_new_tokens=check.max_new_tokens)
        try:
            asked = self._desk.ask(run.rule.stream_id, question)
        except (KeyError, ValueError, RuntimeError) as error:  # there is no such stream, or too much is asked
            self._trouble(run, str(error))
            self._fail(run, which)
            return
        run.asked, run.asked_at_s, run.is_bounded = asked, time.monotonic(), not everything
        asked.add_done_callback(lambda done: self._came(_Back(run, which, done)))

    def _came(self, back: _Back) -> None:
        """Called by whoever answers, so it is short."""
        self._back.put(back)
        self._wake.set()

    def _take(self, back: _Back) -> None:
        run, which, asked = back
        if run.asked is not asked:
            return  # it is not waited for any more
        run.asked = None
        try:
            answer = asked.result()
        except NothingRemembered:
            # Nothing of so short a stretch was kept, where a gate leaves out what does not change.
            if run.is_bounded:
                self._ask(run, which, everything=True)
            else:
                self._fail(run, which)
            return
        except (Exception, CancelledError) as error:  # noqa: BLE001 - whatever it is, it is asked again
            self._trouble(run, str(error) or type(error).__name__)
            self._fail(run, which)
            return
        run.problem = None
        says = _check_of(run, which).read(answer.text)
        run.num_unclear += says is None
        run.num_refused += which is Which.VERIFIER and not says
        self._go(run, Answered(which, says), answer)

    def _fire(self, run: _Run, fire: Fire, answer: Answer | None) -> None:
        at_s = fire.at_s if answer is None else answer.seen_until_s
        wall = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        alert = new_alert(run.rule, at_s=at_s, wall=wall, spans=() if answer is None else answer.used)
        _log.info("alert %s: rule %r fires on stream %r at %.1f s", alert.id, alert.rule, alert.stream_id, at_s)
        self._fired(run.rule, alert)

    def _fail(self, run: _Run, which: Which | None = None) -> None:
        run.asked = None
        run.num_failed += 1
        pending = which or run.state.pending
        if pending is not None:
            self._go(run, Failed(pending))

    def _trouble(self, run: _Run, problem: str) -> None:
        problem = redact(problem)[:300]
        if run.problem is None:
            _log.warning("alert rule %r cannot be watched now: %s", run.rule.id, problem)
        run.problem = problem


def _check_of(run: _Run, which: Which) -> Check:
    return run.checks.trigger if which is Which.TRIGGER else run.checks.verifier
