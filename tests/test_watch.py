"""One pass over a source: everything is asked and told when its moment comes, and sees nothing later."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from millpond.encoders import VideoLLM
from millpond.pipeline import Answer, Engine, Narration, NarrationConfig, Question
from millpond.pipeline.watch import Progress, Unanswered, read_questions, watch
from millpond.stream import Frame, Span

from .watched import engine_of, ids_after, pictures, tiny

QUESTION = "What color is the circle?"


@pytest.fixture(scope="module")
def model() -> VideoLLM:
    return tiny("llava_onevision")


def events(engine: Engine, frames: list[Frame], *questions: Question, narrate: bool = False) -> list[object]:
    session = engine.session()
    seen = list(watch(session, frames, questions=questions, narrate=narrate))
    session.close()
    return seen


def answers(engine: Engine, frames: list[Frame], *questions: Question) -> list[Answer]:
    return [event for event in events(engine, frames, *questions) if isinstance(event, Answer)]


def test_a_question_sees_what_was_shown_by_its_moment_and_nothing_later(model: VideoLLM) -> None:
    frames = pictures(8)
    (answer,) = answers(engine_of(model, chunk_frames=3), frames, Question(QUESTION, at_s=4.5))
    assert (answer.asked_at_s, answer.seen_until_s) == (4.5, 4.0)
    assert answer.token_ids == ids_after(engine_of(model), frames[:5], QUESTION)
    (answer,) = answers(engine_of(model), frames, Question(QUESTION, at_s=5.0))
    assert (answer.asked_at_s, answer.seen_until_s) == (5.0, 5.0), "a frame of that very moment is seen"


def test_questions_are_asked_in_the_order_of_their_moments(model: VideoLLM) -> None:
    asked = [
        Question("the end?"),
        Question("at six?", at_s=6.0),
        Question("up to two?", until_s=2.0),
        Question("at two?", at_s=2.0),
        Question("at six about more?", at_s=6.0, until_s=1.0),
        Question("much later?", at_s=99.0),
        Question("since three?", since_s=3.0),
    ]
    given_ = answers(engine_of(model), pictures(8), *asked)
    assert [(a.question, a.asked_at_s, a.seen_until_s) for a in given_] == [
        ("up to two?", 2.0, 2.0),
        ("at two?", 2.0, 2.0),
        ("at six?", 6.0, 6.0),
        ("at six about more?", 6.0, 6.0),
        ("much later?", 99.0, 7.0),
        ("the end?", 7.0, 7.0),
        ("since three?", 7.0, 7.0),
    ]
    used = {a.question: a.used for a in given_}
    assert used["up to two?"] == (Span(0.0, 2.0),)
    assert used["at six about more?"] == (Span(0.0, 1.0),)
    assert used["since three?"] == (Span(3.0, 7.0),)


def test_questions_in_mid_stream_change_nothing_at_the_end(model: VideoLLM) -> None:
    asked = [Question("now?", at_s=float(n)) for n in range(7)]
    last = answers(engine_of(model), pictures(8), *asked, Question(QUESTION))[-1]
    assert last.token_ids == ids_after(engine_of(model), pictures(8), QUESTION)


def test_a_question_from_before_the_first_frame_is_asked_after_it(model: VideoLLM) -> None:
    late = [Frame(f.rgb_HW3, f.pts_s + 5) for f in pictures(3)]
    (answer,) = answers(engine_of(model), late, Question(QUESTION, at_s=1.0))
    assert (answer.asked_at_s, answer.seen_until_s) == (5.0, 5.0)


def test_every_frame_makes_progress_and_all_comes_in_order_of_time(model: VideoLLM) -> None:
    engine = engine_of(model, narration=NarrationConfig(min_gap_s=2.0, max_gap_s=9.0, max_new_tokens=2))
    told = events(engine, pictures(7), Question(QUESTION, at_s=3.0), Question(QUESTION), narrate=True)
    shapes = [type(event).__name__[0] for event in told]
    # Narrated at 2, 4 and 6 s; asked at 3 s and at the end.
    assert "".join(shapes) == "PPPNPAPNPPNA"
    assert [event.pts_s for event in told if isinstance(event, Progress)] == [float(n) for n in range(7)]
    spans = [event.span for event in told if isinstance(event, Narration)]
    assert spans == [Span(0.0, 2.0), Span(2.0, 4.0), Span(4.0, 6.0)]


def test_what_is_left_is_narrated_at_the_end(model: VideoLLM) -> None:
    engine = engine_of(model, narration=NarrationConfig(min_gap_s=50.0, max_gap_s=60.0, max_new_tokens=2))
    told = [event for event in events(engine, pictures(3), narrate=True) if isinstance(event, Narration)]
    assert [narration.span for narration in told] == [Span(0.0, 2.0)]


def test_a_question_about_what_was_never_seen_does_not_stop_the_others(model: VideoLLM) -> None:
    asked = [Question("Before?", since_s=1.2, until_s=1.8), Question("Where?", until_s=3.0), Question("What?")]
    left = [e for e in events(engine_of(model), pictures(5), *asked) if not isinstance(e, Progress)]
    assert [type(e) for e in left] == [Unanswered, Answer, Answer]
    assert isinstance(left[0], Unanswered) and left[0].question is asked[0]
    assert "no frame from 1.2 s up to 1.8 s is remembered" in left[0].reason


def test_answers_come_while_the_stream_goes_on(model: VideoLLM) -> None:
    taken = []

    def live() -> Iterator[Frame]:
        for frame in pictures(6):
            taken.append(frame.pts_s)
            yield frame

    for event in watch(engine_of(model).session(), live(), questions=[Question(QUESTION, at_s=2.0)]):
        if isinstance(event, Answer):
            break
    assert taken == [0.0, 1.0, 2.0, 3.0], "asked when the first later frame came, not at the end"


def test_a_stream_without_a_frame_is_an_error(model: VideoLLM) -> None:
    with pytest.raises(ValueError, match="'stream' ended without a single frame; there is nothing to tell"):
        events(engine_of(model), [], Question(QUESTION))


times = st.one_of(st.none(), st.integers(0, 12).map(lambda n: n / 2))


@given(st.lists(times, max_size=5), st.integers(1, 6), st.integers(1, 3))
@settings(max_examples=15)
def test_no_answer_knows_the_future(at_s: list[float | None], num_frames: int, chunk_frames: int) -> None:
    engine = engine_of(tiny("llava_onevision"), chunk_frames=chunk_frames, max_new_tokens=1)
    given_ = answers(engine, pictures(num_frames), *(Question(QUESTION, at_s=t) for t in at_s))
    assert len(given_) == len(at_s)
    wanted = sorted(float("inf") if t is None else t for t in at_s)
    for moment, answer in zip(wanted, given_, strict=True):
        assert answer.seen_until_s == min(int(min(moment, 1e6)), num_frames - 1)
        assert answer.used == (Span(0.0, answer.seen_until_s),)


# Files of questions.


def written(folder: Path, text: str) -> Path:
    path = folder / "questions.jsonl"
    path.write_text(text, encoding="utf-8")
    return path


def test_questions_are_read_from_a_file(tmp_path: Path) -> None:
    text = (
        '{"question": "What color is the circle?"}\n\n'
        '{"question": "Où est-il?", "at_s": 2, "since_s": 0.5, "until_s": null}\r\n'
        '{"question": "two\u2028lines?", "until_s": 1e1}'
    )
    assert read_questions(written(tmp_path, text)) == [
        Question("What color is the circle?"),
        Question("Où est-il?", at_s=2, since_s=0.5),
        Question("two\u2028lines?", until_s=10.0),
    ]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("what?", "is not JSON .*; write one object a line"),
        ("[" * 100_000, "is not JSON"),
        ('["what?"]', 'must be an object with a "question" in words'),
        ('{"at_s": 1}', 'must be an object with a "question" in words'),
        ('{"question": 3}', 'must be an object with a "question" in words'),
        ('{"question": " "}', "a question needs words"),
        ('{"question": "a?", "at": 1}', "unknown key 'at'; there are: question, at_s, since_s, until_s"),
        ('{"question": "a?", "at_s": "1"}', "at_s must be a number of seconds; got '1'"),
        ('{"question": "a?", "at_s": true}', "at_s must be a number of seconds; got True"),
        ('{"question": "a?", "at_s": NaN}', "at_s must be a finite number of seconds; got nan"),
        ('{"question": "a?", "until_s": 1e999}', "until_s must be a finite number of seconds; got inf"),
        ('{"question": "a?", "since_s": 3, "until_s": 2}', "since_s <= until_s; got 3 and 2"),
    ],
)
def test_a_line_that_is_no_question_is_named(tmp_path: Path, line: str, message: str) -> None:
    with pytest.raises(ValueError, match=rf"questions.jsonl:3\b.*{message}") as caught:
        read_questions(written(tmp_path, f'{{"question": "fine?"}}\n\n{line}\n'))
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


def test_a_file_without_questions_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds no question; write one JSON object a line"):
        read_questions(written(tmp_path, "\n \n"))
    with pytest.raises(ValueError, match=r"nowhere.jsonl' cannot be read: .*give JSON lines"):
        read_questions(tmp_path / "nowhere.jsonl")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="binary' cannot be read"):
        read_questions(tmp_path / "binary")
