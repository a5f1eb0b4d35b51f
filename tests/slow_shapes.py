"""The truth about a world the slow way: frame by frame, by somebody who reads the question and counts on fingers."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np

from millpond.stream.world import World

# What the canonical wordings ask about; name: "red circle".
NAME = r"(\w+ \w+)"


class SlowWitness:
    """Has looked at the world once a second, up to `now_s`."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.now_s = -1
        self.came_s: dict[str, int] = {}
        self.shown_then: dict[str, str] = {}
        self.way: dict[str, tuple[np.ndarray, np.ndarray]] = {}
        self.here: set[str] = set()
        self.news: list[tuple[int, str]] = []

    def watch(self, until_s: int) -> None:
        while self.now_s < until_s:
            self.now_s += 1
            before, self.here = self.here, set()
            for thing in self.world.things:
                name = f"{thing.color} {thing.shape}"
                if not thing.appear_s <= self.now_s < thing.leave_s:
                    if name in before:
                        self.news.append((self.now_s, f"{name} leaves"))
                    continue
                self.here.add(name)
                place = self._place(thing.start_xy, thing.end_xy, (thing.move_start_s, thing.move_end_s))
                if name not in self.came_s:
                    self.came_s[name] = self.now_s
                    self.shown_then[name] = self.number()
                    self.way[name] = (place, place)
                    self.news.append((self.now_s, f"{name} appears"))
                self.way[name] = (self.way[name][0], place)

    def number(self) -> str:
        ticker = self.world.extras.ticker
        if ticker is None:
            return ""
        shown = [n for start_s, n in zip(ticker.starts_s, ticker.numbers, strict=True) if start_s <= self.now_s]
        return f"{shown[-1]:02d}"

    def ordered(self) -> list[list[str]]:
        """Names in the order of their coming, those that came together in one list."""
        times_s = sorted(set(self.came_s.values()))
        return [[name for name, came_s in self.came_s.items() if came_s == time_s] for time_s in times_s]

    def answers(self, question: str) -> set[str]:
        """Every right answer; where things came together, in whatever order."""
        for pattern, tell in _TOLD.items():
            found = re.fullmatch(pattern, question)
            if found:
                return tell(self, *found.groups())
        raise AssertionError(f"nobody can answer {question!r}")

    def _place(self, start: tuple[float, float], end: tuple[float, float], when: tuple[float, float]) -> np.ndarray:
        return np.array([np.interp(self.now_s, when, side) for side in zip(start, end, strict=True)])


def _where(seen: SlowWitness, name: str) -> set[str]:
    assert name in seen.here
    return _last_seen(seen, name)


def _last_seen(seen: SlowWitness, name: str) -> set[str]:
    right, down = seen.way[name][1] / [seen.world.aspect, 1.0] - 0.5
    if max(abs(right), abs(down)) < 0.14:
        return {"center"}
    if abs(right) > abs(down):
        return {"right" if right > 0 else "left"}
    return {"bottom" if down > 0 else "top"}


def _motion(seen: SlowWitness, name: str) -> set[str]:
    right, down = seen.way[name][1] - seen.way[name][0]
    if max(abs(right), abs(down)) < 0.05:
        return {"still"}
    if abs(right) > abs(down):
        return {"right" if right > 0 else "left"}
    return {"down" if down > 0 else "up"}


def _only(seen: SlowWitness, part: int, word: str) -> set[str]:
    (name,) = [name for name in seen.came_s if name.split()[part] == word]
    return {name.split()[1 - part]}


def _next(seen: SlowWitness, name: str) -> set[str]:
    later = [group for group in seen.ordered() if seen.came_s[group[0]] > seen.came_s[name]]
    return set(later[0]) if later else {"nothing"}


def _listed(groups: list[list[str]]) -> set[str]:
    """Things that came together may stand in any order: one right answer, names sorted within each group."""
    return {", ".join(name for group in groups for name in sorted(group))} if groups else {"nothing"}


def _new(seen: SlowWitness, since_s: str) -> set[str]:
    recent = sorted((when_s, words) for when_s, words in seen.news if when_s > int(since_s))
    return {", ".join(words for _, words in recent)} if recent else {"nothing"}


def _asked_order(seen: SlowWitness, names: str) -> set[str]:
    return {", ".join(sorted(names.split(", "), key=lambda name: seen.came_s[name]))}


_TOLD = {
    r"How many objects are there now\?": lambda s: {str(len(s.here))},
    r"How many objects have appeared\?": lambda s: {str(len(s.came_s))},
    r"How many (\w+) objects have appeared\?": lambda s, color: {str(sum(n.split()[0] == color for n in s.came_s))},
    r"How many (\w+)s have appeared\?": lambda s, shape: {
        str(sum(n.split()[1] == shape.removesuffix("e" if shape == "crosse" else "") for n in s.came_s))
    },
    rf"Where is the {NAME}\?": _where,
    rf"Where did I last see the {NAME}\?": _last_seen,
    r"What is there now\?": lambda s: {", ".join(sorted(s.here)) or "nothing"},
    rf"Is there a {NAME} now\?": lambda s, name: {"yes" if name in s.here else "no"},
    r"What number is shown now\?": lambda s: {s.number()},
    rf"Which way does the {NAME} move\?": _motion,
    rf"When did the {NAME} appear\?": lambda s, name: {str(s.came_s[name])},
    r"What appeared first\?": lambda s: set(s.ordered()[0]),
    r"What appeared last\?": lambda s: set(s.ordered()[-1]),
    rf"Did a {NAME} appear\?": lambda s, name: {"yes" if name in s.came_s else "no"},
    rf"What number was shown when the {NAME} appeared\?": lambda s, name: {s.shown_then[name]},
    r"In which order did these appear: (.+)\?": _asked_order,
    rf"What appeared next after the {NAME}\?": _next,
    r"What appeared\?": lambda s: _listed(s.ordered()),
    r"What color is the (\w+)\?": lambda s, shape: _only(s, 1, shape),
    r"What shape is (\w+)\?": lambda s, color: _only(s, 0, color),
    r"What is new since (\d+) s\?": _new,
}


def same(kind: str, told: str, right: set[str]) -> bool:
    """Whether it is a right answer; what is there, and what came in the same second, may be told in any order."""
    if kind in ("list", "new", "there"):
        return {", ".join(sorted(told.split(", ")))} == {", ".join(sorted(one.split(", "))) for one in right}
    return right == {told}


def cut_off(world: World, at_s: float) -> World:
    """The world as if nothing at all happened after a moment."""
    ticker = world.extras.ticker
    if ticker is not None:
        num = sum(start_s <= at_s for start_s in ticker.starts_s)
        ticker = replace(ticker, starts_s=ticker.starts_s[:num], numbers=ticker.numbers[:num])
    things = [t for t in world.things if t.appear_s <= at_s]
    return replace(
        world,
        things=tuple(replace(t, leave_s=t.leave_s if t.leave_s <= at_s else 1e9) for t in things),
        backgrounds=tuple(b for b in world.backgrounds if b.start_s <= at_s),
        extras=replace(world.extras, ticker=ticker),
    )
