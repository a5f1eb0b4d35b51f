"""`millpond bench core`: Millpond with everything off beside transformers as it is, same frames, model and prompt."""

from __future__ import annotations

import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
import torch

from ..memory import MemoryConfig
from ..stream import Frame, RateSampler, open_source, time_words
from .bench import Bench
from .config import EngineConfig, HistoryConfig
from .engine import Engine

NUM_FRAMES = 16
QUESTION = "Which objects appeared?"
MAX_NEW_TOKENS = 16
_CLIP = f"synthetic://shapes?seed=5&duration_s={NUM_FRAMES}&width=320&height=240"


class Run(NamedTuple):
    """One side's answer and what it took, in seconds: from raw frames to the last token and to the first, and from the
    question to the first token where the frames had come before."""

    wall_s: float
    cold_ttft_s: float
    ttft_s: float
    ids: tuple[int, ...]


class CoreBench(Bench):
    """Both sides answer one question about 16 frames, in turn, several times; memory is measured in processes apart."""

    about = (
        "core: this pipeline with everything off against transformers' own processor and generate, on the same frames, "
        "model and prompt. Keys: wall_ratio (raw frames to last token, ours over theirs), ttft_ratio (question to "
        "first token, frames having come before; transformers keeps nothing between calls, so its time holds the "
        "frames too), "
        "cold_ttft_ratio (raw frames to first token), peak_memory_ratio (peak resident bytes of a process that does it "
        "once), same_tokens, ours and theirs with wall_s, ttft_s, cold_ttft_s, peak_memory_bytes; models (the same for "
        "each model measured); num_frames, num_tokens, repeats, machine."
    )

    def run(self, *, model: str, repeats: int, clips: Path | None = None) -> dict[str, Any]:
        """model: "default" measures the built-in model and a random one of about 60 M parameters; the object's own
        figures are the larger one's."""
        from transformers.utils import logging as transformers_logging

        transformers_logging.disable_progress_bar()
        with TemporaryDirectory() as folder:
            paths = {model: model}
            if model == "default":
                paths = {"millpond/mini": "millpond/mini", "random-60M": str(_make_random(Path(folder) / "random-60M"))}
            measured = {name: _measure(path, repeats) for name, path in paths.items()}
        return {
            **measured[list(measured)[-1]],
            "models": measured,
            "num_frames": NUM_FRAMES,
            "repeats": repeats,
            "machine": f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__.partition('+')[0]}, "
            f"{torch.get_num_threads()} threads",
        }

    def table(self, result: dict[str, Any]) -> str:
        lines = [f"{NUM_FRAMES} frames, one question, median of {result['repeats']}; {result['machine']}"]
        for name, m in result["models"].items():
            same = "yes" if m["same_tokens"] else "NO"
            lines.append(f"{name}: {m['num_tokens']} tokens, the same on both sides: {same}")
            for key, unit, scale in (
                ("wall", "s", 1.0),
                ("cold_ttft", "s", 1.0),
                ("ttft", "s", 1.0),
                ("peak_memory", "MiB", 2.0**-20),
            ):
                full = f"{key}_{'bytes' if unit == 'MiB' else 's'}"
                ours, theirs = m["ours"][full] * scale, m["theirs"][full] * scale
                lines.append(
                    f"  {key:12} millpond {ours:9.3f} {unit}   transformers {theirs:9.3f} {unit}   "
                    f"ratio {m[key + '_ratio']:.3f}"
                )
        return "\n".join(lines)


def _measure(model: str, repeats: int) -> dict[str, Any]:
    frames = _frames()
    ours, theirs = Ours(model), Theirs(model)
    runs: dict[str, list[Run]] = {"ours": [], "theirs": []}
    for number in range(repeats + 1):
        for name, side in (("ours", ours), ("theirs", theirs)):
            run = side.answer(frames)
            if number:  # the first warms up
                runs[name].append(run)
    result: dict[str, Any] = {"num_tokens": len(runs["ours"][0].ids)}
    result["same_tokens"] = len({run.ids for side in runs.values() for run in side}) == 1
    for name, side_runs in runs.items():
        result[name] = {
            key: statistics.median(getattr(run, key) for run in side_runs)
            for key in ("wall_s", "ttft_s", "cold_ttft_s")
        }
        result[name]["peak_memory_bytes"] = _peak_memory(model, name)
    for key in ("wall_s", "ttft_s", "cold_ttft_s", "peak_memory_bytes"):
        name = key.removesuffix("_s").removesuffix("_bytes")
        result[f"{name}_ratio"] = result["ours"][key] / result["theirs"][key]
    return result


def _frames() -> list[Frame]:
    with open_source(_CLIP) as source:
        return list(source.sampled(RateSampler(1.0)))


class Ours:
    """This pipeline, with no gate, no compression, and a recent window that holds all frames."""

    def __init__(self, model: str) -> None:
        memory = MemoryConfig(recent_frames=NUM_FRAMES, budget_bytes=0)
        self._engine = Engine(
            EngineConfig(
                history=HistoryConfig(archive_bytes=0),
                model=model,
                reuse="none",
                memory=memory,
                chunk_frames=NUM_FRAMES,
                max_new_tokens=MAX_NEW_TOKENS,
            )
        )

    def answer(self, frames: list[Frame]) -> Run:
        started_s = time.perf_counter()
        session = self._engine.session()
        for frame in frames:
            session.push(frame)
        self._engine.read_pending()
        pushed_s = time.perf_counter()
        answer = session.ask(QUESTION)
        ended_s = time.perf_counter()
        session.close()
        ttft_s = answer.timing.ttft_s
        return Run(ended_s - started_s, pushed_s - started_s + ttft_s, ttft_s, answer.token_ids)


