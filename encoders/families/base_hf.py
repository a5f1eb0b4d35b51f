"""What Hugging Face families share: the prompt's two halves, positions, and packed reads over contexts."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any, ClassVar, Literal, NamedTuple, Self

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from ...memory import KVBlock, KVSpec
from ...stream import Span
from ..attention import PackedCall, Rotation, Share, attend_with_millpond, refuse_unsupported
from ..context import Context
from ..fingerprint import fingerprint
from ..model import ModelSpec, Row, Text, VideoLLM
from ..tokens import FrameTokens
from .checkpoint import load_checkpoint

# Shapes: R rows, T tokens of a packed call, D channels, V vocabulary, L layers, K key/value heads,
# E DeepStack taps, P probing tokens.


class FrameText(NamedTuple):
    """Token ids before and after the visual tokens of one block: its time in text, start and end marks."""

    before_ids: tuple[int, ...]
    after_ids: tuple[int, ...]


class _Part(NamedTuple):
    """One part of one row, laid out: its words, its visual tokens, its positions and what it advances by."""

    before_ids: tuple[int, ...]
    frame: FrameTokens | None
    after_ids: tuple[int, ...]
    pos_3T: Tensor
    advance: int
    span: Span

    @property
    def num_tokens(self) -> int:
        return int(self.pos_3T.shape[1])


class HFVideoLLM(VideoLLM):
    """A VideoLLM whose halves are transformers modules, used as they are.

    A family sets the class attributes, and writes `see` and, where it differs, the other hooks:

    model_types: `model_type` values of the checkpoints that it reads.
    video_placeholder: what the chat template writes for one video, start and end marks included.
    rope_axes: 1, or 3 where the rotary module takes (time, height, width).
    frames_per_block: how many frames the tower joins in time.
    """

    family: ClassVar[str]
    model_types: ClassVar[tuple[str, ...]]
    video_placeholder: ClassVar[str]
    rope_axes: ClassVar[int] = 1
    frames_per_block: ClassVar[int] = 1

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: Any,
        chat_template: str,
        *,
        name: str,
        settings: Mapping[str, Mapping[str, Any]],
        max_side_px: int | None = None,
    ) -> None:
        """Takes a loaded checkpoint apart.

        settings: the numbers of the checkpoint's processors, under "video", "image" and "processor".
        max_side_px: upper bound on a frame's longer side; None keeps the checkpoint's own rule.
        """
        self.model = model.eval()
        self.tokenizer = tokenizer
        self.chat_template = chat_template
        self.settings = settings
        self.max_side_px = max_side_px
        config = self.text_model.config
        refuse_unsupported(config)
        attend_with_millpond(self.text_model)
        head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        embedding = self.text_model.get_input_embeddings().weight
        self.spec = ModelSpec(
            name=name,
            family=self.family,
            kv=KVSpec(config.num_hidden_layers, config.num_key_value_heads, head_dim, embedding.dtype),
            device=embedding.device,
            dtype=embedding.dtype,
            frames_per_block=self.frames_per_block,
            vocab_size=int(self.lm_head.weight.shape[0]),
            max_positions=int(config.max_position_embeddings),
            num_parameters=sum(p.numel() for p in model.parameters()),
        )
        self._prefix = Text(tuple(self._ids(self._prompt_halves("?")[0], special=True)))
        self._stop_ids = self._find_stop_ids()

    @classmethod
    def load(
        cls,
        path_or_id: str,
        *,
        device: str | torch.device = "cpu",
        dtype: torch.dtype | None = None,
        max_side_px: int | None = None,
    ) -> Self:
        """Loads a checkpoint from a folder or a hub id: safetensors only, no code of the checkpoint's is run.

        dtype: None keeps the checkpoint's own.
        """
        checkpoint = load_checkpoint(path_or_id, cls.model_types, dtype)
        return cls(
            checkpoint.model.to(device),
            checkpoint.tokenizer,
            checkpoint.chat_template,
            name=str(path_or_id),
            settings=checkpoint.settings,
            max_side_px=max_side_px,
        )

    # Hooks: what a family supplies, or replaces where it differs.

    @abstractmethod
    def frame_text(self, span: Span) -> FrameText:
        """Token ids before and after the visual tokens of the block that shows `span`."""

    @property
    def text_model(self) -> PreTrainedModel:
        """The text decoder: `inputs_embeds`, `position_ids` and keyword arguments in, hidden states out."""
        return self.model.get_decoder()

    @cached_property
    def fingerprint(self) -> str:
        return fingerprint(self.model)

    @property
    def lm_head(self) -> nn.Module:
        return self.model.get_output_embeddings()

    @property
    def rotary(self) -> nn.Module:
        """The model's own rotary module, called with position ids (1, T) or (3, 1, T)."""
        return self.text_model.rotary_emb

    def messages(self, question: str) -> list[dict[str, Any]]:
        """The conversation that the chat template renders: one video, then the question."""
        return [{"role": "user", "content": [{"type": "video"}, {"type": "text", "text": question}]}]

    def split_prompt(self, rendered: str) -> tuple[str, str]:
        """Splits a rendered prompt at its video: what stands before the first frame and after the last."""
        before, found, after = rendered.partition(self.video_placeholder)
        if not found:
            raise ValueError(
                f"the chat template of {self.family} writes no {self.video_placeholder!r} for a video; got "
                f"{rendered[:200]!r}; take a checkpoint with the chat template of its processor"
            )
        return before, after

    # Words.

    def encode(self, text: str) -> tuple[int, ...]:
        """Token ids of a piece of text that stands inside a prompt: nothing is added around it."""
        return tuple(self._ids(text, special=False))

    def prefix(self) -> Text:
        return self._prefix

    def question(self, question: str) -> Text:
        return Text(tuple(self._ids(self._prompt_halves(question)[1], special=False)))

    def decode(self, ids: Sequence[int]) -> str:
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=True))

    @torch.inference_mode()
    def embed_words(self, text: str) -> Tensor:
        ids = self.encode(text)
        if not ids:
            raise ValueError(f"words to embed must have at least one token; got {text[:80]!r}")
        return self.text_model.get_input_embeddings()(torch.tensor(ids, dtype=torch.int64, device=self.spec.device))

    @property
    def stop_ids(self) -> frozenset[int]:
        return self._stop_ids

    def _prompt_halves(self, question: str) -> tuple[str, str]:
        rendered = self.tokenizer.apply_chat_template(
            self.messages(question),
            chat_template=self.chat_template,
            tokenize=False,
            add_generation_prompt=True,
        )
        return self.split_prompt(rendered)

    def _ids(self, text: str, *, special: bool) -> list[int]:
        # As transformers' processors do: a template that writes its own start token gets no second one.
        bos = self.tokenizer.bos_token
        special = special and not (bos is not None and text.startswith(bos))
        return list(self.tokenizer(text, add_special_tokens=special)["input_ids"])

    def _find_stop_ids(self) -> frozenset[int]:
        generation = getattr(self.model, "generation_config", None)
        for owner in (generation, self.model.config, self.text_model.config, self.tokenizer):
            stop = getattr(owner, "eos_token_id", None)
            if stop is not None:
                return frozenset(int(i) for i in ([stop] if isinstance(stop, int) else stop))
        return frozenset()

    # Contexts.

    def new_context(self) -> Context:
        return Context(self.spec.kv, self.spec.device, owner=self)

    @torch.inference_mode()
    def fill(self, context: Context, blocks: Sequence[KVBlock]) -> None:
        self._check_owner(context)
        for block in blocks:
            if block.spec != self.spec.kv:
                raise ValueError(f"{block} is of {block.spec}; this model's contexts hold {self.spec.kv}")
        if not blocks:
            context.clear()
            return
        positions, position = [], 0
        for block in blocks:
            positions.append(block.pos_3T.cpu() + position)
            position += block.advance
        rotation = self._rotation(torch.cat(positions, dim=1))
        context.fill(blocks, rotation.cos_TD, rotation.sin_TD, next_position=position)

    # Reading.

    @torch.inference_mode()
    def read(self, rows: Sequence[Row], *, num_probes: int = 0) -> list[list[KVBlock]]:
        if num_probes < 0:
            raise ValueError(f"num_probes must not be negative; got {num_probes}")
        laid = [self._lay_out(row) for row in rows]
        call = self._run(rows, laid, keep="keys", num_probes=num_probes).call
        kept, num_parts, offset = call.kept(), sum(len(parts) for parts in laid), 0
        blocks: list[list[KVBlock]] = []
        for parts in laid:
            blocks.append([])
            for part in parts:
                cut = slice(offset, offset + part.num_tokens)
                offset += part.num_tokens
                k, v = kept.k_LKTD[:, :, cut], kept.v_LKTD[:, :, cut]
                if num_parts > 1:
                    # A block owns its memory: a view would keep all of the call alive, uncounted.
                    k, v = k.clone(), v.clone()
                kind: Literal["frame", "text"] = "text" if part.frame is None else "frame"
                block = KVBlock(k, v, part.pos_3T, part.advance, part.span, kind)
                if part.frame is not None:
                    before, after = len(part.before_ids), len(part.after_ids)
                    queries = call.probed(_probes(part.num_tokens, num_probes, cut.start))
                    block = replace(block, num_before=before, num_after=after, q_LKPD=queries)
                blocks[-1].append(block)
        return blocks

    @torch.inference_mode()
    def step(self, rows: Sequence[Row]) -> Tensor:
        laid = [self._lay_out(row) for row in rows]
        hidden_TD = self._run(rows, laid, keep="nothing").hidden_TD
        if len(rows) == 1:
            return self.lm_head(hidden_TD[-1:]).float()
        lengths = torch.tensor([sum(part.num_tokens for part in parts) for parts in laid])
        return self.lm_head(hidden_TD[(lengths.cumsum(0) - 1).to(hidden_TD.device)]).float()

    @torch.inference_mode()
    def probe(self, row: Row) -> Tensor:
        return self._run([row], [self._lay_out(row)], keep="queries").call.mean_query()

    def _check_owner(self, context: Context) -> None:
        if context.owner is not self:
            raise ValueError(f"{context} was made by another model; take one from this model's new_context()")

    def _lay_out(self, row: Row) -> list[_Part]:
        self._check_owner(row.context)
        parts: list[_Part] = []
        for part in row.parts:
            if isinstance(part, Text):
                num_tokens = len(part.ids)
                parts.append(_Part(part.ids, None, (), _count(0, num_tokens), num_tokens, part.span))
                continue
            self._check_frame(part)
            before_ids, after_ids = self.frame_text(part.span)
            seen = len(before_ids) + part.advance
            advance = seen + len(after_ids)
            pos_3T = torch.cat(
                [_count(0, len(before_ids)), part.pos_3T.cpu() + len(before_ids), _count(seen, advance)],
                dim=1,
            )
            parts.append(_Part(before_ids, part, after_ids, pos_3T, advance, part.span))
        return parts

    def _check_frame(self, frame: FrameTokens) -> None:
        width = self.text_model.config.hidden_size
        if frame.x_TD.shape[1] != width:
            raise ValueError(f"{frame} has {frame.x_TD.shape[1]} channels; this model reads {width}")

    def _run(
        self,
        rows: Sequence[Row],
        laid: Sequence[Sequence[_Part]],
        *,
        keep: Literal["nothing", "keys", "queries"],
        num_probes: int = 0,
    ) -> _Ran:
        """One forward pass over all rows; contexts count their new tokens after it, but not for queries."""
        if not rows:
            raise ValueError("a call needs at least one row to read; got none")
        shares, positions, start = [], [], 0
        for row, parts in zip(rows, laid, strict=True):
            position = row.context.next_position
            for part in parts:
                positions.append(part.pos_3T + position)
                position += part.advance
            stop = start + sum(part.num_tokens for part in parts)
            shares.append(Share(row.context, start, stop))
            start = stop
        x_TD, extra = self._embed([part for parts in laid for part in parts])
        pos_3T = torch.cat(positions, dim=1)
        # The model rotates by itself where nothing has to be kept un-rotated.
        rotation = None if keep == "nothing" else self._rotation(pos_3T)
        probes, first = [], 0
        for part in (part for parts in laid for part in parts):
            probes += _probes(part.num_tokens, num_probes, first) if part.frame is not None else []
            first += part.num_tokens
        call = PackedCall(shares, self.spec.kv, rotation, keep, tuple(probes))
        hidden_TD = self.text_model(
            inputs_embeds=x_TD[None],
            position_ids=self._position_ids(pos_3T if rotation is None else torch.zeros_like(pos_3T)),
            use_cache=False,
            millpond=call,
            **extra,
        ).last_hidden_state[0]
        if keep != "queries":
            for share, parts in zip(shares, laid, strict=True):
                share.context.commit(share.stop - share.start, sum(part.advance for part in parts))
        return _Ran(call, hidden_TD)

    def _embed(self, parts: Sequence[_Part]) -> tuple[Tensor, dict[str, Any]]:
        """Embeds words and visual tokens in the order of the packed row, and what DeepStack wants besides."""
        device, dtype = self.spec.device, self.spec.dtype
        ids = [i for part in parts for i in (*part.before_ids, *part.after_ids)]
        embed = self.text_model.get_input_embeddings()
        words_TD = embed(torch.tensor(ids, dtype=torch.int64, device=device))
        if all(part.frame is None for part in parts):
            return words_TD, {}
        pieces: list[Tensor] = []
        is_visual: list[Tensor] = []
        deep: list[Tensor | None] = []
        taken = 0
        for part in parts:
            for num_words, frame in ((len(part.before_ids), part.frame), (len(part.after_ids), None)):
                pieces.append(words_TD[taken : taken + num_words])
                is_visual.append(torch.zeros(num_words, dtype=torch.bool))
                taken += num_words
                if frame is not None:
                    pieces.append(frame.x_TD.to(device, dtype))
                    is_visual.append(torch.ones(frame.num_tokens, dtype=torch.bool))
                    deep.append(frame.deep_ETD)
        with_deep = [features for features in deep if features is not None]
        if not with_deep:
            return torch.cat(pieces), {}
        if len(with_deep) < len(deep):
            raise ValueError("some frames of the call have DeepStack features and some have not; all or none must")
        deep_ETD = torch.cat(with_deep, dim=1).to(device, dtype)
        mask_1T = torch.cat(is_visual)[None].to(device)
        return torch.cat(pieces), {"visual_pos_masks": mask_1T, "deepstack_visual_embeds": list(deep_ETD)}

    def _position_ids(self, pos_3T: Tensor) -> Tensor:
        pos = pos_3T[:, None] if self.rope_axes == 3 else pos_3T[:1]
        return pos.to(self.spec.device)

    def _rotation(self, pos_3T: Tensor) -> Rotation:
        like = torch.empty(0, dtype=self.spec.dtype, device=self.spec.device)
        cos_1TD, sin_1TD = self.rotary(like, self._position_ids(pos_3T))
        return Rotation(cos_1TD[0], sin_1TD[0], float(getattr(self.rotary, "attention_scaling", 1.0)))


class _Ran(NamedTuple):
    call: PackedCall
    hidden_TD: Tensor


def _probes(num_tokens: int, num_probes: int, first: int) -> list[int]:
    """Tokens of a block that begins at `first`, evenly spaced up to its last."""
    num_probes = min(num_probes, num_tokens)
    return [first + num_tokens * (i + 1) // num_probes - 1 for i in range(num_probes)]


def _count(start: int, stop: int) -> Tensor:
    """Positions of words: one after another, alike on all three axes."""
    return torch.arange(start, stop).expand(3, -1).contiguous()
