"""Recalling: what of history a question is given, from all tiers, and how that becomes something to attend to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

from ..encoders import FrameTokens, Row, Text, VideoLLM
from ..encoders.context import Context
from ..encoders.tokens_at_rest import wake_tokens
from ..memory import BlockId, KVBlock, Recall
from ..memory.depots import DepotError
from ..memory.event_log import Line
from ..memory.fusion import fuse, pick
from ..memory.index import Scored
from ..memory.picture_index import Found as Picture
from ..memory.recall_gate import WordsGate
from ..stream import Frame, Span, time_words
from .history import History
from .prompts import Prompts

# Shapes: D channels of a picture's vector, L layers, K key/value heads.

# Candidates of each tier, for each unit that may be chosen.
_CANDIDATES = 4
# A block so many seconds before a moment still shows it.
_NEAR_S = 4.0
# A keyframe so many seconds before a moment stands for it where none came since: an event is about as long at most.
_STANDS_S = 64.0


# Asks for what is older than keys and values may reach.
_PAST = WordsGate()


class Unit(NamedTuple):
    """One thing to be recalled: a block of T1, a keyframe of T2 or a line of T3."""

    tier: Literal["kv", "picture", "line"]
    number: int


class Recalling:
    """Chooses units for a question, and makes blocks of them. One for each session.

        T1 index: mean keys  --\\
        T2 index: pictures   ---+-> reciprocal-rank fusion, diversity -> at most N units -> blocks in order of time
        T3 full text: lines  --/

    Keyframes are candidates where no block of T1 shows their time any more. A line stands for what was shown when it
    was written, and, where the model can read notes, for itself.
    """

    def __init__(self, model: VideoLLM, history: History, prompts: Prompts) -> None:
        self._model = model
        self._history = history
        self._memory = history.memory
        self._prompts = prompts

    def opens(self, question: str, text: Text, context: Context) -> bool:
        """Whether the question needs more than the recent window; may read it once, and takes that back."""
        gate = self._history.gate
        if gate.opens(question, None):
            return True
        if not gate.needs_margin_for(question):
            return False
        mark = context.mark()
        best = self._model.step([Row(context, (text,))])[0].softmax(dim=-1).topk(2).values
        context.rewind(mark)
        return gate.opens(question, float(best[0] - best[1]))

    def recall(self, question: str, asked: Text, context: Context, span: Span | None) -> Recall:
        """What the question needs of what is older than the recent window, in order of time."""
        memory, num_units = self._memory, self._memory.config.recall_blocks
        if num_units == 0 or not (memory.older or self._history.has_units):
            return Recall()
        query_LKD = self._model.probe(Row(context, (asked,))) if memory.needs_query and memory.older else None
        if memory.is_by_layer:
            return memory.recall(query_LKD, span=span)
        ranked = memory.rank(query_LKD, _CANDIDATES * num_units, span=span) if memory.older else []
        rankings = [[Unit("kv", scored.id) for scored in ranked]]
        spans = {Unit("kv", scored.id): memory.older[scored.id] for scored in ranked}
        num_reads = self._history.config.num_reads if span is not None or _PAST.opens(question, None) else 0
        lines = self._history.log.search(question, num_units, span)
        # Keyframes are looked for only where they may be read.
        pictures = self._pictures(question, num_units, span) if num_reads else {}
        for found in (pictures, self._said(lines, span)):
            rankings.append(list(found))
            spans |= found
        scores = fuse([ranking for ranking in rankings if ranking])
        to_read = sorted((unit for unit in scores if unit.tier != "kv"), key=lambda unit: -scores[unit])
        for unit in to_read[num_reads:]:
            del scores[unit]
        # Who asks for the newest blocks wants them side by side.
        diversity = self._history.config.diversity if memory.needs_query else 0.0
        chosen = pick(scores, spans, num_units, diversity)
        kv = memory.fetch((Scored(unit.number, scores[unit]) for unit in chosen if unit.tier == "kv"), query_LKD)
        read = self._read([unit for unit in chosen if unit.tier != "kv"], spans, lines)
        blocks = sorted((*kv.blocks, *read), key=lambda block: (block.span, block.id))
        num_missed = kv.num_missed + sum(unit.tier != "kv" for unit in chosen) - len(read)
        return Recall(tuple(blocks), (0.0,) * len(blocks), num_missed)

    def _pictures(self, question: str, num_units: int, span: Span | None) -> dict[Unit, Span]:
        """Keyframes that look like the question's words, best first, as units; where none can be compared, some of
        the span."""
        archive = self._history.archive
        if not archive.num_keyframes:
            return {}
        try:
            query_D = self._model.embed_words(question).float().mean(dim=0)
            keyframes = archive.find(query_D, _CANDIDATES * num_units, span)
        except ValueError:  # a model that does not embed words alone
            keyframes = []
        if span is not None and not keyframes:
            keyframes = archive.between(span)
            keyframes = keyframes[:: -(-len(keyframes) // (_CANDIDATES * num_units)) or 1]
        found: dict[Unit, Span] = {}
        for keyframe in keyframes:
            # What keys and values still show is found by these, which know it better.
            if not self._is_in_sight(keyframe.span) and self._shown_by(keyframe.span) is None:
                found[Unit("picture", keyframe.number)] = keyframe.span
        return found

    def _said(self, lines: Sequence[Line], span: Span | None) -> dict[Unit, Span]:
        """Lines that have the question's words, best first, as units: of the span, where it is about one."""
        found: dict[Unit, Span] = {}
        for line in lines:
            if self._is_in_sight(line.span):
                continue
            if self._prompts.note is not None:
                found[Unit("line", line.number)] = line.span
            shown = Span(line.span.end_s, line.span.end_s)
            if self._is_in_sight(shown):
                continue
            block_id = self._shown_by(shown)
            if block_id is not None:
                own = self._memory.older[block_id]
                if span is None or own.overlaps(span):
                    found[Unit("kv", block_id)] = own
                continue
            keyframe = self._keyframe_at(line.span.end_s)
            if keyframe is not None and (span is None or keyframe.span.overlaps(span)):
                found[Unit("picture", keyframe.number)] = shown
        return found

    def _keyframe_at(self, time_s: float) -> Picture | None:
        """What was shown then, as far as pictures know."""
        archive = self._history.archive
        before = archive.between(Span(time_s - _STANDS_S, time_s))
        return before[-1] if before else archive.nearest(time_s)

    def _is_in_sight(self, shown: Span) -> bool:
        """Whether the recent window shows some of it."""
        return any(block.span.overlaps(shown) for block in self._memory.recent)

    def _shown_by(self, shown: Span) -> BlockId | None:
        """The newest block of T1 that had begun by then, where it is near enough to show the same."""
        block_id = self._memory.older_at(shown.end_s)
        if block_id is None or shown.start_s - self._memory.older[block_id].end_s > _NEAR_S:
            return None
        return block_id

    def _read(self, units: Sequence[Unit], spans: dict[Unit, Span], lines: Sequence[Line]) -> list[KVBlock]:
        """Keyframes and lines, read in order of time after the sinks, in a context of their own."""
        parts: list[Text | FrameTokens] = []
        by_number = {line.number: line for line in lines}
        for unit in sorted(units, key=lambda unit: (spans[unit], unit)):
            part = self._picture(unit.number) if unit.tier == "picture" else self._line(by_number[unit.number])
            if part is not None:
                parts.append(part)
        if not parts:
            return []
        context = self._model.new_context()
        self._model.fill(context, self._memory.sinks)
        (blocks,) = self._model.read([Row(context, tuple(parts))])
        return blocks

    def _picture(self, number: int) -> FrameTokens | None:
        try:
            keyframe = self._history.archive.get(number)
        except DepotError:  # only read here, from a server that is away
            return None
        if keyframe is None:
            return None
        if keyframe.extra and keyframe.vector_D is not None:  # else tokens of another model
            try:
                return wake_tokens(keyframe.extra, keyframe.span, self._model.spec.dtype)
            except ValueError:
                pass  # damaged; the picture is there too
        frame = Frame(keyframe.picture_HW3, keyframe.span.start_s)
        (tokens,) = self._model.see([frame] * self._model.spec.frames_per_block)
        return tokens

    def _line(self, line: Line) -> Text | None:
        if self._prompts.note is None:
            return None
        since, until = time_words(line.span.start_s), time_words(line.span.end_s)
        ids = self._model.encode(self._prompts.note.format(note=f"{since} to {until} seconds: {line.text}"))
        return Text(tuple(ids), line.span) if ids else None
