"""evaluate: one method answers one suite, strictly causally, and goes on where an earlier run was stopped."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ...encoders import VideoLLM, load_model
from ...stream import Frame, RateSampler, SourceError, SourceLost, open_source
from ...stream.redact import redact
from ..batch.settings import BatchSettings, described
from ..config import EngineConfig
from ..engine import Engine
from ..question import Question
from .item import Item, Said, Scored
from .method import EvalMethod
from .progress import Began, Event, Gave, LeftOut, Watched
from .record import Answered, Ledger, NoLedger
from .suites import Suite
from .video_pass import Shown, Unshown, VideoBroken, VideoPass
from .videos import locate, name_of
from .wording import wording_for

_log = logging.getLogger(__name__)

# More after a video's end than this, and it is hardly the video that the question was written for.
_FAR_S = 5.0


@dataclass(frozen=True, slots=True, eq=False)
class Results:
    """Made by `evaluate`, read by reports: what one method answered, in the order of the items.

    settings: all that decided it, as JSON. answered and scored go together. num_kept: of them, by an earlier run.
    left_out: what is not scored, by video.
    """

    suite: Suite
    method: EvalMethod
    settings: Mapping[str, Any]
    answered: tuple[Answered, ...]
    scored: tuple[Scored, ...]
    num_kept: int
    left_out: tuple[LeftOut, ...]


def evaluate(
    suite: Suite,
    items: Sequence[Item],
    method: EvalMethod,
    *,
    config: EngineConfig | None = None,
    model: VideoLLM | None = None,
    videos: Path | None = None,
    out: Path | None = None,
    anew: bool = False,
    poll_s: float = 1.0,
    all_items: Sequence[Item] = (),
    on_event: Callable[[Event], None] | None = None,
) -> Results:
    """Asks all items, each when its moment has come, one pass over a video for all that is asked about it.

    config: what all methods of a comparison share; the method makes its own of it. model: one that is loaded already.
    videos: the folder below which the videos are. out: the folder for the answers; a run that was stopped goes on
        there, and ValueError says where settings differ. anew: throws away what is there.
    poll_s: stream seconds between polls of a "moment". all_items: the suite's, where `items` are some of them: what a
        conversation was about before.
    """
    if not 0 < poll_s < float("inf"):
        raise ValueError(f"poll_s must be finite and more than 0; got {poll_s}")
    if len({item.id for item in items}) < len(items):
        raise ValueError(f"ids of items must differ; got {len(items)} items; see the suite's reader")
    own = method.config(config or EngineConfig())
    if model is None:
        model = load_model(own.model, device=own.device, dtype=own.dtype, max_side_px=own.max_side_px)
    # What reuses features leaves no frame to a stopwatch here: the same questions are answered alike another time.
    with Engine(own.timeless(model), model=model) as engine:
        settings = settings_of_run(suite, method, engine, poll_s)
        ledger = NoLedger() if out is None else Ledger(out / f"{method.name}.jsonl", settings, anew=anew)
        with ledger:
            run = _Run(suite, items, method, engine, settings, ledger, videos, poll_s, on_event or _ignore)
            return run.run({item.id: item for item in (*all_items, *items)})


def compare(
    suite: Suite,
    items: Sequence[Item],
    methods: Sequence[EvalMethod],
    *,
    config: EngineConfig | None = None,
    **options: Any,
) -> Iterator[Results]:
    """`evaluate` for each method, with one model where they can share it; yields each one's results as they come.

    options: as `evaluate` takes them.
    """
    base = config or EngineConfig()
    held: tuple[object, VideoLLM] | None = None
    for method in methods:
        own = method.config(base)
        key = (own.model, own.device, own.dtype, own.max_side_px)
        if held is None or held[0] != key:
            held = None  # let the old one go before the next comes
            held = (key, load_model(own.model, device=own.device, dtype=own.dtype, max_side_px=own.max_side_px))
        yield evaluate(suite, items, method, config=base, model=held[1], **options)


def settings_of_run(suite: Suite, method: EvalMethod, engine: Engine, poll_s: float) -> dict[str, Any]:
    """All that decides what is answered and how long it takes, as JSON; answers with the same may stand together."""
    spec = engine.model.spec
    own = described(engine.config, BatchSettings())
    del own["batch"]
    device = torch.cuda.get_device_name(spec.device) if spec.device.type == "cuda" else spec.device.type
    return {
        "suite": type(suite).__name__,
        "method": method.name,
        "show": _plain(method.show),
        "engine": own,
        "weights": engine.model.fingerprint,
        "device": device,
        "wording": wording_for(spec.name).name,
        "poll_s": poll_s,
    }


def spread_over(items: Sequence[Item], num_items: int) -> list[Item]:
    """So many of the items, at even distances, the first among them: the same whenever it is asked."""
    if num_items < 1:
        raise ValueError(f"num_items must be 1 or more; got {num_items}")
    chosen = min(num_items, len(items))
    return [items[number * len(items) // chosen] for number in range(chosen)]


def _ignore(event: Event) -> None:
    """Nobody listens."""


class _Run:
    """One method's way through one suite."""

    def __init__(
        self,
        suite: Suite,
        items: Sequence[Item],
        method: EvalMethod,
        engine: Engine,
        settings: Mapping[str, Any],
        ledger: NoLedger,
        videos: Path | None,
        poll_s: float,
        on_event: Callable[[Event], None],
    ) -> None:
        self._suite, self._items, self._method, self._engine = suite, items, method, engine
        self._settings, self._ledger, self._videos, self._poll_s = settings, ledger, videos, poll_s
        self._emit = on_event
        self._left_out: list[LeftOut] = []
        self._answered: dict[str, Answered] = {}
        self._by_id: Mapping[str, Item] = {}
        self._is_warm = False

    def run(self, by_id: Mapping[str, Item]) -> Results:
        self._by_id = by_id
        by_video: dict[str, list[Item]] = {}
        for item in self._items:
            kept = self._ledger.answered(item, name_of(item.video, self._videos))
            if kept is None:
                by_video.setdefault(item.video, []).append(item)
            else:
                self._answered[item.id] = kept
        num_kept = len(self._answered)
        self._emit(Began(self._method.name, len(self._items), num_kept))
        for video, asked in by_video.items():
            self._watch(video, name_of(video, self._videos), asked)
        scored = [self._scored(item) for item in self._items if item.id in self._answered]
        return Results(
            suite=self._suite,
            method=self._method,
            settings=self._settings,
            answered=tuple(self._answered[one.item.id] for one in scored),
            scored=tuple(scored),
            num_kept=num_kept,
            left_out=tuple(self._left_out),
        )

    def _watch(self, address: str, video: str, items: list[Item]) -> None:
        """One pass over a video; what cannot be asked about it is left out."""
        uri, reason = locate(address, self._videos)
        if uri is None:
            self._leave_out(LeftOut(video, reason, len(items), is_missing=True))
            return
        self._warm_up()
        waiting = {item.id for item in items}
        unshown: Counter[str] = Counter()
        shown_s = 0.0
        try:
            with open_source(uri) as source:
                for outcome in self._pass(video).run(source.sampled(RateSampler(self._engine.config.fps)), items):
                    if isinstance(outcome, Shown):
                        shown_s = outcome.pts_s
                        self._emit(Watched(self._method.name, video, shown_s, source.duration_s))
                    elif isinstance(outcome, Unshown):
                        unshown[outcome.reason] += 1
                        waiting.remove(outcome.item.id)
                    else:
                        self._ledger.add(outcome)
                        self._answered[outcome.id] = outcome
                        waiting.remove(outcome.id)
                        self._emit(Gave(self._method.name, outcome))
        except (VideoBroken, SourceError, SourceLost) as error:
            self._leave_out(LeftOut(video, f"cannot be read: {redact(str(error))}", len(waiting), is_missing=False))
        for reason, num_items in unshown.items():
            self._leave_out(LeftOut(video, reason, num_items, is_missing=False))
        last_s = max(item.at_s for item in items)
        if last_s - shown_s > _FAR_S and not waiting:
            _log.warning(
                "%s was seen until %.1f s, and asked about at %.1f s; is it the right one?", video, shown_s, last_s
            )

    def _pass(self, video: str) -> VideoPass:
        return VideoPass(
            self._suite,
            self._method,
            self._engine,
            wording_for(self._engine.model.spec.name),
            poll_s=self._poll_s,
            by_id=self._by_id,
            video=video,
        )

    def _leave_out(self, left_out: LeftOut) -> None:
        _log.info("%s %s; %d questions are not scored", left_out.video, left_out.reason, left_out.num_items)
        self._left_out.append(left_out)
        self._emit(left_out)

    def _scored(self, item: Item) -> Scored:
        """By the scoring of today: answers of an earlier run are not asked again for a better rule."""
        answered = self._answered[item.id]
        if answered.problem is not None:
            return Scored(item, Said(""), 0.0)
        return Scored(item, answered.said, float(self._suite.score(item, answered.said)))

    def _warm_up(self) -> None:
        """The first pass of anything costs what no other does; it is no method's cost per frame."""
        if self._is_warm:
            return
        self._is_warm = True
        viewing = self._method.show.start(self._engine, "warm-up")
        try:
            with suppress(ValueError):  # what the method cannot do, its answers will say
                for number in range(2 * self._engine.config.chunk_frames):
                    viewing.see(Frame(np.full((240, 320, 3), 16 * number % 256, np.uint8), float(number), "warm-up"))
                viewing.ask(Question("What is this?", max_new_tokens=2))
        finally:
            viewing.close()


def _plain(value: Any) -> Any:
    """A Show as JSON: its class, and the fields that make it differ from another of its class."""
    if is_dataclass(value) and not isinstance(value, type):
        own = {f.name: _plain(getattr(value, f.name)) for f in fields(value) if f.compare}
        return {"kind": type(value).__name__, **own}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return value if isinstance(value, str | int | float | bool | None) else repr(value)
