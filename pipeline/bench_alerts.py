"""`millpond bench alerts`: what rules miss and what they cry wolf about, beside a timer that asks as often."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..stream import Frame
from ..stream.render import render
from ..stream.truth import Witness
from ..stream.wide_world import make_wide_world
from ..stream.world import COLORS, SHAPES, World, make_world
from .alerts.machine import Answered, Ask, Fire, Saw, State, Which, step
from .alerts.rule import AlertRule
from .alerts.words import Checks, checks_for
from .bench import Bench
from .bench_mini import wilson
from .config import EngineConfig
from .engine import Engine
from .eval.origin import origin
from .question import Question
from .session import Session

# Training takes its seeds from a million on.
FIRST_SEED = 9000
NUM_WORLDS = 16
LENGTH_S = 48
WINDOW_S = 3.0
_NUM_ABSENT = 3
_WORLDS_AT_ONCE = 8
_QUESTIONS_AT_ONCE = 32
_MAKERS: dict[str, Callable[..., World]] = {"plain": make_world, "wide": make_wide_world}
# Frames with a little of it, half faded or half in the picture, are nobody's fault.
_VAGUE_S = 1.0


@dataclass(frozen=True, kw_only=True)
class Method:
    """One way to watch. every_s: asks so often; None: when something changed. verifies: asks twice before it fires."""

    name: str
    every_s: float | None = None
    verifies: bool = True
    releases: int = 2


class Watched(NamedTuple):
    """A world's frames, and its rules: what is to be told, and when it is to be seen, at each frame."""

    frames: list[Frame]
    things: list[str]
    seen: list[np.ndarray]
    vague: list[np.ndarray]


@dataclass(eq=False)
class Run:
    """A rule on a world. fired: stream times."""

    rule: AlertRule
    checks: Checks
    verifies: bool
    state: State = field(default_factory=State)
    fired: list[float] = field(default_factory=list)
    num_questions: int = 0

    def go(self, event: Saw | Answered) -> Which | None:
        """What is to be asked now."""
        self.state, do = step(self.rule, self.state, event)
        if do == Ask(Which.VERIFIER) and not self.verifies:
            return self.go(Answered(Which.VERIFIER, True))
        if isinstance(do, Fire):
            self.fired.append(do.at_s)
        return do.which if isinstance(do, Ask) else None


@dataclass(frozen=True)
class AlertsBench(Bench):
    """Rules "a red circle appears" on worlds with it and without, watched frame by frame as the service does.

    num_worlds: of each kind. length_s: of each, a frame a second.
    """

    num_worlds: int = NUM_WORLDS
    length_s: int = LENGTH_S

    about = (
        "alerts: rules such as 'a red circle appears' on synthetic worlds with and without one, asked when something "
        "changed and then verified, beside a plain timer that asks as many questions and fires on the first yes. Keys: "
        "worlds (for each kind methods, each with name, every_s, miss_rate and miss_interval (95 %; of things that "
        "came), false_rate and false_interval (of rules whose thing never came), num_false (firings with nothing to "
        "see, of all rules), num_repeated (firings for what was told), delay_s (median, from coming to firing), "
        "questions_per_minute (of a rule), num_came, num_absent, num_fired); num_worlds, length_s; command, machine, "
        "commit."
    )

    def run(self, *, model: str, repeats: int, clips: Path | None = None) -> dict[str, Any]:
        """repeats: how many times `num_worlds` worlds of each kind."""
        config = EngineConfig(model="millpond/mini" if model == "default" else model, reuse="none")
        num_worlds = self.num_worlds * repeats
        with Engine(config) as engine:
            kinds = {kind: self._measure(engine, kind, num_worlds) for kind in _MAKERS}
        return {"worlds": kinds, "num_worlds": num_worlds, "length_s": self.length_s, **origin(sys.argv)}

    def _measure(self, engine: Engine, kind: str, num_worlds: int) -> list[dict[str, Any]]:
        worlds = [_watched(kind, seed, self.length_s) for seed in range(FIRST_SEED, FIRST_SEED + num_worlds)]
        changed = [Method(name="changed, verified"), Method(name="changed, unverified", verifies=False)]
        runs = _watch_all(engine, worlds, changed)
        # The same number of questions, at even distances.
        num_rule_s = self.length_s * sum(len(world.things) for world in worlds)
        every_s = num_rule_s / max(1, sum(run.num_questions for run in runs[0]))
        timers = [
            Method(name="timer, plain", every_s=max(1.0, every_s), verifies=False, releases=1),
            Method(name="timer, verified", every_s=max(1.0, every_s)),
        ]
        runs += _watch_all(engine, worlds, timers)
        return [_figures(method, found, worlds) for method, found in zip([*changed, *timers], runs, strict=True)]

    def table(self, result: dict[str, Any]) -> str:
        lines = [
            f"{result['num_worlds']} worlds of {result['length_s']} s of each kind, a frame a second; rules without a "
            f"cooldown; {result['machine']}"
        ]
        for kind, methods in result["worlds"].items():
            first = methods[0]
            lines += [
                "",
                f"{kind} worlds: {first['num_came']} things came, {first['num_absent']} rules wait for what never does",
                f"{'':20} {'missed':>7} {'95 %':>14} {'false':>7} {'95 %':>14} {'firings':>8} {'false':>6} "
                f"{'again':>6} {'delay':>7} {'questions':>10}",
            ]
            lines += [_line(method) for method in methods]
        return "\n".join(lines)


