"""KV methods of kvpress in the table of `millpond eval`, from an environment of their own.

kvpress pins transformers below 5.3, so it cannot stand beside Millpond. What is asked goes there as files, with the
frames as the model's tower reads them, and the answers come back:

python demos/kvpress_peer.py export jsonl --questions questions.jsonl --videos clips --to handed    (Millpond's Python)

python -m venv kv
kv/bin/pip install kvpress==0.5.5 torch==2.13.0 numpy==2.4.6
kv/bin/python demos/kvpress_peer.py answer handed --press snapkv --ratio 0.5                        (kvpress's Python)

python demos/kvpress_peer.py score jsonl --questions questions.jsonl --videos clips --to handed --out results

The last one puts `kvpress-snapkv-50.jsonl` beside the files of other methods, adds the method to the folder's report,
from which `millpond page` makes its table, and prints a table of all that are there. export and score take the same
options, and those of a suite: see `millpond eval`.

The model is LLaVA-OneVision's architecture: millpond/mini, or a folder. kvpress takes its vision half as it is: its
hooks sit on the layers of the language model that a VLM holds, of which it warns as not tested. A press works on the
first pass over a context and no other, so the newest frames are read anew for each question, as in `last-N`, and then
compressed before the question is read, as kvpress's own pipeline has it. A ratio is the share of keys and values that
go. SnapKV looks from the last 64 tokens, so a context of no more is left whole; StreamingLLM keeps positions, as
kvpress does without KeyRerotationPress.
"""

from __future__ import annotations

import json
import os
import sys
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

# Shapes: N frames, 1 frame of a video, 3 colours, H rows, W columns.

PRESSES = {
    "none": "",
    "snapkv": "SnapKVPress",
    "knorm": "KnormPress",
    "expected-attention": "ExpectedAttentionPress",
    "streaming-llm": "StreamingLLMPress",
}
ABOUT = {
    "none": "the last frames, nothing compressed",
    "snapkv": "what the last tokens attend to stays (arXiv 2404.14469)",
    "knorm": "the shortest keys stay (arXiv 2406.11430)",
    "expected-attention": "what later queries are expected to attend to stays (arXiv 2510.00636)",
    "streaming-llm": "the first tokens and the last stay (arXiv 2309.17453)",
}
MINI = Path(__file__).parents[1] / "encoders" / "mini"
_MIN_TOKENS = 65  # SnapKV's window of 64, and something to choose from
# Names of weights as newer transformers write them, and as the older one that kvpress needs has them.
_OLDER_NAMES = {
    r"^language_model\.lm_head": "lm_head",
    r"^language_model\.model": "model.language_model",
    r"^vision_tower\.(?!vision_model)": "model.vision_tower.vision_model.",
    r"^multi_modal_projector": "model.multi_modal_projector",
    r"^image_newline": "model.image_newline",
}

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)

Name = Annotated[str, typer.Argument(metavar="SUITE", help="as for millpond eval")]
Questions = Annotated[Path | None, typer.Option(help="the suite's annotation file")]
Videos = Annotated[Path | None, typer.Option(help="folder below which the videos are")]
Setting = Annotated[list[str] | None, typer.Option(metavar="NAME=VALUE", help="a setting of the suite")]
Limit = Annotated[int | None, typer.Option(min=1, help="ask only so many questions, spread over the suite")]
Frames = Annotated[int, typer.Option(min=1, help="how many of the newest frames are read")]
To = Annotated[Path, typer.Option(help="the folder that goes to kvpress")]
Model = Annotated[str, typer.Option(help="millpond/mini, or a folder with a checkpoint of LLaVA-OneVision's kind")]
Press = Annotated[str, typer.Option(help=", ".join(PRESSES))]
Ratio = Annotated[float, typer.Option(min=0.0, max=0.99, help="share of keys and values that go")]


@app.command()
def export(
    suite: Name,
    to: To,
    questions: Questions = None,
    videos: Videos = None,
    setting: Setting = None,
    limit: Limit = None,
    frames: Frames = 64,
    model: Model = "millpond/mini",
) -> None:
    """Writes frames and questions into a folder. Needs Millpond."""
    from millpond.pipeline.eval.elsewhere import HandedOut

    show = HandedOut(num_frames=frames, folder=to)
    results = _run(suite, questions, videos, setting, limit, frames, model, "handed-out", show, None)
    print(f"{len(results.answered)} questions are in {to}")


