"""Trains the built-in model from a seed, in stages, on two CPU cores or a GPU; an interrupted run goes on where it was
and comes to what it would have come to, with as many processes.

    python demos/train_mini.py --out runs/mini                 # all stages
    python demos/train_mini.py --out runs/mini --export encoders/mini

Stages: look (what covers each patch, and the words for it), one frame, a few frames, many frames, long clips, and a
cool-down over all of them; then, twice, many frames and a cool-down again. On a CPU, glibc gives large buffers back
after each use, and getting them again costs half the time; set MALLOC_MMAP_THRESHOLD_=4294967296
MALLOC_TRIM_THRESHOLD_=8589934592 to have it keep them.
"""

from __future__ import annotations

import os
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
import typer
from mini_attention import ATTENTION
from mini_data import Clips, Mix
from mini_heads import Looking, Telling
from mini_lessons import IGNORE, PLACES
from mini_model import make_model, make_tokenizer, save
from mini_team import Team, run_together
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import LlavaOnevisionForConditionalGeneration, PreTrainedTokenizerFast

from millpond.stream.truth import WORDINGS
from millpond.stream.world import COLORS, SHAPES

# Shapes: N pictures, D channels, B clips, F frames, V visual tokens of a frame, H rows and W columns of pixels.

REPORT_FRAMES = (1, 4, 16, 64)
SAVE_EVERY = 50
"""Steps between two states on disk."""
STATE = "state.safetensors"
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Stage:
    """Some steps of one kind. The learning rate rises over warmup_steps and, if cool, falls linearly to nothing.

    answers, looking, telling: weights of the losses.
    tower_every: the tower and the projector learn from every n-th frame; their backward pass is the dearest part of a
        step. 0: from none.
    tower_rate: their share of the learning rate. What they know is soon lost when few frames teach them fast.
    """

    name: str
    steps: int
    mix: Mix
    peak_lr: float
    answers: float
    looking: float
    telling: float
    tower_every: int = 1
    tower_rate: float = 1.0
    cool: bool = False
    warmup_steps: int = 50


STAGES = (
    Stage("look", 1500, Mix(1, 1, 96, 1), 2e-3, 0.0, 1.0, 0.0, cool=True),
    Stage("one-frame", 400, Mix(1, 1, 48, 12), 1.5e-3, 1.0, 0.5, 0.5, tower_every=2, tower_rate=0.3),
    Stage("few-frames", 400, Mix(1, 6, 16, 20, drop=0.8, thin=0.9), 1.5e-3, 1.0, 0.0, 1.0, tower_every=0),
    Stage("thin", 800, Mix(3, 24, 8, 32, drop=1.0, thin=0.9), 1.2e-3, 1.0, 0.0, 1.0, tower_every=0),
    Stage("many-frames", 2200, Mix(1, 16, 8, 32, window=0.15, drop=0.5), 1.2e-3, 1.0, 0.0, 0.7, tower_every=0),
    Stage("long", 500, Mix(8, 64, 2, 48, window=0.3, drop=0.6), 1e-3, 1.0, 0.0, 0.5, tower_every=0),
    Stage("cool-down", 1400, Mix(1, 64, 2, 48, window=0.2, drop=0.5), 1e-3, 1.0, 0.3, 0.3, 8, 0.3, True, 1),
    Stage("again", 1200, Mix(1, 24, 6, 36, window=0.15, drop=0.5), 1.2e-3, 1.0, 0.3, 0.5, 8, 0.3),
    Stage("last", 1900, Mix(1, 64, 2, 48, window=0.2, drop=0.5), 1e-3, 1.0, 0.3, 0.3, 8, 0.3, True, 1),
    Stage("further", 1500, Mix(1, 24, 6, 36, window=0.15, drop=0.5), 1.2e-3, 1.0, 0.3, 0.5, 8, 0.3),
    Stage("end", 1900, Mix(1, 64, 2, 48, window=0.3, drop=0.5), 1e-3, 1.0, 0.3, 0.3, 8, 0.3, True, 1),
)