def _line(row: dict[str, Any]) -> str:
    missed, false = ("{:.3f} to {:.3f}".format(*row[key]) for key in ("miss_interval", "false_interval"))
    delay = "-" if row["delay_s"] is None else f"{row['delay_s']:.1f} s"
    return (
        f"{row['name']:20} {row['miss_rate']:7.3f} {missed:>14} {row['false_rate']:7.3f} {false:>14} "
        f"{row['num_fired']:8d} {row['num_false']:6d} {row['num_repeated']:6d} {delay:>7} "
        f"{row['questions_per_minute']:6.1f} /min"
    )


def _watched(kind: str, seed: int, length_s: int) -> Watched:
    """A world, and rules on all its things, on near misses of these, and on something else."""
    world = _MAKERS[kind](seed, duration_s=float(length_s), aspect=4 / 3)
    times_s = [float(t) for t in range(length_s)]
    frames = [
        Frame(render(world, [t], width=320, height=240).rgb_NHW3[0], t, f"{kind}-{seed}", n)
        for n, t in enumerate(times_s)
    ]
    witness = Witness(world, times_s)
    came = [o for o in range(len(world.things)) if witness.seen_NO[:, o].any()]
    names = {thing.name for thing in world.things}
    rng = np.random.default_rng(seed)
    others = [f"{c} {s}" for c in COLORS for s in SHAPES if f"{c} {s}" not in names]
    near = [name for name in others if any(set(name.split()) & set(real.split()) for real in names)]
    absent = [str(name) for name in rng.permutation(near or others)[: _NUM_ABSENT - 1]]
    absent += [name for name in map(str, rng.permutation(others)) if name not in absent][:1]
    nothing = np.zeros(length_s, dtype=bool)
    return Watched(
        frames,
        [world.things[o].name for o in came] + absent,
        [witness.seen_NO[:, o] for o in came] + [nothing] * len(absent),
        [witness.vague_NO[:, o] for o in came] + [nothing] * len(absent),
    )


def _watch_all(engine: Engine, worlds: Sequence[Watched], methods: Sequence[Method]) -> list[list[Run]]:
    """Each method's runs, rule by rule of world after world. A frame is seen once, and a question asked once, for all
    methods."""
    found: list[list[Run]] = [[] for _ in methods]
    for first in range(0, len(worlds), _WORLDS_AT_ONCE):
        group = worlds[first : first + _WORLDS_AT_ONCE]
        runs = [[[_run(method, thing) for thing in world.things] for world in group] for method in methods]
        sessions = [engine.session(world.frames[0].stream_id) for world in group]
        for number in range(len(group[0].frames)):
            going: list[tuple[Session, Run, Which | None]] = []
            for place, (session, world) in enumerate(zip(sessions, group, strict=True)):
                frame = world.frames[number]
                session.push(frame, reads=False)
                share = session.narrator.change_share
                for run in [run for of_method in runs for run in of_method[place]]:
                    saw = Saw(frame.pts_s, share >= run.rule.change_share)
                    going.append((session, run, run.go(saw)))
            engine.read_pending(sessions)
            while going := _answer(engine, going):
                pass
        for session in sessions:
            session.close()
        for of_method, all_runs in zip(runs, found, strict=True):
            all_runs += [run for of_world in of_method for run in of_world]
    return found