@app.command()
def answer(
    handed: Annotated[Path, typer.Argument(help="the folder that export wrote")],
    press: Press = "snapkv",
    ratio: Ratio = 0.5,
    model: Annotated[Path, typer.Option(help="folder of the same checkpoint")] = MINI,
) -> None:
    """Answers the questions with a press. Needs kvpress, and no Millpond."""
    _check_press(press, ratio)
    about = json.loads((handed / "about.json").read_text(encoding="utf-8"))
    asked = [json.loads(line) for line in (handed / "questions.jsonl").read_text(encoding="utf-8").splitlines()]
    path = answers_path(handed, press, ratio)
    reader = Reader(handed, model, press, ratio, about)
    done = _begun(path, reader.by)
    with path.open("a", encoding="utf-8") as file:
        if not done:
            print(json.dumps(reader.by), file=file, flush=True)
            reader.answer(asked[0])  # the first pass of anything costs what no other does
        for number, question in enumerate(asked, 1):
            if question["key"] not in done:
                print(json.dumps(reader.answer(question)), file=file, flush=True)
                os.fsync(file.fileno())
            print(f"\r{number} of {len(asked)}", end="", file=sys.stderr)
    print(f"\n{path}", file=sys.stderr)


@app.command()
def score(
    suite: Name,
    to: To,
    out: Annotated[Path, typer.Option(help="folder of answers and report, of all methods")],
    press: Press = "snapkv",
    ratio: Ratio = 0.5,
    questions: Questions = None,
    videos: Videos = None,
    setting: Setting = None,
    limit: Limit = None,
    frames: Frames = 64,
    model: Model = "millpond/mini",
) -> None:
    """Scores the answers, and puts them beside those of other methods. Needs Millpond."""
    from millpond.pipeline.eval.elsewhere import AnsweredElsewhere, read_answers
    from millpond.pipeline.eval.report import report, table

    _check_press(press, ratio)
    by, replies = read_answers(answers_path(to, press, ratio))
    show = AnsweredElsewhere(num_frames=frames, by=json.dumps(by, sort_keys=True), answers=replies)
    results = _run(suite, questions, videos, setting, limit, frames, model, name_of(press, ratio), show, out)
    reports = _add_to_report(out, suite, results.method.name, report(results), questions, setting, limit)
    print(table(reports))


def name_of(press: str, ratio: float) -> str:
    """The method's name in tables: the press and how many of a hundred keys go."""
    return f"kvpress-{press}-{round(100 * ratio)}"


def answers_path(handed: Path, press: str, ratio: float) -> Path:
    return handed / f"{name_of(press, ratio)}.answers.jsonl"