def see(model, pictures_BFHW3: Tensor, tower_every: int = 1, turn: int = 0) -> tuple[Tensor, Tensor]:
    """Tower states (N, patches, D) and visual tokens (N, V, D), each frame as a video of its own. turn: which of every
    tower_every frames are learned from."""
    if tower_every == 0:
        with torch.no_grad():
            return see(model, pictures_BFHW3)
    pixels = pictures_BFHW3.flatten(0, 1).permute(0, 3, 1, 2).float().div_(127.5).sub_(1)
    tower_every = min(tower_every, len(pixels))  # one of them always learns
    if tower_every == 1 or not torch.is_grad_enabled():
        states = tower_states(model, pixels)
    else:
        learns = torch.arange(len(pixels)) % tower_every == turn % tower_every
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


def read(model, batch: dict[str, Tensor], visual_NVD: Tensor) -> tuple[Tensor, ...]:
    """States (B, S, D) of the language half: what it is given, then after each layer, the last one normed."""
    core = model.model.language_model
    embeds = core.embed_tokens(batch["ids"])
    visual = visual_NVD.unflatten(0, batch["kept"].shape[:2])[batch["kept"]]
    embeds = embeds.masked_scatter((batch["cells"] >= 0)[..., None], visual.to(embeds.dtype))
    return core(
        inputs_embeds=embeds,
        attention_mask=batch["mask"][:, None],
        position_ids=batch["positions"],
        use_cache=False,
        output_hidden_states=True,
        window_mask=batch.get("window_mask"),
        question_length=int(batch["question_length"]),
    ).hidden_states


def answer_logits(model, batch: dict[str, Tensor], last_BSD: Tensor) -> tuple[Tensor, Tensor]:
    """Logits at the places that have a label, and where those are."""
    where = batch["labels"] != IGNORE
    return model.lm_head(last_BSD[where]).float(), where


@torch.no_grad()
def evaluate(model, tokenizer, *, num_frames: int, clips: int, blind: bool, seed: int = 7) -> dict[str, float]:
    """Share of answers right, whole answer or nothing, by kind, on wide worlds that training never saw."""
    rng = np.random.default_rng(seed)
    at_once, device = 8 if num_frames <= 16 else 2, model.device
    maker = Clips(tokenizer, Mix(num_frames, num_frames, at_once, 48, wide=1.0), (seed,))
    right: dict[str, list[bool]] = {kind: [] for kind in WORDINGS}
    for start in range(0, clips, at_once):
        batch = on(device, maker.batch(rng, list(range(start, start + at_once)), num_frames))
        if blind:
            batch["pictures"] = torch.zeros_like(batch["pictures"])
        with device, torch.autocast(device.type, dtype=torch.bfloat16):
            logits, where = answer_logits(model, batch, read(model, batch, see(model, batch["pictures"])[1])[-1])
        hit = torch.zeros_like(where)
        hit[where] = logits.argmax(-1) == batch["labels"][where]
        batch, hit, where = on(CPU, batch), hit.to(CPU), where.to(CPU)
        for b in range(len(where)):
            for q in range(int(batch["question"][b].max()) + 1):
                mine = (batch["question"][b] == q) & where[b]
                right[list(WORDINGS)[int(batch["kinds"][b][mine][0])]].append(bool(hit[b][mine].all()))
    scores = {kind: sum(r) / len(r) for kind, r in right.items() if r}
    scores["all"] = sum(map(sum, right.values())) / sum(map(len, right.values()))
    return scores