class Theirs:
    """transformers' own picture processor, model and generate, given Millpond's prompt: each frame's time, then it.

    The processor is the one that works without torchvision.
    """

    def __init__(self, model: str) -> None:
        from transformers import AutoImageProcessor, AutoTokenizer, LlavaOnevisionForConditionalGeneration

        from ..encoders.load import BUILT_IN

        path = str(BUILT_IN.get(model, model))
        self._model = LlavaOnevisionForConditionalGeneration.from_pretrained(path, dtype=torch.float32).eval()
        self._processor = AutoImageProcessor.from_pretrained(path, backend="pil")
        self._tokenizer = AutoTokenizer.from_pretrained(path)
        config = self._model.config
        side = config.vision_config.image_size // config.vision_config.patch_size
        self._frame_tokens = ((side + 1) // 2) ** 2 + 1

    @torch.inference_mode()
    def answer(self, frames: list[Frame]) -> Run:
        from PIL import Image
        from transformers import StoppingCriteria, StoppingCriteriaList

        class Clock(StoppingCriteria):
            first_s = 0.0

            def __call__(self, ids: torch.Tensor, scores: torch.Tensor, **_: Any) -> torch.Tensor:
                self.first_s = self.first_s or time.perf_counter()
                return torch.zeros(len(ids), dtype=torch.bool)

        started_s = time.perf_counter()
        size = dict.fromkeys(("height", "width"), self._model.config.vision_config.image_size)
        pixels = [
            self._processor.preprocess(Image.fromarray(f.rgb_HW3), size=size, do_pad=False, return_tensors="np")[
                "pixel_values"
            ][0][0]
            for f in frames
        ]
        messages = [{"role": "user", "content": [{"type": "video"}, {"type": "text", "text": QUESTION}]}]
        prompt = self._tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        before, _, after = prompt.partition("<video>")
        ids = list(self._tokenizer(before, add_special_tokens=False)["input_ids"])
        for frame in frames:
            ids += self._tokenizer(f"{time_words(frame.pts_s)} s", add_special_tokens=False)["input_ids"]
            ids += [self._model.config.video_token_id] * self._frame_tokens
        ids += self._tokenizer(after, add_special_tokens=False)["input_ids"]
        clock = Clock()
        out = self._model.generate(
            input_ids=torch.tensor([ids]),
            attention_mask=torch.ones(1, len(ids), dtype=torch.int64),
            pixel_values_videos=torch.from_numpy(np.stack(pixels))[:, None],
            max_new_tokens=MAX_NEW_TOKENS,
            do_sample=False,
            stopping_criteria=StoppingCriteriaList([clock]),
        )
        ended_s = time.perf_counter()
        stop = self._model.generation_config.eos_token_id
        stops = {stop} if isinstance(stop, int) else set(stop or ())
        new_ids = tuple(i for i in out[0, len(ids) :].tolist() if i not in stops)
        first_s = clock.first_s - started_s
        return Run(ended_s - started_s, first_s, first_s, new_ids)


def _peak_memory(model: str, side: str) -> int:
    """Peak resident bytes of a fresh process that answers once on that side."""
    command = [sys.executable, "-m", "millpond.pipeline.bench_core", model, side]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"measuring the memory of {side} failed: {done.stderr[-500:]}")
    return int(json.loads(done.stdout.splitlines()[-1]))


def _own_peak_bytes() -> int:
    # Linux hands the parent's ru_maxrss down to a child; the peak of the child's own memory is VmHWM, in KiB.
    status = Path("/proc/self/status")
    if status.exists():
        return next(int(line.split()[1]) * 1024 for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _make_random(folder: Path) -> Path:
    """A LLaVA-OneVision of about 60 M parameters with the built-in model's words and weights drawn at random."""
    from transformers import AutoTokenizer, LlavaOnevisionConfig, LlavaOnevisionForConditionalGeneration

    from ..encoders.load import BUILT_IN

    mini = BUILT_IN["millpond/mini"]
    config = LlavaOnevisionConfig.from_pretrained(mini)
    vision, text = config.vision_config, config.text_config
    vision.update({"hidden_size": 384, "intermediate_size": 1536, "num_attention_heads": 6, "num_hidden_layers": 8})
    vision.update({"image_size": 224, "patch_size": 16})
    text.update({"hidden_size": 640, "intermediate_size": 1792, "num_attention_heads": 10, "num_key_value_heads": 2})
    text.update({"num_hidden_layers": 10, "layer_types": ["full_attention"] * 10, "head_dim": 64})
    torch.manual_seed(0)
    model = LlavaOnevisionForConditionalGeneration(config)
    model.generation_config.eos_token_id = None
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(mini).save_pretrained(folder)
    processor = json.loads((mini / "preprocessor_config.json").read_text())
    processor["size"] = {"height": 224, "width": 224}
    processor["image_grid_pinpoints"] = [[224, 224]]
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    return folder


if __name__ == "__main__":
    _name, _side = sys.argv[1:]
    {"ours": Ours, "theirs": Theirs}[_side](_name).answer(_frames())
    print(_own_peak_bytes())