class Reader:
    """The model with a press on it; answers one question at a time, greedily."""

    def __init__(self, handed: Path, folder: Path, press: str, ratio: float, about: dict[str, Any]) -> None:
        import kvpress
        import torch
        import transformers

        self._about = about
        self._stop_ids = set(about["stop_ids"])
        self._is_cuda = torch.cuda.is_available()
        loaded, report = transformers.LlavaOnevisionForConditionalGeneration.from_pretrained(
            folder,
            dtype=about["dtype"],
            key_mapping=_OLDER_NAMES,
            output_loading_info=True,
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=True,
        )
        lost = sorted({*report["missing_keys"], *report["unexpected_keys"]})
        if lost:
            raise ValueError(
                f"{folder} does not fit transformers {transformers.__version__}; got {lost[:3]} and others"
            )
        self._model = loaded.eval()
        if self._is_cuda:
            self._model.cuda()
        self._video_id = self._model.config.video_token_id
        side = self._model.config.vision_config.image_size // self._model.config.vision_config.patch_size
        self._num_visual = (-(-side // 2)) ** 2 + 1  # pooled, and a newline
        self._press = getattr(kvpress, PRESSES[press])(compression_ratio=ratio) if PRESSES[press] else None
        self._chunks = _open_frames(handed)
        self.by = {
            "version": 1,
            "press": press,
            "ratio": ratio,
            "weights": about["weights"],
            "device": torch.cuda.get_device_name() if self._is_cuda else "cpu",
            **{name: _version(name) for name in ("kvpress", "transformers", "torch")},
        }

    def answer(self, question: dict[str, Any]) -> dict[str, Any]:
        """One line of the file that goes back."""
        import torch

        context_ids = list(self._about["prefix_ids"])
        for before_ids in question["before_ids"]:
            context_ids += [*before_ids, *[self._video_id] * self._num_visual]
        num_positions = len(context_ids) + len(question["question_ids"]) + question["max_new_tokens"]
        if num_positions > self._about["max_positions"]:
            told = f"{num_positions} positions, and the model was trained for {self._about['max_positions']}"
            return {"key": question["key"], "problem": told}
        pixels_N13HW = torch.from_numpy(np.stack([self._chunks[number] for number in question["frames"]]))[:, None]
        with torch.inference_mode():
            return {"key": question["key"], **self._decode(context_ids, pixels_N13HW, question)}

    def _decode(self, context_ids: list[int], pixels_N13HW: Any, question: dict[str, Any]) -> dict[str, Any]:
        import torch
        from transformers import DynamicCache

        device = self._model.device
        began_s = time.perf_counter()
        cache = DynamicCache()
        presses = self._press is not None and len(context_ids) >= _MIN_TOKENS
        with self._press(self._model) if presses else nullcontext():
            self._model.model(
                input_ids=torch.tensor([context_ids], device=device),
                pixel_values_videos=pixels_N13HW.to(device, self._model.dtype),
                past_key_values=cache,
            )
        kv_bytes = sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)
        ids: list[int] = []
        # What is left of the context keeps its positions, so the question goes on where the context ended.
        position, step_ids, first_s = len(context_ids), question["question_ids"], 0.0
        while len(ids) < question["max_new_tokens"]:
            logits = self._model(
                input_ids=torch.tensor([step_ids], device=device),
                position_ids=torch.arange(position, position + len(step_ids), device=device)[None],
                past_key_values=cache,
                logits_to_keep=1,
            ).logits
            position += len(step_ids)
            next_id = int(logits[0, -1].argmax())
            first_s = first_s or time.perf_counter() - began_s
            if next_id in self._stop_ids:
                break
            ids.append(next_id)
            step_ids = [next_id]
        return {"ids": ids, "ttft_s": first_s, "total_s": time.perf_counter() - began_s, "kv_bytes": kv_bytes}


def _check_press(press: str, ratio: float) -> None:
    if press not in PRESSES:
        raise ValueError(f"no press named {press!r}; there are: {', '.join(PRESSES)}")
    if (press == "none") != (ratio == 0):
        raise ValueError(f"press none goes with ratio 0, and no other does; got {press} and {ratio}")


def _open_frames(handed: Path) -> dict[int, np.ndarray]:
    """Number of a frame -> its pixels."""
    found: dict[int, np.ndarray] = {}
    for path in sorted(handed.glob("frames-*.npz")):
        with np.load(path, allow_pickle=False) as held:
            pixels_N3HW = held["pixels_N3HW"]
        found |= {int(path.stem.removeprefix("frames-")) + at: one for at, one in enumerate(pixels_N3HW)}
    return found


def _begun(path: Path, by: dict[str, Any]) -> set[str]:
    """What is answered already, by the same press on the same model; whole lines only."""
    if not path.exists():
        return set()
    whole, _, torn = path.read_text(encoding="utf-8").rpartition("\n")
    if torn:
        path.write_text(whole + "\n" if whole else "", encoding="utf-8")
    lines = [json.loads(line) for line in whole.splitlines()]
    if lines and lines[0] != by:
        raise ValueError(f"{path} was begun otherwise: got {lines[0]}, wanted {by}; remove it")
    return {line["key"] for line in lines[1:]} or ({""} if lines else set())


def _version(name: str) -> str:
    from importlib.metadata import version

    return version(name)


def _add_to_report(
    out: Path,
    suite: str,
    name: str,
    added: dict[str, Any],
    questions: Path | None,
    setting: list[str] | None,
    limit: int | None,
) -> dict[str, dict[str, Any]]:
    """All reports of the folder: those that `millpond eval` wrote, and this one, with its own command beside it."""
    from millpond.pipeline.batch.files import write_json
    from millpond.pipeline.cli_eval import REPORT
    from millpond.pipeline.eval.origin import asked, origin

    about = origin(sys.argv)
    path = out / REPORT
    what = asked(suite, _settings(setting), questions=questions and questions.name, limit=limit)
    whole = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {**about, "suite": suite, "asked": what}
    if whole.get("asked") != what:
        raise ValueError(
            f"{path} is of other questions; got {what}, and it has {whole.get('asked')}; take another --out"
        )
    beside = {} if whole["command"] == about["command"] else about
    whole["methods"] = whole.get("methods", {}) | {name: {**added, **beside}}
    write_json(path, whole)
    return whole["methods"]


def _settings(given: list[str] | None) -> dict[str, Any]:
    from millpond.pipeline.cli_eval import read_setting

    return dict(read_setting(one) for one in given or [])


def _run(
    name: str,
    questions: Path | None,
    videos: Path | None,
    setting: list[str] | None,
    limit: int | None,
    frames: int,
    model: str,
    method: str,
    show: Any,
    out: Path | None,
) -> Any:
    """The suite with one method that answers elsewhere."""
    from millpond.pipeline import EngineConfig
    from millpond.pipeline.eval.method import EvalMethod
    from millpond.pipeline.eval.methods import METHODS
    from millpond.pipeline.eval.run import compare, spread_over
    from millpond.pipeline.eval.suites import SUITES

    suite = SUITES[name]()
    items = suite.items(questions, videos, **_settings(setting))
    about = ABOUT.get(method.removeprefix("kvpress-").rpartition("-")[0], "frames and questions, written to a folder")
    row = EvalMethod(name=method, about=about, show=show, config=METHODS[f"last-{frames}"].config)
    chosen = items if limit is None else spread_over(items, limit)
    options: dict[str, Any] = {"config": EngineConfig(model=model), "videos": videos, "out": out, "all_items": items}
    return next(iter(compare(suite, chosen, [row], **options)))


if __name__ == "__main__":
    app()
