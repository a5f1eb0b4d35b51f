"""What the built-in model is trained with: attention that leaves out what is hidden, and lessons that are true."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import nullcontext
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from millpond.stream import time_words
from millpond.stream.truth import Asked, Witness
from millpond.stream.wide_world import make_wide_world

# Shapes: B clips, H heads, G heads of keys, S tokens of contexts and questions, D channels, F frames, C cells.

DEMOS = Path(__file__).parents[1] / "demos"

pytestmark = pytest.mark.skipif(not DEMOS.exists(), reason="the demos are not beside the tests")


@pytest.fixture(autouse=True)
def demos(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(DEMOS))


@pytest.mark.parametrize("is_windowed", [False, True])
@pytest.mark.parametrize(("num_context", "length"), [(40, 9), (300, 23), (129, 128)])
def test_attention_of_training_is_attention_under_one_mask(num_context: int, length: int, is_windowed: bool) -> None:
    from mini_attention import attend

    torch.manual_seed(num_context)
    heads, groups, num_asking, dim = 6, 2, 5 * length, 16
    total = num_context + num_asking
    query_BHSD = torch.randn(2, heads, total, dim)
    key_BGSD, value_BGSD = torch.randn(2, groups, total, dim), torch.randn(2, groups, total, dim)
    seen = torch.rand(2, 1, num_asking, num_context) < 0.6
    seen[..., 0] = True
    of = torch.arange(num_asking) // length
    own = (of[:, None] == of[None]).tril().expand(2, 1, -1, -1)
    mask = torch.cat([seen, own], dim=-1)
    causal = torch.ones(num_context, num_context, dtype=torch.bool).tril().expand(2, -1, -1)
    window = causal & ((torch.rand(2, num_context, num_context) < 0.5) | torch.eye(num_context, dtype=torch.bool))

    whole = torch.zeros(2, 1, total, total, dtype=torch.bool)
    whole[:, 0, :num_context, :num_context] = window if is_windowed else causal
    whole[:, :, num_context:] = mask
    each = heads // groups
    want = F.scaled_dot_product_attention(
        query_BHSD, key_BGSD.repeat_interleave(each, 1), value_BGSD.repeat_interleave(each, 1), attn_mask=whole
    )
    given_window = window if is_windowed else None
    found, _ = attend(torch.nn.Module(), query_BHSD, key_BGSD, value_BGSD, mask, dim**-0.5, given_window, length)
    torch.testing.assert_close(found, want.transpose(1, 2), atol=2e-6, rtol=1e-5)


@lru_cache(maxsize=1)
def tokenizer():
    from mini_model import make_tokenizer

    return make_tokenizer()


def _lessons(witness: Witness, moment: int, asked: Asked) -> tuple[list[str], dict[str, list[int]]]:
    """Names in the answer, and what training says of each."""
    from mini_data import Words
    from mini_lessons import NAMES, recall

    words = Words(tokenizer())
    question, answer = words.question(asked)
    named = words.named((*question, *answer))
    sees = np.arange(len(witness.times_s)) <= moment
    told = recall(witness, asked, moment, named, len(question), sees, is_whole=True)
    places = [at for at, name in enumerate(named) if name >= 0 and at >= len(question)]
    return [NAMES[named[at]] for at in places], {key: [values[at] for at in places] for key, values in told.items()}


@settings(max_examples=40)
@given(seed=st.integers(0, 10_000), num_frames=st.integers(1, 24), offset_s=st.sampled_from([0.0, 7.5, 40_000.0]))
def test_what_names_recall_agrees_with_the_answers_of_the_world(seed: int, num_frames: int, offset_s: float) -> None:
    from mini_lessons import NAMES, frame_facts

    world = make_wide_world(seed, duration_s=float(num_frames), max_things=8)
    witness = Witness(world, np.arange(float(num_frames)), offset_s=offset_s)
    moment, rng = num_frames - 1, np.random.default_rng(seed)
    facts = frame_facts(witness)
    listed = witness.ask("list", moment, rng)
    if listed is None or listed.answer == "nothing":
        return
    names, told = _lessons(witness, moment, listed)
    assert ", ".join(names) == listed.answer
    assert told["name_rank"] == list(range(len(names)))
    assert told["name_next"] == [*(NAMES.index(name) for name in names[1:]), len(NAMES)]
    assert told["name_ever"] == [1] * len(names)
    assert facts["rank"][moment] == len(names)
    assert facts["count"][moment] == facts["now"][moment].clip(0).sum() or (facts["now"][moment] < 0).any()
    for at, name in enumerate(names):
        came = told["name_moment"][at]
        signs = "".join("0123456789. "[sign] for sign in facts["signs"][came][:7]).strip()
        assert signs == time_words(came + offset_s)
        assert facts["came"][:, NAMES.index(name)].nonzero()[0].tolist() == [came]


@given(
    seed=st.integers(0, 10_000),
    num_frames=st.integers(8, 40),
    kind=st.sampled_from(["list", "count_all", "first", "last"]),
)
def test_what_is_recalled_for_a_question_about_everything_is_enough_to_answer_it(
    seed: int, num_frames: int, kind: str
) -> None:
    from mini_data import Seen, frames_seen

    world = make_wide_world(seed, duration_s=float(num_frames), max_things=8)
    times_s, moment, rng = np.arange(float(num_frames)), num_frames - 1, np.random.default_rng(seed)
    witness = Witness(world, times_s)
    asked = witness.ask(kind, moment, rng)
    if asked is None:
        return
    sees_F = frames_seen(asked, moment, witness, Seen(window=5, kept_FV=np.ones((num_frames, 37), dtype=bool)), rng)
    assert sees_F[-5:].all()
    recalled = Witness(world, times_s[sees_F])
    again = recalled.ask(kind, len(recalled.times_s) - 1, rng)
    assert again is not None and again.answer == asked.answer


@settings(max_examples=40)
@given(seed=st.integers(0, 10_000))
def test_what_comes_next_agrees_with_the_question_for_it(seed: int) -> None:
    from mini_lessons import IGNORE, NAMES, recall

    witness = Witness(make_wide_world(seed, duration_s=12.0), np.arange(12.0))
    asked = witness.ask("after", 11, np.random.default_rng(seed))
    if asked is None:
        return
    name = next(one for one in NAMES if one in asked.question)
    told = recall(witness, asked, 11, [NAMES.index(name), -1], 2, np.ones(12, dtype=bool), is_whole=True)
    assert told["name_then"] == [[*NAMES, "nothing"].index(asked.answer), IGNORE]


@settings(max_examples=40)
@given(seed=st.integers(0, 10_000), num_frames=st.integers(2, 24))
def test_what_came_and_left_since_agrees_with_the_question_for_it(seed: int, num_frames: int) -> None:
    from mini_data import Words
    from mini_lessons import IGNORE, NAMES, SINCE, recall

    witness = Witness(make_wide_world(seed, duration_s=float(num_frames)), np.arange(float(num_frames)))
    asked = witness.ask("new", num_frames - 1, np.random.default_rng(seed))
    if asked is None:
        return
    words = Words(tokenizer())
    question, answer = words.question(asked)
    named = words.named((*question, *answer))
    told = recall(witness, asked, num_frames - 1, named, len(question), np.ones(num_frames, dtype=bool), is_whole=True)
    at = named.index(SINCE)
    verbs = {"since_came": "appears", "since_left": "leaves"}
    said = {f"{name} {verbs[key]}" for key in verbs for bit, name in enumerate(NAMES) if told[key][at] >> bit & 1}
    assert said == set(asked.answer.split(", ")) - {"nothing"}
    assert [told["since_came"][other] for other in range(len(named)) if other != at] == [IGNORE] * (len(named) - 1)
    # The token before the answer and each name in it say what the next news is of, and the last one that there is none.
    following = [[*NAMES, "nothing"][number] for number in told["follows"] if number != IGNORE]
    assert told["follows"][len(question) - 1] != IGNORE
    news = [news.rpartition(" ")[0] for news in asked.answer.split(", ") if news != "nothing"]
    assert following == [*news, "nothing"]


@settings(max_examples=40)
@given(seed=st.integers(0, 10_000), num_frames=st.integers(4, 24), kind=st.sampled_from(["order", "there"]))
def test_each_name_of_an_answer_says_which_of_those_asked_about_is_next(seed: int, num_frames: int, kind: str) -> None:
    from mini_data import Words
    from mini_lessons import IGNORE, NAMES, recall

    witness = Witness(make_wide_world(seed, duration_s=float(num_frames)), np.arange(float(num_frames)))
    asked = witness.ask(kind, num_frames - 1, np.random.default_rng(seed))
    if asked is None:
        return
    words = Words(tokenizer())
    question, answer = words.question(asked)
    named = words.named((*question, *answer))
    told = recall(witness, asked, num_frames - 1, named, len(question), np.ones(num_frames, dtype=bool), is_whole=True)
    assert all(number == IGNORE for number in told["follows"][: len(question) - 1]), "not yet told"
    following = [[*NAMES, "nothing"][number] for number in told["follows"] if number != IGNORE]
    assert following == [*(name for name in asked.answer.split(", ") if name != "nothing"), "nothing"]


@pytest.mark.parametrize("drop", [0.0, 1.0])
def test_a_frames_time_is_asked_what_was_there_before_and_a_questions_what_was_there_then(drop: float) -> None:
    from mini_data import Clips, Mix
    from mini_heads import FACTS, Telling
    from mini_lessons import IGNORE, NAMES

    batch = Clips(tokenizer(), Mix(6, 6, 4, 40, wide=1.0, drop=drop, thin=drop), (5,)).step(0)
    telling = Telling(3 * len(NAMES))
    with torch.no_grad():
        telling.facts.weight[:] = torch.eye(3 * len(NAMES))
        telling.facts.bias.zero_()
    frames, cells = batch["frames"], batch["cells"]
    clips = torch.arange(len(frames))[:, None].expand_as(frames)
    is_time = batch["since_came"] != IGNORE
    assert is_time.any()
    is_last = (cells < 0) & (cells.roll(-1, 1) >= 0) & (frames > 0)

    def loss(of_frame: torch.Tensor, of_time: torch.Tensor) -> float:
        """Where these tokens know what is true of those frames."""
        of = torch.where(is_time, of_time, of_frame).clamp(min=0)
        knows = torch.cat([batch[key][clips, of].clamp(min=0) for key in list(FACTS)[:3]], dim=-1)
        states = 40.0 * knows.float() - 20.0
        states[~(is_last | is_time)] = 1e4  # nobody else is asked
        return telling._elsewhere(states, batch).item()

    before, then = frames - 1, batch["name_moment"]
    assert loss(before, then) < 1e-6 < 1.0 < min(loss(frames, then), loss(before, then - 1))


def test_what_a_question_cannot_know_is_no_lesson() -> None:
    from mini_lessons import IGNORE, NAMES, recall

    witness = Witness(make_wide_world(3, duration_s=12.0), np.arange(12.0))
    asked = witness.ask("list", 11, np.random.default_rng(0))
    assert asked is not None
    number, came = next(iter(witness.first_seen(11).items()))
    name = NAMES.index(witness.world.things[number].name)
    sees_F = np.arange(12) != came
    for is_whole, sees in ((True, sees_F), (False, sees_F)):
        told = recall(witness, asked, 11, [name], 1, sees, is_whole=is_whole)
        assert all(values == [IGNORE] for values in told.values())
    windowed = recall(witness, asked, 11, [name], 1, np.ones(12, dtype=bool), is_whole=False)
    assert windowed["name_moment"] == [came] and windowed["name_rank"] == [IGNORE]


@settings(max_examples=30)
@given(seed=st.integers(0, 10_000), thin=st.sampled_from([0.0, 0.9]))
def test_what_is_dropped_says_nothing_new(seed: int, thin: float) -> None:
    from mini_data import Mix, draw_seen, draw_shares

    rng = np.random.default_rng(seed)
    coarse_FC = rng.integers(0, 3, (20, 36)) * (rng.random((20, 36)) < 0.5)
    shares = draw_shares(rng, Mix(20, 20, 1, 1, drop=1.0, thin=thin))
    kept_FV = draw_seen(rng, coarse_FC, shares, 8, None).kept_FV
    before_FC = np.concatenate([np.zeros((1, 36), dtype=coarse_FC.dtype), coarse_FC[:-1]])
    assert kept_FV[:, :-1][coarse_FC != before_FC].all(), "what changed is kept"
    assert kept_FV[:, -1].all() and kept_FV[-1].all(), "so are ends of frames, and the newest frame"
    assert not thin or (~kept_FV).sum() > 0.5 * (coarse_FC[:-2] == before_FC[:-2]).sum()


def test_a_tower_that_is_to_learn_from_no_frame_gets_no_gradient() -> None:
    from mini_model import make_model
    from train_mini import see

    model, pictures = make_model(tokenizer()), torch.zeros(1, 4, 96, 96, 3, dtype=torch.uint8)
    for tower_every, learns in ((0, False), (1, True), (2, True), (9, True)):
        states, visual = see(model, pictures, tower_every)
        assert states.requires_grad == visual.requires_grad == learns
        assert visual.shape == (4, 37, 192)


def test_a_run_that_is_interrupted_comes_to_what_it_would_have_come_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped at a step that was not saved, in the middle of a stage, and begun again."""
    import train_mini
    from mini_data import Mix
    from safetensors.torch import load_file

    stages = tuple(
        train_mini.Stage(name, 3, Mix(1, 3, 1, 4, drop=0.5), 1e-3, answers, 1.0, answers, tower_every=2, warmup_steps=2)
        for name, answers in (("look", 0.0), ("read", 1.0))
    )
    monkeypatch.setattr(train_mini, "STAGES", stages)
    monkeypatch.setattr(train_mini, "SAVE_EVERY", 2)
    monkeypatch.setattr(train_mini, "REPORT_FRAMES", ())
    monkeypatch.setattr(train_mini, "evaluate", lambda *_, **__: {})

    def train(out: Path) -> None:
        train_mini.main(out, seed=3, stop_after="read", device="cpu", processes=1)

    saved = train_mini.checkpoint
    for out, stop_at in ((tmp_path / "whole", None), (tmp_path / "parts", ("read", 3))):

        def stopping(*state: object, stop_at: tuple[str, int] | None = stop_at) -> None:
            if state[3:5] == stop_at:
                raise KeyboardInterrupt
            saved(*state)

        monkeypatch.setattr(train_mini, "checkpoint", stopping)
        with nullcontext() if stop_at is None else pytest.raises(KeyboardInterrupt):
            train(out)
    monkeypatch.setattr(train_mini, "checkpoint", saved)
    train(tmp_path / "parts")

    whole, parts = (load_file(tmp_path / name / train_mini.STATE) for name in ("whole", "parts"))
    assert whole.keys() == parts.keys() and any(name.startswith("moment ") for name in whole)
    different = [name for name, tensor in whole.items() if not torch.equal(tensor, parts[name])]
    assert not different