def _answer(
    engine: Engine, going: Sequence[tuple[Session, Run, Which | None]]
) -> list[tuple[Session, Run, Which | None]]:
    """Asks what is to be asked, and gives what is to be asked then."""
    asked = [(session, run, which) for session, run, which in going if which is not None]
    checks = [run.checks.trigger if which is Which.TRIGGER else run.checks.verifier for _, run, which in asked]
    questions: dict[tuple[Session, Question], None] = {}
    for (session, run, _), check in zip(asked, checks, strict=True):
        assert session.seen_until_s is not None
        since_s = session.seen_until_s - run.rule.window_s
        questions[session, Question(check.text, since_s=since_s, max_new_tokens=check.max_new_tokens)] = None
    texts: dict[tuple[Session, str], str] = {}
    for first in range(0, len(questions), _QUESTIONS_AT_ONCE):
        some = list(questions)[first : first + _QUESTIONS_AT_ONCE]
        for (session, question), answer in zip(some, engine.ask(some), strict=True):
            texts[session, question.text] = answer.text
    then: list[tuple[Session, Run, Which | None]] = []
    for (session, run, which), check in zip(asked, checks, strict=True):
        assert which is not None
        run.num_questions += 1
        then.append((session, run, run.go(Answered(which, check.read(texts[session, check.text])))))
    return then


def _run(method: Method, thing: str) -> Run:
    rule = AlertRule(
        id="rule",
        stream_id="world",
        says=f"a {thing} appears",
        every_s=method.every_s,
        releases=method.releases,
        cooldown_s=0.0,
        window_s=WINDOW_S,
    )
    return Run(rule, checks_for(rule, "millpond/mini"), method.verifies)


class _Told(NamedTuple):
    """How one rule did. delay_s: from coming to firing; None: it never did, or nothing came."""

    came: bool
    delay_s: float | None
    num_fired: int
    num_false: int
    num_repeated: int


def _judge(seen_N: np.ndarray, vague_N: np.ndarray, fired: Sequence[float]) -> _Told:
    """Holds firings against when the thing was to be seen. What the question is about reaches back a little."""
    # Shapes: N frames.
    times_s = np.flatnonzero(seen_N).astype(float)
    if not len(times_s):
        return _Told(False, None, len(fired), len(fired), 0)
    from_s, until_s = float(times_s[0]), float(times_s[-1]) + WINDOW_S
    near_s = np.flatnonzero(seen_N | vague_N).astype(float)
    right = [at_s for at_s in fired if from_s <= at_s <= until_s]
    excused = [at_s for at_s in fired if at_s not in right and (np.abs(near_s - at_s) <= _VAGUE_S).any()]
    num_false = len(fired) - len(right) - len(excused)
    first = min([*right, *excused], default=None)
    delay_s = None if first is None else max(0.0, first - from_s)
    return _Told(True, delay_s, len(fired), num_false, max(0, len(right) + len(excused) - 1))


def _figures(method: Method, runs: Sequence[Run], worlds: Sequence[Watched]) -> dict[str, Any]:
    truths = [truth for world in worlds for truth in zip(world.seen, world.vague, strict=True)]
    told = [_judge(*truth, run.fired) for truth, run in zip(truths, runs, strict=True)]
    came, absent = [one for one in told if one.came], [one for one in told if not one.came]
    num_missed = sum(one.delay_s is None for one in came)
    num_false = sum(one.num_fired > 0 for one in absent)
    num_rule_s = sum(len(world.frames) * len(world.things) for world in worlds)
    return {
        "name": method.name,
        "every_s": method.every_s,
        "miss_rate": num_missed / len(came),
        "miss_interval": wilson(num_missed, len(came)),
        "false_rate": num_false / len(absent),
        "false_interval": wilson(num_false, len(absent)),
        "num_false": sum(one.num_false for one in told),
        "num_repeated": sum(one.num_repeated for one in told),
        "delay_s": statistics.median([one.delay_s for one in came if one.delay_s is not None] or [0.0]),
        "questions_per_minute": 60 * sum(run.num_questions for run in runs) / num_rule_s,
        "num_came": len(came),
        "num_absent": len(absent),
        "num_fired": sum(one.num_fired for one in told),
    }
