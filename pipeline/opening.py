"""From a SOURCE of the command line to a session and the frames that it is to see."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from ..encoders import VideoLLM
from ..encoders.selectors import Selector
from ..encoders.sight import Need
from ..stream import Frame, RateSampler, Source, SourceLost, open_source
from ..stream.source import source_kind
from .config import EngineConfig
from .output import Printer, complain
from .session import Session


class Opened(NamedTuple):
    session: Session
    frames: Iterator[Frame]
    printer: Printer


@contextmanager
def opened(
    uri: str,
    settings: EngineConfig,
    as_json: bool,
    for_s: float | None,
    label: str,
    question: str | None = None,
    memory: str | None = None,
    *,
    follows: bool = False,
) -> Iterator[Opened]:
    """Opens the source first, because that fails fastest, then the model.

    question: what the source is watched for, where that is known.
    memory: where what is seen outlives the program: a directory, or a redis:// address.
    follows: whether a live source that is lost is waited for; else it has ended.
    """
    if for_s is not None and not for_s > 0:
        raise ValueError(f"--for takes a number of seconds above 0; got {for_s}")
    options: dict[str, Any] = {}
    if settings.motion_vectors and source_kind(uri) == "file":  # other sources have no codec to ask
        options["motion_vectors"] = True
    if not follows and source_kind(uri) == "live":
        options["reconnects"] = 0
    with open_source(uri, **options) as source:
        from transformers.utils import logging as transformers_logging

        from .engine import Engine

        transformers_logging.disable_progress_bar()
        transformers_logging.set_verbosity_error()
        with Engine(settings) as engine:
            duration_s = for_s or source.duration_s
            with Printer(as_json=as_json, duration_s=duration_s, label=label) as printer:
                session = engine.session(source.stream_id, question=question, at=memory)
                selector = settings.made_selector()
                if selector is None:
                    due = source.sampled(RateSampler(settings.fps))
                else:
                    due = _selected(source, settings, selector, question, session, engine.model)
                yield Opened(session, _frames(due, for_s), printer)


@contextmanager
def reopened(memory: str, stream_id: str, settings: EngineConfig) -> Iterator[Session]:
    """A session that answers from what is kept there, also while another process goes on writing."""
    from transformers.utils import logging as transformers_logging

    from .engine import Engine

    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    with Engine(settings) as engine:
        yield engine.session(stream_id, at=memory, read_only=True)


def _selected(
    source: Source, settings: EngineConfig, selector: Selector, question: str | None, session: Session, model: VideoLLM
) -> Iterator[Frame]:
    """The frames that the selector chooses; where some come on picture cards, the session's questions say so."""
    from .selecting import choose_frames, fetch_frames

    similarity = None
    if settings.similarity is not None and Need.TEXT in selector.needs:
        from ..encoders.selectors.siglip import SiglipSimilarity

        similarity = SiglipSimilarity.load(settings.similarity, device=model.spec.device)
    choice = choose_frames(
        source,
        fps=settings.fps,
        selector=selector,
        num_frames=settings.select_frames,
        question=question,
        model=model,
        similarity=similarity,
    )
    if choice is not None:
        session.note = choice.note
        yield from fetch_frames(source, choice)


def _frames(due: Iterator[Frame], for_s: float | None) -> Iterator[Frame]:
    """Those up to `for_s` seconds. A live source that is interrupted or lost has ended; what was seen is kept."""
    first_s: float | None = None
    try:
        for frame in due:
            first_s = frame.pts_s if first_s is None else first_s
            if for_s is not None and frame.pts_s - first_s > for_s:
                return
            yield frame
    except KeyboardInterrupt:
        complain("interrupted; the stream ends here")
    except SourceLost as error:
        if first_s is None:
            raise
        complain(error)


def up_to(frames: Iterator[Frame], last_s: float) -> Iterator[Frame]:
    """The frames up to that moment; the first in any case, since without one there is nothing to ask about."""
    for number, frame in enumerate(frames):
        if number and frame.pts_s > last_s:
            return
        yield frame