def make_optimizers(model, heads) -> list[torch.optim.Optimizer]:
    """Muon (Jordan 2024) for the matrices of the layers, at AdamW's scale of updates; AdamW for all else. The tower and
    the projector are groups of their own, named "tower"."""
    found: dict[tuple[str, str], list[nn.Parameter]] = defaultdict(list)
    for module in (model, heads):
        for name, p in module.named_parameters():
            part = "tower" if "vision_tower" in name or "projector" in name else "rest"
            kind = "hidden" if ".layers." in name and p.ndim == 2 else "matrix" if p.ndim >= 2 else "plain"
            found[kind, part].append(p)

    def groups(*kinds: str) -> list[dict]:
        return [
            {"params": parameters, "weight_decay": 0.0 if kind == "plain" else 0.05, "name": part}
            for (kind, part), parameters in found.items()
            if kind in kinds
        ]

    return [
        torch.optim.Muon(groups("hidden"), adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(groups("matrix", "plain"), betas=(0.9, 0.95)),
    ]


def on(device: torch.device, batch: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: values.to(device, non_blocking=True) for name, values in batch.items()}


def told_scores(scores: dict[str, float]) -> str:
    return ", ".join(f"{kind} {share:.3f}" for kind, share in scores.items())


def ids_of_words(tokenizer) -> Tensor:
    """The tokens that pooled visual tokens should be near to: colours, shapes, digits, then places."""
    words = [*(f"▁{w}" for w in (*COLORS, *SHAPES)), *"0123456789", *(f"▁{w}" for w in PLACES)]
    return torch.tensor(tokenizer.convert_tokens_to_ids(words))


def loss_of(stage: Stage, model, heads, batch: dict[str, Tensor], word_ids: Tensor, step: int) -> tuple[Tensor, ...]:
    """What is learned from, and its parts before they are weighed: of answers, of looking and of telling."""
    with model.device, torch.autocast(model.device.type, dtype=torch.bfloat16):
        states, visual = see(model, batch["pictures"], stage.tower_every, step)
        rows = model.get_input_embeddings().weight[word_ids]
        look = heads["looking"](
            states, visual[:, :-1], rows, batch["fine"].flatten(0, 1), batch["coarse"].flatten(0, 1)
        )
        answer = tell = torch.zeros(())
        if stage.answers:
            layers = read(model, batch, visual)
            tell = heads["telling"](layers, batch)
            logits, where = answer_logits(model, batch, layers[-1])
            answer = F.cross_entropy(logits, batch["labels"][where])
        return stage.answers * answer + stage.looking * look + stage.telling * tell, answer, look, tell


def run_stage(
    stage: Stage, model, heads, optimizers, tokenizer, done: int, seed: tuple[int, ...], out: Path, team: Team
) -> None:
    """Trains one stage from its step `done` on, saving as it goes. The loss that is printed is this process's."""
    device = model.device
    # One process paints as fast as a core learns; a GPU learns faster than that.
    painters = 1 if device.type == "cpu" else max(1, min(16, (os.cpu_count() or 1) - 1))
    clips = Clips(tokenizer, stage.mix, seed, done, team)
    loader = DataLoader(clips, batch_size=None, num_workers=painters, prefetch_factor=4)
    word_ids = ids_of_words(tokenizer).to(device)
    groups = [group for optimizer in optimizers for group in optimizer.param_groups]
    parameters = [p for group in groups for p in group["params"]]
    model.train()
    losses: list[tuple[float, ...]] = []
    threads = torch.get_num_threads()
    started = time.monotonic()
    for step, batch in zip(range(done, stage.steps), loader, strict=False):
        rate = min(1.0, (step + 1) / stage.warmup_steps)
        if stage.cool:
            rate *= 1 - step / stage.steps
        for group in groups:
            group["lr"] = stage.peak_lr * rate * (stage.tower_rate if group["name"] == "tower" else 1.0)
        loss, *parts = loss_of(stage, model, heads, on(device, batch), word_ids, step)
        for p in parameters:
            p.grad = None
        loss.backward()
        team.average(parameters)
        nn.utils.clip_grad_norm_(parameters, 1.0)
        for optimizer in optimizers:
            optimizer.step()
        losses.append(tuple(part.item() for part in parts))
        if team.rank:  # one of them saves and tells, the others are the same
            continue
        if (step + 1) % 50 == 0:
            mean = np.mean(losses[-50:], axis=0)
            pace_s = (time.monotonic() - started) / (step + 1 - done)
            told = f"answers {mean[0]:.3f} looking {mean[1]:.3f} telling {mean[2]:.3f} {pace_s:.2f} s/step"
            print(f"{stage.name} {step + 1}: {told}", flush=True)
        is_last = step + 1 == stage.steps
        if (step + 1) % SAVE_EVERY == 0 or is_last:
            checkpoint(model, heads, optimizers, stage.name, step + 1, out)
        if stage.answers and ((step + 1) % 250 == 0 or is_last):
            model.eval()
            frames = min(stage.mix.max_frames, 16)
            torch.set_num_threads(threads * team.size)  # the others wait
            scores = evaluate(model, tokenizer, num_frames=frames, clips=64, blind=False)
            torch.set_num_threads(threads)
            print(f"  {frames} frames: {told_scores(scores)}", flush=True)
            model.train()


def checkpoint(model, heads, optimizers, stage: str, step: int, out: Path) -> None:
    """Weights, the optimizers' moments and the place in the schedule, in one file that is replaced at once."""
    out.mkdir(parents=True, exist_ok=True)
    tensors = named_parameters(model, heads)
    for name, p in list(tensors.items()):
        for optimizer in optimizers:
            for key, value in optimizer.state.get(p, {}).items():
                tensors[f"moment {key} {name}"] = value
    place = {"stage": stage, "step": str(step)}
    save_file({n: t.detach().contiguous() for n, t in tensors.items()}, out / "state.tmp", metadata=place)
    (out / "state.tmp").replace(out / STATE)


def restore(model, heads, optimizers, out: Path) -> tuple[str, int]:
    """The stage and step that the folder was left at; ("", 0) for a new one."""
    if not (out / STATE).exists():
        return "", 0
    with safe_open(out / STATE, "pt") as file:
        tensors, place = {name: file.get_tensor(name) for name in file.keys()}, file.metadata()
    named = named_parameters(model, heads)
    with torch.no_grad():
        for name, p in named.items():
            p.copy_(tensors[name])
        for optimizer in optimizers:
            mine = {id(p) for group in optimizer.param_groups for p in group["params"]}
            for name, p in named.items():
                keys = [n for n in tensors if n.startswith("moment ") and n.endswith(f" {name}")]
                if id(p) in mine and keys:
                    # Counts of steps stay on the CPU, where AdamW keeps them.
                    moments = {n.split(" ")[1]: tensors[n] for n in keys}
                    optimizer.state[p] = {key: t.to(p.device) if t.ndim else t for key, t in moments.items()}
    return place["stage"], int(place["step"])


def named_parameters(model, heads) -> dict[str, Tensor]:
    parts = (("model", model), ("heads", heads))
    return {f"{part}.{name}": p for part, module in parts for name, p in module.named_parameters()}


class Learner(NamedTuple):
    """What is trained, and with what."""

    tokenizer: PreTrainedTokenizerFast
    model: LlavaOnevisionForConditionalGeneration
    heads: nn.ModuleDict
    optimizers: list[torch.optim.Optimizer]


def make_learner(seed: int, device: str) -> Learner:
    torch.manual_seed(seed)
    tokenizer = make_tokenizer()
    model = make_model(tokenizer)
    model.model.language_model.set_attn_implementation(ATTENTION)
    model.model.vision_tower.set_attn_implementation("eager")
    vision, text = model.config.vision_config.hidden_size, model.config.text_config.hidden_size
    heads = nn.ModuleDict({"looking": Looking(vision, text), "telling": Telling(text)})
    model.to(device)
    heads.to(device)
    return Learner(tokenizer, model, heads, make_optimizers(model, heads))


def learn(
    team: Team, stages: tuple[Stage, ...], out: Path, seed: int, stop_after: str, skip_to: str, device: str
) -> None:
    """The stages from where the folder is at to the last one that is wanted, in one process of a team."""
    tokenizer, model, heads, optimizers = make_learner(seed, device)
    at_stage, at_step = restore(model, heads, optimizers, out)
    if skip_to:
        at_stage, at_step = skip_to, 0
    names = [stage.name for stage in stages]
    begin = names.index(at_stage) if at_stage else 0
    for number in range(begin, names.index(stop_after) + 1):
        done = at_step if number == begin else 0
        run_stage(stages[number], model, heads, optimizers, tokenizer, done, (seed, number), out, team)


def main(
    out: Annotated[Path, typer.Option(help="folder of the run: its state, and where to go on")] = Path("runs/mini"),
    seed: Annotated[int, typer.Option(help="of weights and of data")] = 1,
    export: Annotated[Path | None, typer.Option(help="write the model's folder here")] = None,
    stop_after: Annotated[str, typer.Option(help="name of the last stage to run")] = STAGES[-1].name,
    skip_to: Annotated[str, typer.Option(help="leave what the run is at, and start this stage")] = "",
    evaluate_only: Annotated[bool, typer.Option(help="print the scores, beside a model that does not look")] = False,
    device: Annotated[str, typer.Option(help="cpu or cuda; by default a GPU where there is one")] = "auto",
    processes: Annotated[int, typer.Option(help="that learn together; 0: two on a CPU, one on a GPU")] = 0,
) -> None:
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if not (evaluate_only or export):
        processes = processes or (1 if device == "cuda" else min(2, os.cpu_count() or 1))
        run_together(processes, learn, STAGES, out, seed, stop_after, skip_to, device)
    tokenizer, model, heads, optimizers = make_learner(seed, device)
    restore(model, heads, optimizers, out)
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