def test_batches_are_the_same_however_many_paint_them() -> None:
    from mini_data import Clips, Mix
    from torch.utils.data import DataLoader

    drawn = []
    for first, num_painters in ((0, 0), (0, 1), (0, 2), (2, 2)):
        clips = Clips(tokenizer(), Mix(1, 3, 1, 4), (5, 0), first, (1, 2))
        loader = DataLoader(clips, batch_size=None, num_workers=num_painters)
        drawn.append([None] * first + [batch for batch, _ in zip(loader, range(5 - first), strict=False)])
    for others in drawn[1:]:
        for ours, theirs in zip(drawn[0], others, strict=True):
            assert theirs is None or all(torch.equal(ours[name], theirs[name]) for name in ours)


def a_stage() -> Any:
    import train_mini
    from mini_data import Mix

    mix = Mix(1, 3, 2, 4, drop=0.5)
    return train_mini.Stage("read", 2, mix, 1e-3, 1.0, 1.0, 1.0, tower_every=0, warmup_steps=1)


def learn_and_save(team: Any, folder: Path) -> None:
    """One process of a team. It finds this module's folder where the test put it: on its own path."""
    torch.set_num_threads(1)
    sys.path.insert(0, str(DEMOS))
    import train_mini

    train_mini.evaluate = lambda *_, **__: {}
    learner = train_mini.make_learner(3, "cpu")
    mine = folder / str(team.rank)
    train_mini.run_stage(a_stage(), *learner[1:], learner.tokenizer, 0, (3, 0), mine, team)
    train_mini.checkpoint(*learner[1:], "read", 2, mine)


