"""The frames of a recording that a question or a summary needs, found in one pass and fetched in a second."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

from ..encoders import VideoLLM
from ..encoders.selectors import (
    Candidate,
    FamilySimilarity,
    Selection,
    Selector,
    Similarity,
    compose_card,
)
from ..encoders.selectors.base import MAX_SIDE_PX
from ..encoders.sight import Need, missing_needs
from ..stream import Frame, RateSampler, Source, SourceError
from ..stream.video_file import FileSource

# Shapes: H rows and W columns of pixels, 3 colours, N candidates, D channels of a vector.

_BATCH_FRAMES = 8  # how many frames are compared with the question in one pass of the tower
_FETCH_BYTES = 256 * 2**20  # pictures fetched from a file in one go


@dataclass(frozen=True, slots=True, eq=False)
class Choice:
    """What was chosen of a recording. Made by `choose_frames`, read by `fetch_frames` and prompts.

    fps: at which rate the recording was looked at.
    num_seen: how many frames were looked at; candidates are these, or every few of them where there were too many.
    """

    fps: float
    num_seen: int
    candidates: tuple[Candidate, ...]
    selection: Selection

    @property
    def times_s(self) -> tuple[float, ...]:
        """When the chosen frames are."""
        return tuple(self.candidates[i].pts_s for i in self.selection.indices)

    @property
    def note(self) -> str:
        """What a prompt must say of picture cards, for a model to make sense of them; empty where there are none."""
        return " ".join(dict.fromkeys(card.words for card in self.selection.cards))

    def __repr__(self) -> str:
        return f"Choice({len(self.selection.indices)} of {self.num_seen} frames, {len(self.selection.cards)} cards)"


def choose_frames(
    source: Source,
    *,
    fps: float,
    selector: Selector,
    num_frames: int,
    question: str | None = None,
    model: VideoLLM | None = None,
    similarity: Similarity | None = None,
    max_candidates: int = 4096,
) -> Choice | None:
    """Looks through a recording once at `fps`, remembering a thumbnail of each frame, and chooses; None where it has no
    frame. What cannot be done is refused before anything is read.

    question: what text-conditioned selectors look for.
    model: whose own similarity of words and pictures is used where no `similarity` is given.
    max_candidates: above this, every second frame is forgotten, and so on, so that a recording may be of any length.
    """
    similarity = _similarity_for(selector, question, model, similarity)
    _check(source, fps, num_frames, max_candidates)
    seen = _Seen(similarity, max_candidates)
    for frame in source.sampled(RateSampler(fps)):
        seen.take(frame)
    candidates = seen.finish()
    if not candidates:
        return None
    similarity_N = None
    if similarity is not None and question is not None:
        vectors = [c.vector_D for c in candidates if c.vector_D is not None]
        similarity_N = similarity.compare(np.stack(vectors), question)
    return Choice(fps, seen.num_taken, candidates, selector.select(candidates, num_frames, similarity_N))


def fetch_frames(source: Source, choice: Choice) -> Iterator[Frame]:
    """The chosen frames at full size, in order of time, cards put together.

    Raises SourceError where the recording is not what it was when it was looked through.
    """
    selection = choice.selection
    wanted = [choice.candidates[i] for i in selection.indices]
    fetched = iter(_fetch(source, choice.fps, wanted))
    card_of = {i: card for card in selection.cards for i in card.indices}
    waiting: dict[int, Frame] = {}
    for i in selection.indices:
        frame = next(fetched, None)
        if frame is None:
            return  # closed
        card = card_of.get(i)
        if card is None:
            yield frame
            continue
        waiting[i] = frame
        if i == card.indices[-1]:
            yield compose_card([waiting.pop(k) for k in card.indices], card)


def _similarity_for(
    selector: Selector, question: str | None, model: VideoLLM | None, similarity: Similarity | None
) -> Similarity | None:
    """What compares the frames with the question; None where the selector does not look at it."""
    if Need.TEXT not in selector.needs:
        return None
    if question is None or not question.strip():
        missing_needs(type(selector).__name__, selector.needs, (), "a call without one")
    if similarity is None and model is None:
        raise ValueError(
            f"{type(selector).__name__} compares pictures with words; got neither a model nor a similarity; give one"
        )
    return similarity or FamilySimilarity(model)  # type: ignore[arg-type]


def _check(source: Source, fps: float, num_frames: int, max_candidates: int) -> None:
    if source.is_live:
        raise ValueError(
            f"frames are selected from recordings, which can be looked through twice; got the live {source.uri}; "
            "watch it instead, or record it first"
        )
    if not 0 < fps < math.inf:
        raise ValueError(f"fps must be finite and more than 0; got {fps}")
    if num_frames < 1:
        raise ValueError(f"num_frames must be at least 1; got {num_frames}")
    if max_candidates < max(2, num_frames):
        raise ValueError(
            f"max_candidates must be at least 2 and no less than num_frames; got {max_candidates} for {num_frames}"
        )


class _Seen:
    """What is remembered of the frames so far: at most `max_candidates` of them, at equal steps.

    Where there is one too many every second one is forgotten, and from then on every second frame is passed over:

        0 1 2 3 4 -> 0 2 4 | 6 8 -> 0 4 8 | 12 ...
    """

    def __init__(self, similarity: Similarity | None, max_candidates: int) -> None:
        self._similarity = similarity
        self._max_candidates = max_candidates
        self._candidates: list[Candidate] = []
        self._waiting: list[Frame] = []  # have a candidate already, the last ones, and no vector yet
        self._step = 1
        self.num_taken = 0

    def take(self, frame: Frame) -> None:
        place = self.num_taken
        self.num_taken += 1
        if place % self._step:
            return
        self._candidates.append(Candidate(frame.index, frame.pts_s, thumbnail(frame.rgb_HW3)))
        if self._similarity is not None:
            self._waiting.append(frame)
            if len(self._waiting) >= _BATCH_FRAMES:
                self._compare()
        if len(self._candidates) > self._max_candidates:
            self._compare()
            self._candidates = self._candidates[::2]
            self._step *= 2

    def finish(self) -> tuple[Candidate, ...]:
        self._compare()
        return tuple(self._candidates)

    def _compare(self) -> None:
        if self._similarity is None or not self._waiting:
            return
        num = len(self._waiting)
        vectors_ND = self._similarity.look(self._waiting)
        self._candidates[-num:] = [
            replace(candidate, vector_D=vector_D.copy())  # a view would keep all of the batch alive
            for candidate, vector_D in zip(self._candidates[-num:], vectors_ND, strict=True)
        ]
        self._waiting.clear()


def thumbnail(rgb_HW3: np.ndarray) -> np.ndarray:
    """The picture as whole cells' mean colours, at most MAX_SIDE_PX on its longer side; its own memory."""
    side = math.ceil(max(rgb_HW3.shape[:2]) / MAX_SIDE_PX)
    return np.array(Image.fromarray(rgb_HW3).reduce(side))


