"""Trains the built-in model from a seed, in stages, on two CPU cores; an interrupted run goes on where it was.

    python demos/train_mini.py --out runs/mini                 # all stages
    python demos/train_mini.py --out runs/mini --export encoders/mini

Stages: look (what covers each patch, and the words for it), one frame, a few frames, many frames, cool-down, polish.
On a CPU, glibc gives large buffers back after each use, and getting them again costs half the time; set
MALLOC_MMAP_THRESHOLD_=4294967296 MALLOC_TRIM_THRESHOLD_=8589934592 to have it keep them.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import torch.nn.functional as F
import typer
from mini_data import IGNORE, PLACES, Clips, Mix, place_labels
from mini_model import make_model, make_tokenizer, save
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.utils.data import DataLoader

from millpond.stream.truth import WORDINGS
from millpond.stream.world import COLORS, SHAPES

# Shapes: N pictures, P patches, C pooled cells, D channels, B clips, S tokens of a packed sequence.

TOWER_DIM, TEXT_DIM = 128, 192
REPORT_FRAMES = (1, 4, 8, 16)


@dataclass(frozen=True)
class Stage:
    """Some steps of one kind. The learning rate rises over warmup_steps and, if cool, falls linearly to nothing.

    tower_every: the tower learns from every n-th frame; its backward pass is the dearest part of a step.
    """

    name: str
    steps: int
    mix: Mix
    peak_lr: float
    answers: float
    looking: float
    tower_every: int = 1
    cool: bool = False
    warmup_steps: int = 50


STAGES = (
    Stage("look", 300, Mix(1, 1, 96, 1), 2e-3, 0.0, 1.0),
    Stage("one-frame", 400, Mix(1, 1, 48, 8), 1.5e-3, 1.0, 0.5, tower_every=2),
    Stage("few-frames", 400, Mix(1, 6, 12, 12), 1.5e-3, 1.0, 0.3, tower_every=2),
    Stage("many-frames", 1000, Mix(1, 16, 8, 16), 1.2e-3, 1.0, 0.2, tower_every=4),
    Stage("cool-down", 800, Mix(1, 20, 8, 16), 1.2e-3, 1.0, 0.1, tower_every=4, cool=True, warmup_steps=1),
    Stage("polish", 300, Mix(1, 20, 8, 16), 8e-4, 1.0, 0.05, tower_every=4, cool=True, warmup_steps=10),
)


class Looking(nn.Module):
    """Heads that only training has: what covers a patch, and which words a pooled token should be near to.

    Aligning each pooled visual token with the embeddings of its colour's and its shape's word (two softmaxes against
    the tied embedding matrix, with one learned row for "nothing here") is what makes the language half learn at once;
    a third softmax does the same for the place of a token that shows an object.
    """

    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Linear(TOWER_DIM, 1 + len(COLORS) + 1 + len(SHAPES))
        self.nothing = nn.Parameter(torch.randn(2, TEXT_DIM) * 0.02)
        self.log_scale = nn.Parameter(torch.tensor(2.0))

    def forward(
        self, patches_NPD: Tensor, cells_NCD: Tensor, words_WD: Tensor, fine_NP: Tensor, coarse_NC: Tensor
    ) -> Tensor:
        """words_WD: embedding rows of the colours, then of the shapes, then of the places."""
        logits = self.patch(patches_NPD).flatten(0, 1)
        color, shape = split_label(fine_NP)
        weight = torch.ones(1 + len(COLORS), device=logits.device)
        weight[0] = 0.3
        loss = F.cross_entropy(logits[:, : 1 + len(COLORS)], color, weight)
        weight = weight[: 1 + len(SHAPES)]
        loss = loss + F.cross_entropy(logits[:, 1 + len(COLORS) :], shape, weight)
        cells = F.normalize(cells_NCD.float(), dim=-1).flatten(0, 1)
        rows = words_WD.split([len(COLORS), len(SHAPES), len(PLACES)])
        for number, (table, label) in enumerate(zip(rows[:2], split_label(coarse_NC), strict=True)):
            table = F.normalize(torch.cat([self.nothing[number : number + 1], table]), dim=-1)
            weight = torch.ones(len(table), device=logits.device)
            weight[0] = 0.3
            loss = loss + F.cross_entropy(cells @ table.T * self.log_scale.exp(), label, weight)
        places = torch.where(coarse_NC > 0, torch.tensor(place_labels()), IGNORE).flatten()
        logits = cells @ F.normalize(rows[2], dim=-1).T * self.log_scale.exp()
        return loss + F.cross_entropy(logits, places, ignore_index=IGNORE)


def split_label(label: Tensor) -> tuple[Tensor, Tensor]:
    """1 + colour * 4 + shape, or 0, to a class of colour and a class of shape, 0 meaning nothing."""
    flat = label.flatten()
    inside = flat > 0
    color = torch.where(inside, (flat - 1) // len(SHAPES) + 1, 0)
    shape = torch.where(inside, (flat - 1) % len(SHAPES) + 1, 0)
    return color, shape


def see(model, pictures_BFHW3: Tensor, tower_every: int = 1) -> tuple[Tensor, Tensor]:
    """Tower states (N, patches, D) and visual tokens (N, 37, D), each frame as a video of its own."""
    pixels = pictures_BFHW3.flatten(0, 1).permute(0, 3, 1, 2).float().div_(127.5).sub_(1)
    if tower_every == 1 or not torch.is_grad_enabled():
        states = tower_states(model, pixels)
    else:
        learns = torch.arange(len(pixels)) % tower_every == int(torch.randint(tower_every, ()))
        with torch.no_grad():
            others = tower_states(model, pixels[~learns])
        some = tower_states(model, pixels[learns])
        states = some.new_empty((len(pixels), *some.shape[1:]))
        states = states.index_put((learns,), some).index_put((~learns,), others)
    tokens = model.model.apply_pooling(model.model.multi_modal_projector(states))
    newline = model.model.image_newline[None, None].expand(len(tokens), 1, -1)
    return states, torch.cat([tokens, newline.to(tokens.dtype)], 1)


def tower_states(model, pixels_N3HW: Tensor) -> Tensor:
    return model.model.vision_tower(pixels_N3HW, output_hidden_states=True).hidden_states[-1]


def answer_logits(model, batch: dict[str, Tensor], visual: Tensor) -> tuple[Tensor, Tensor]:
    """Logits at the places that have a label, and where those are."""
    core = model.model.language_model
    embeds = core.embed_tokens(batch["ids"])
    video_id = model.config.video_token_index
    embeds = embeds.masked_scatter((batch["ids"] == video_id)[..., None], visual.to(embeds.dtype))
    hidden = core(
        inputs_embeds=embeds, attention_mask=batch["mask"][:, None], position_ids=batch["positions"], use_cache=False
    ).last_hidden_state
    where = batch["labels"] != IGNORE
    return model.lm_head(hidden[where]).float(), where


@torch.no_grad()
def evaluate(model, tokenizer, *, num_frames: int, clips: int, blind: bool, seed: int = 7) -> dict[str, float]:
    """Share of answers right, whole answer or nothing, by kind, on worlds that training never saw."""
    rng = np.random.default_rng(seed)
    maker = Clips(tokenizer, Mix(num_frames, num_frames, 8, 24), seed)
    right: dict[str, list[bool]] = {kind: [] for kind in WORDINGS}
    for start in range(0, clips, 8):
        seeds = iter(range(start, start + 8))
        batch = maker.batch(rng, lambda seeds=seeds: next(seeds))
        if blind:
            batch["pictures"] = torch.zeros_like(batch["pictures"])
        logits, where = answer_logits(model, batch, see(model, batch["pictures"])[1])
        hit = torch.zeros_like(where)
        hit[where] = logits.argmax(-1) == batch["labels"][where]
        for b in range(len(where)):
            for q in range(int(batch["question"][b].max()) + 1):
                mine = (batch["question"][b] == q) & where[b]
                right[list(WORDINGS)[int(batch["kinds"][b][mine][0])]].append(bool(hit[b][mine].all()))
    scores = {kind: sum(r) / len(r) for kind, r in right.items() if r}
    scores["all"] = sum(map(sum, right.values())) / sum(map(len, right.values()))
    return scores


def make_optimizers(model, looking) -> list[torch.optim.Optimizer]:
    """Muon (Jordan 2024) for the matrices of the layers, at AdamW's scale of updates; AdamW for all else."""
    hidden, decay, plain = [], [], []
    for module in (model, looking):
        for name, p in module.named_parameters():
            (hidden if ".layers." in name and p.ndim == 2 else decay if p.ndim >= 2 else plain).append(p)
    return [
        torch.optim.Muon(hidden, weight_decay=0.05, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(
            [{"params": decay, "weight_decay": 0.05}, {"params": plain, "weight_decay": 0.0}], betas=(0.9, 0.95)
        ),
    ]


def told_scores(scores: dict[str, float]) -> str:
    return ", ".join(f"{kind} {share:.3f}" for kind, share in scores.items())


def run_stage(stage: Stage, model, looking, optimizers, tokenizer, done: int, seed: int, out: Path) -> None:
    """Trains one stage from its step `done` on, saving as it goes."""
    loader = DataLoader(Clips(tokenizer, stage.mix, seed), batch_size=None, num_workers=1, prefetch_factor=4)
    word_ids = torch.tensor([tokenizer.convert_tokens_to_ids("▁" + w) for w in (*COLORS, *SHAPES, *PLACES)])
    groups = [group for optimizer in optimizers for group in optimizer.param_groups]
    parameters = [p for group in groups for p in group["params"]]
    model.train()
    losses: list[tuple[float, float]] = []
    started = time.monotonic()
    for step, batch in zip(range(done, stage.steps), loader, strict=False):
        rate = min(1.0, (step + 1) / stage.warmup_steps)
        if stage.cool:
            rate *= 1 - step / stage.steps
        for group in groups:
            group["lr"] = stage.peak_lr * rate
        with torch.autocast("cpu", dtype=torch.bfloat16):
            states, visual = see(model, batch["pictures"], stage.tower_every)
            words = model.get_input_embeddings().weight[word_ids]
            look = looking(states, visual[:, :-1], words, batch["fine"], batch["coarse"])
            answer = torch.zeros(())
            if stage.answers:
                logits, where = answer_logits(model, batch, visual)
                answer = F.cross_entropy(logits, batch["labels"][where])
            loss = stage.answers * answer + stage.looking * look
        for p in parameters:
            p.grad = None
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        for optimizer in optimizers:
            optimizer.step()
        losses.append((answer.item(), look.item()))
        if (step + 1) % 50 == 0:
            mean = np.mean(losses[-50:], axis=0)
            pace_s = (time.monotonic() - started) / (step + 1 - done)
            told = f"answers {mean[0]:.3f} looking {mean[1]:.3f} {pace_s:.2f} s/step"
            print(f"{stage.name} {step + 1}: {told}", flush=True)
        if (step + 1) % 250 == 0 or step + 1 == stage.steps:
            checkpoint(model, looking, optimizers, stage.name, step + 1, out)
            if stage.answers:
                model.eval()
                frames = min(stage.mix.max_frames, 16)
                scores = evaluate(model, tokenizer, num_frames=frames, clips=32, blind=False)
                print(f"  {frames} frames: {told_scores(scores)}", flush=True)
                model.train()


def checkpoint(model, looking, optimizers, stage: str, step: int, out: Path) -> None:
    """Weights and the optimizers' moments as safetensors; the place in the schedule as JSON, written last."""
    out.mkdir(parents=True, exist_ok=True)
    tensors = {f"model.{n}": p for n, p in model.named_parameters()}
    tensors |= {f"looking.{n}": p for n, p in looking.named_parameters()}
    for name, p in list(tensors.items()):
        for optimizer in optimizers:
            for key, value in optimizer.state.get(p, {}).items():
                tensors[f"moment {key} {name}"] = value
    save_file({n: t.detach().contiguous() for n, t in tensors.items()}, out / "state.tmp")
    (out / "state.tmp").rename(out / "state.safetensors")
    (out / "place.json").write_text(json.dumps({"stage": stage, "step": step}))


def restore(model, looking, optimizers, out: Path) -> tuple[str, int]:
    """The stage and step that the folder was left at; ("", 0) for a new one."""
    if not (out / "place.json").exists():
        return "", 0
    tensors = load_file(out / "state.safetensors")
    named = {f"model.{n}": p for n, p in model.named_parameters()}
    named |= {f"looking.{n}": p for n, p in looking.named_parameters()}
    with torch.no_grad():
        for name, p in named.items():
            p.copy_(tensors[name])
        for optimizer in optimizers:
            mine = {id(p) for group in optimizer.param_groups for p in group["params"]}
            for name, p in named.items():
                keys = [n for n in tensors if n.startswith("moment ") and n.endswith(f" {name}")]
                if id(p) in mine and keys:
                    optimizer.state[p] = {n.split(" ")[1]: tensors[n] for n in keys}
    place = json.loads((out / "place.json").read_text())
    return place["stage"], place["step"]


def main(
    out: Annotated[Path, typer.Option(help="folder of the run: checkpoints, and where to go on")] = Path("runs/mini"),
    seed: Annotated[int, typer.Option(help="of weights and of data")] = 1,
    export: Annotated[Path | None, typer.Option(help="write the model's folder here")] = None,
    stop_after: Annotated[str, typer.Option(help="name of the last stage to run")] = "polish",
    skip_to: Annotated[str, typer.Option(help="leave what the run is at, and start this stage")] = "",
    evaluate_only: Annotated[bool, typer.Option(help="print the scores, beside a model that does not look")] = False,
) -> None:
    torch.manual_seed(seed)
    tokenizer = make_tokenizer()
    model, looking = make_model(tokenizer), Looking()
    optimizers = make_optimizers(model, looking)
    at_stage, at_step = restore(model, looking, optimizers, out)
    names = [s.name for s in STAGES]
    if skip_to:
        at_stage, at_step = skip_to, 0
    if not (evaluate_only or export):
        begin = names.index(at_stage) if at_stage else 0
        for number in range(begin, names.index(stop_after) + 1):
            done = at_step if number == begin else 0
            run_stage(STAGES[number], model, looking, optimizers, tokenizer, done, seed * 1000 + number + done, out)
    model.eval()
    if export:
        save(model, tokenizer, export)
    for frames in REPORT_FRAMES:
        for blind in (False, True):
            scores = evaluate(model, tokenizer, num_frames=frames, clips=96, blind=blind)
            label = "does not look" if blind else "looks"
            print(f"{frames:2d} frames, {label}: {told_scores(scores)}", flush=True)


if __name__ == "__main__":
    typer.run(main)
