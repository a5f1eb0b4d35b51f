"""Workers and streams on paper: the real rules of turns and placement, in simulated time, with given costs."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from random import Random

from millpond.pipeline.cluster.placement import place
from millpond.pipeline.turns import Load, Turn, next_turn

Policy = Callable[..., Turn]


@dataclass(frozen=True)
class Costs:
    """Seconds of a worker: of a packed read and of each frame in it, likewise of a step of all answers, and of reading
    a question; and how many steps an answer takes."""

    read_s: float = 0.05
    frame_s: float = 0.1
    step_s: float = 0.02
    answer_s: float = 0.002
    question_s: float = 0.1
    num_steps: int = 16


@dataclass
class Asked:
    """A question: when it was asked, begun and answered (infinity: not yet)."""

    at_s: float
    begun_s: float = math.inf
    done_s: float = math.inf


@dataclass
class Stream:
    """One camera: a frame every `every_s`, of which the newest waits."""

    name: str
    every_s: float
    offset_s: float
    asked_at_s: deque[float]  # of questions to come
    taken: int = -1  # number of the newest frame that was taken
    questions: deque[Asked] = field(default_factory=deque)
    asked: list[Asked] = field(default_factory=list)  # all that came, begun or not
    answering: Asked | None = None
    steps_left: int = 0
    num_since_frame: int = 0
    away_until_s: float = 0.0  # it is on its way to another worker
    processed: list[tuple[float, float]] = field(default_factory=list)  # when, and the capture of the newest then

    def newest(self, now_s: float) -> int:
        return math.floor((now_s - self.offset_s) / self.every_s)

    def captured_s(self, number: int) -> float:
        return self.offset_s + number * self.every_s

    def next_s(self, now_s: float) -> float:
        """When something may happen here next."""
        frame_s = self.captured_s(self.newest(now_s) + 1)
        return max(min(frame_s, self.asked_at_s[0] if self.asked_at_s else math.inf), self.away_until_s)

    def load(self, now_s: float) -> Load:
        captured_s = self.processed[-1][1] if self.processed else -math.inf
        return Load(
            self.name,
            num_waiting=int(self.newest(now_s) > self.taken),
            age_s=now_s - captured_s,
            num_questions=len(self.questions),
            is_busy=self.answering is not None,
            waited_s=now_s - self.questions[0].at_s if self.questions else 0.0,
            num_since_frame=self.num_since_frame,
        )


class Worker:
    """One model. Plays its turns up to a moment, one after the other."""

    def __init__(self, costs: Costs, policy: Policy, *, max_frames: int, max_answers: int) -> None:
        self.costs, self.policy = costs, policy
        self.max_frames, self.max_answers = max_frames, max_answers
        self.streams: dict[str, Stream] = {}
        self.now_s = 0.0
        self.num_since_frames = 0

    def play(self, until_s: float) -> None:
        while self.now_s < until_s:
            here = [stream for stream in self.streams.values() if stream.away_until_s <= self.now_s]
            took_s = self._turn(here) if here else 0.0
            if not took_s:
                took_s = min((s.next_s(self.now_s) for s in self.streams.values()), default=until_s) - self.now_s
                took_s = max(took_s, 1e-3)
            self.now_s += took_s

    def _turn(self, here: list[Stream]) -> float:
        """Seconds that one turn takes; what it brings is there at its end."""
        costs, now_s = self.costs, self.now_s
        for stream in here:
            while stream.asked_at_s and stream.asked_at_s[0] <= now_s:
                stream.asked.append(Asked(stream.asked_at_s.popleft()))
                stream.questions.append(stream.asked[-1])
        going = [stream for stream in here if stream.answering]
        turn = self.policy(
            [stream.load(now_s) for stream in here],
            max_frames=self.max_frames,
            max_answers=self.max_answers,
            num_answering=len(going),
            num_since_frames=self.num_since_frames,
        )
        took_s = len(turn.questions) * costs.question_s
        for name in turn.questions:
            stream = self.streams[name]
            stream.answering, stream.steps_left = stream.questions.popleft(), costs.num_steps
            stream.answering.begun_s = now_s
            stream.num_since_frame += 1
            going.append(stream)
        if turn.frames:
            took_s += costs.read_s + costs.frame_s * len(turn.frames)
        if going:
            took_s += costs.step_s + costs.answer_s * len(going)
        for name in turn.frames:
            stream = self.streams[name]
            stream.taken, stream.num_since_frame = stream.newest(now_s), 0
            stream.processed.append((now_s + took_s, stream.captured_s(stream.taken)))
        for stream in going:
            stream.steps_left -= 1
            if not stream.steps_left and stream.answering:
                stream.answering.done_s = now_s + took_s
                stream.answering = None
        self.num_since_frames = 0 if turn.frames else self.num_since_frames + 1
        return took_s


@dataclass(frozen=True)
class Plan:
    """What a run is made of. Every fifth stream sends five frames a second, the others one.

    deaths: when which workers die. They are replaced `absent_s` later, and streams that move miss `moving_s`.
    bursts: when how many questions come at once, to how many streams.
    """

    num_streams: int = 1000
    num_workers: int = 64
    length_s: float = 120.0
    max_frames: int = 8
    max_answers: int = 8
    costs: Costs = field(default_factory=Costs)
    deaths: Mapping[float, tuple[int, ...]] = field(default_factory=dict)
    absent_s: float = 20.0
    moving_s: float = 2.0
    bursts: Mapping[float, tuple[int, int]] = field(default_factory=dict)


@dataclass
class Ran:
    """What became of a run: by stream, and which worker each was on when it began."""

    plan: Plan
    streams: dict[str, Stream]
    first_worker: dict[str, str]
    num_moves: int
    spread: int  # of streams, between the fullest and the emptiest living worker, at most

    @property
    def asked(self) -> list[Asked]:
        return [one for stream in self.streams.values() for one in stream.asked]

    def ages_s(self, name: str) -> list[float]:
        """A stream's age of the newest processed frame, looked at twice a second from second 10 on."""
        processed, ages, at = self.streams[name].processed or [(0.0, 0.0)], [], 0
        for tick in range(20, int(2 * self.plan.length_s)):
            while at + 1 < len(processed) and processed[at + 1][0] <= tick / 2:
                at += 1
            ages.append(tick / 2 - processed[at][1])
        return ages

    def p95_s(self) -> dict[str, float]:
        return {name: sorted(ages)[int(0.95 * len(ages))] for name in self.streams if (ages := self.ages_s(name))}