def test_two_processes_take_the_step_of_one_that_learns_from_both_parts(tmp_path: Path, one_thread: None) -> None:
    import train_mini
    from mini_data import Clips
    from mini_team import run_together
    from safetensors.torch import load_file

    run_together(2, learn_and_save, tmp_path)
    found, other = (load_file(tmp_path / rank / train_mini.STATE) for rank in "01")
    assert all(torch.equal(tensor, other[name]) for name, tensor in found.items())

    stage, (words, model, heads, optimizers) = a_stage(), train_mini.make_learner(3, "cpu")
    groups = [group for optimizer in optimizers for group in optimizer.param_groups]
    parameters = [p for group in groups for p in group["params"]]
    model.train()
    for step in range(stage.steps):
        for part in range(2):
            batch = Clips(words, stage.mix, (3, 0), 0, (part, 2)).step(step)
            loss, *_ = train_mini.loss_of(stage, model, heads, batch, train_mini.ids_of_words(words), step)
            (loss / 2).backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        for group in groups:
            group["lr"] = stage.peak_lr
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
    want = train_mini.named_parameters(model, heads)
    assert len({*want} & {*found}) == len(want)
    for name, tensor in want.items():
        torch.testing.assert_close(
            found[name], tensor, atol=1e-6, rtol=1e-5, msg=lambda why, name=name: f"{name}: {why}"
        )


def say_and_sleep(team: Any) -> None:
    print(os.getpid(), flush=True)
    time.sleep(60)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nobody is told that the one who spawned it is gone")
def test_a_team_does_not_outlive_the_one_that_spawned_it() -> None:
    """As a shell starts what it runs in the background: nothing interrupts it."""
    code = "from tests.test_mini_training import *; sys.path.insert(0, str(DEMOS)); import mini_team; "
    code = f"{code}mini_team.run_together(2, say_and_sleep)"
    with subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=DEMOS.parent,
        env={**os.environ, "PYTHONPATH": str(DEMOS)},
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN),
    ) as parent:
        assert parent.stdout is not None
        members = [int(parent.stdout.readline()) for _ in range(2)]
        parent.kill()
        deadline_s = time.monotonic() + 20
        while any(Path(f"/proc/{pid}").exists() for pid in members) and time.monotonic() < deadline_s:
            time.sleep(0.05)
    assert not [pid for pid in members if Path(f"/proc/{pid}").exists()]