def _fetch(source: Source, fps: float, wanted: Sequence[Candidate]) -> Iterator[Frame]:
    """The frames themselves, in order: by seeking where the source can, else by reading all again."""
    num_fetched = 0
    if isinstance(source, FileSource):
        for frame in _seek(source, wanted):
            num_fetched += 1
            yield frame
    left = list(reversed(wanted[num_fetched:]))
    if not left or source.is_closed:
        return
    for frame in source.sampled(RateSampler(fps)):
        if frame.index < left[-1].index:
            continue
        if (frame.index, frame.pts_s) != (left[-1].index, left[-1].pts_s):
            break
        yield frame
        left.pop()
        if not left:
            return
    if not source.is_closed:
        raise SourceError(f"{source.uri} changed while it was read: no frame at {left[-1].pts_s:.3f} s any more")


def _seek(source: FileSource, wanted: Sequence[Candidate]) -> Iterator[Frame]:
    """The frames at their exact times, as far as seeking finds the very frames that reading in order did."""
    frame_bytes = max(1, source.facts.width * source.facts.height * 3)
    step = max(1, _FETCH_BYTES // frame_bytes)
    for start in range(0, len(wanted), step):
        if source.is_closed:
            return
        part = wanted[start : start + step]
        frames = source.read_at([candidate.pts_s for candidate in part], reader="av")
        for frame, candidate in zip(frames, part, strict=True):
            # Several frames may have one time, or be counted otherwise where some were damaged.
            if (frame.index, frame.pts_s) != (candidate.index, candidate.pts_s):
                return
            yield frame