def run(plan: Plan, policy: Policy = next_turn) -> Ran:
    """Plays the plan. Deterministic."""
    random = Random(0)
    asked_at_s: dict[int, list[float]] = {number: [] for number in range(plan.num_streams)}
    for at_s, (num_questions, num_asked) in plan.bursts.items():
        for number in random.choices(range(num_asked), k=num_questions):
            asked_at_s[number].append(at_s)
    streams = {
        f"s{number:04}": Stream(
            f"s{number:04}",
            every_s=0.2 if number % 5 == 0 else 1.0,
            offset_s=random.random(),
            asked_at_s=deque(sorted(asked_at_s[number])),
        )
        for number in range(plan.num_streams)
    }
    capacities = {f"w{number:02}": 1.0 for number in range(plan.num_workers)}
    workers = {
        name: Worker(plan.costs, policy, max_frames=plan.max_frames, max_answers=plan.max_answers)
        for name in capacities
    }
    weights = dict.fromkeys(streams, 1.0)
    first = placed = place(weights, capacities, {})
    _settle(placed, {}, streams, workers, 0.0, plan)
    num_moves, spread = 0, _spread(placed, capacities)
    for at_s, changed in _changes(plan, capacities):
        for worker in workers.values():
            worker.play(at_s)
        before, placed = placed, place(weights, changed, placed)
        num_moves += sum(before[name] != placed[name] for name in streams)
        spread = max(spread, _spread(placed, changed))
        _settle(placed, before, streams, workers, at_s, plan)
    for worker in workers.values():
        worker.play(plan.length_s)
    return Ran(plan, streams, first, num_moves, spread)


def _changes(plan: Plan, capacities: Mapping[str, float]) -> Iterator[tuple[float, dict[str, float]]]:
    """When workers die or come back, and what each can carry from then on."""
    now = dict(capacities)
    events = [(at_s, dead, 0.0) for at_s, dead in plan.deaths.items()]
    events += [(at_s + plan.absent_s, dead, 1.0) for at_s, dead in plan.deaths.items()]
    for at_s, dead, capacity in sorted(events):
        now |= {f"w{number:02}": capacity for number in dead}
        yield at_s, dict(now)


def _settle(
    placed: Mapping[str, str],
    before: Mapping[str, str],
    streams: Mapping[str, Stream],
    workers: Mapping[str, Worker],
    now_s: float,
    plan: Plan,
) -> None:
    """Moves streams to where they are placed. What is being answered is asked again there."""
    for name, stream in streams.items():
        if before.get(name) == placed[name]:
            continue
        if name in before:
            del workers[before[name]].streams[name]
            stream.away_until_s = now_s + plan.moving_s
            if stream.answering:
                stream.questions.appendleft(stream.answering)
                stream.answering = None
        workers[placed[name]].streams[name] = stream


def _spread(placed: Mapping[str, str], capacities: Mapping[str, float]) -> int:
    counts = {worker: 0 for worker, capacity in capacities.items() if capacity}
    for worker in placed.values():
        counts[worker] += 1
    return max(counts.values()) - min(counts.values())
