"""Greedy decoding: several prompts in one packed row, each as if it were alone, and contexts left as they were."""

from __future__ import annotations

import pytest
import torch

from millpond.encoders import Row, Text, VideoLLM
from millpond.encoders.context import Context
from millpond.pipeline.generate import Decoding, Generated, Prompt, generate

from .watched import pictures, tiny

QUESTIONS = ("What color is the circle?", "Where is it?", "How many objects have appeared?")


@pytest.fixture(scope="module")
def model() -> VideoLLM:
    return tiny("llava_onevision")


@pytest.fixture
def contexts(model: VideoLLM) -> list[Context]:
    """Three that saw different pictures, and different numbers of them."""
    made = []
    for num, _ in enumerate(QUESTIONS, 1):
        context = model.new_context()
        model.read([Row(context, (model.prefix(), *model.see(pictures(2 * num, seed=num))))])
        made.append(context)
    return made


def prompts(model: VideoLLM, contexts: list[Context], *max_new_tokens: int) -> list[Prompt]:
    asked = zip(contexts, QUESTIONS, max_new_tokens or (6, 6, 6), strict=True)
    return [Prompt(context, model.question(words), num) for context, words, num in asked]


def by_hand(model: VideoLLM, prompt: Prompt) -> list[int]:
    """The slow twin: one prompt, one step after another."""
    mark, ids, part = prompt.context.mark(), list[int](), prompt.question
    while len(ids) < prompt.max_new_tokens:
        token = int(model.step([Row(prompt.context, (part,))])[0].argmax())
        if token in model.stop_ids:
            break
        ids.append(token)
        part = Text((token,))
    prompt.context.rewind(mark)
    return ids


def test_together_as_each_alone(model: VideoLLM, contexts: list[Context]) -> None:
    asked = prompts(model, contexts, 2, 9, 5)
    answers = generate(model, asked)
    assert [list(a.ids) for a in answers] == [by_hand(model, prompt) for prompt in asked]
    assert [len(a.ids) for a in answers] == [2, 9, 5]
    assert [a.text for a in answers] == [model.decode(a.ids).strip() for a in answers]
    assert len({a.ids[:2] for a in answers}) == 3


def test_an_answer_ends_at_a_stop_token_and_the_others_go_on(
    model: VideoLLM, contexts: list[Context], monkeypatch: pytest.MonkeyPatch
) -> None:
    free = generate(model, prompts(model, contexts, 8, 8, 8))
    stop = next(i for n, i in enumerate(free[1].ids) if n >= 2 and i not in free[1].ids[:n])
    monkeypatch.setattr(type(model), "stop_ids", property(lambda _: frozenset({stop})))
    answers = generate(model, prompts(model, contexts, 8, 8, 8))
    for before, after in zip(free, answers, strict=True):
        cut = before.ids.index(stop) if stop in before.ids else len(before.ids)
        assert after.ids == before.ids[:cut]
    assert 2 <= len(answers[1].ids) < 8
    first = free[0].ids[0]
    monkeypatch.setattr(type(model), "stop_ids", property(lambda _: frozenset({first})))
    silent = generate(model, prompts(model, contexts, 8, 8, 8))[0]
    assert (silent.ids, silent.text) == ((), "") and silent.first_token_s == silent.done_s


def test_contexts_are_left_as_they_were(model: VideoLLM, contexts: list[Context]) -> None:
    before = [(c.length, c.next_position, c.k_LKCD[:, :, : c.length].clone()) for c in contexts]
    first = generate(model, prompts(model, contexts))
    for context, (length, next_position, k_LKTD) in zip(contexts, before, strict=True):
        assert (context.length, context.next_position) == (length, next_position)
        assert torch.equal(context.k_LKCD[:, :, :length], k_LKTD)
    assert [a.ids for a in generate(model, prompts(model, contexts))] == [a.ids for a in first]


def test_contexts_are_left_as_they_were_where_a_listener_fails(model: VideoLLM, contexts: list[Context]) -> None:
    def fail(text: str) -> None:
        raise RuntimeError(f"no room for {text!r}")

    lengths = [context.length for context in contexts]
    asked = prompts(model, contexts)
    asked[1] = Prompt(contexts[1], asked[1].question, 6, on_text=fail)
    with pytest.raises(RuntimeError, match="no room for"):
        generate(model, asked)
    assert [context.length for context in contexts] == lengths


def test_moments_follow_one_another(model: VideoLLM, contexts: list[Context]) -> None:
    short, long, _ = generate(model, prompts(model, contexts, 1, 6, 3))
    assert short.first_token_s == short.done_s == long.first_token_s < long.done_s


def test_nothing_asked_nothing_answered(model: VideoLLM) -> None:
    answers: list[Generated] = generate(model, [])
    assert answers == []


def test_an_answer_needs_room(model: VideoLLM) -> None:
    with pytest.raises(ValueError, match="max_new_tokens must be at least 1; got 0"):
        Prompt(model.new_context(), model.question("what?"), 0)


def test_a_prompt_that_joins_on_the_way_is_answered_as_alone(model: VideoLLM, contexts: list[Context]) -> None:
    asked = prompts(model, contexts, 7, 6, 5)
    alone = [by_hand(model, prompt) for prompt in asked]
    lengths = [context.length for context in contexts]
    decoding, done, numbers = Decoding(model), {}, []
    for prompt in asked:
        numbers.append(decoding.add(prompt))
        done.update(decoding.step())
        done.update(decoding.step())
    while len(decoding):
        done.update(decoding.step())
    assert [list(done[number].ids) for number in numbers] == alone
    assert [context.length for context in contexts] == lengths
    assert decoding.step() == []


def test_one_that_is_dropped_leaves_its_context_and_the_others(model: VideoLLM, contexts: list[Context]) -> None:
    asked = prompts(model, contexts, 6, 6, 6)
    alone = [by_hand(model, prompt) for prompt in asked]
    lengths = [context.length for context in contexts]
    decoding = Decoding(model)
    numbers = [decoding.add(prompt) for prompt in asked]
    decoding.step()
    decoding.drop(numbers[1])
    assert contexts[1].length == lengths[1] and len(decoding) == 2
    done = {}
    while len(decoding):
        done.update(decoding.step())
    assert {number: list(one.ids) for number, one in done.items()} == {numbers[0]: alone[0], numbers[2]: alone[2]}
    assert [context.length for context in contexts] == lengths
