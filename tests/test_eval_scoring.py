"""Answers in many dresses, read as what they say; what can be read in two ways counts as none."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from millpond.pipeline.eval import FORMS, SUITES, Item, Said, Scored
from millpond.pipeline.eval.asking import ask_text, poll_text, poll_times, say_text
from millpond.pipeline.eval.scoring import (
    has_words,
    in_time,
    letter_of,
    number_of,
    same_words,
    score,
    yes_or_no,
)
from millpond.pipeline.eval.suites import Suite

SIGHTS = ("A compass.", "A map.", "An altitude meter.", "A weather radar.")
NUMBER_WORDS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven"]
# No word here is a number, or a yes or no.
ENGLISH = (
    "Beside bread cat Dad did cab and a A car drives past I see Carl in blue near Ada because dogs bark at it add "
    "An old man walks along while she cooks as they dance Each Big Cold Dark I'd don't we're ago"
).split()


@given(st.text(max_size=300), st.integers(1, 26), st.lists(st.text(max_size=20), max_size=26))
def test_any_text_is_read_without_fault(text: str, num_options: int, options: list[str]) -> None:
    letter = letter_of(text, num_options, options)
    assert letter is None or letter in "ABCDEFGHIJKLMNOPQRSTUVWXYZ"[:num_options]
    assert number_of(text) is None or isinstance(number_of(text), float)
    assert yes_or_no(text) in (True, False, None)
    assert same_words(text, text)


@given(
    st.lists(
        st.sampled_from([*ENGLISH, *"answer is option B (C) or , yes no two hundred 7".split(), "\n"]),
        max_size=30,
    )
)
def test_any_words_are_read_without_fault(words: list[str]) -> None:
    text = " ".join(words)
    assert letter_of(text, 4, SIGHTS) in (None, *"ABCD")
    assert number_of(text) is None or number_of(text) >= 0
    assert yes_or_no(text) in (True, False, None)


@pytest.mark.parametrize(
    "text",
    ["a" * 300_000, "(" * 300_000, "hundred " * 30_000, "1," * 100_000, "</think>" * 30_000, "<answer>" * 30_000,
     "answer is " * 30_000, "A or " * 60_000, "\n" * 300_000, "yes no " * 40_000, "\\boxed{" * 40_000, "9" * 100_000],
    ids=lambda text: text[:8],
)  # fmt: skip
def test_an_endless_answer_is_read_in_no_time(text: str) -> None:
    letter_of(text, 26, ("a map", "a dog"))
    number_of(text)
    yes_or_no(text)
    same_words(text, "a map")


NUMBERS = {
    0: "0|zero|None.|none of them|Never.",
    1: "once|one",
    2: "twice|the two in front|one of the two|I see one red and one blue. The answer is two.",
    3: "3|three|Three.|There are 3.|**3**|(3)|3 (three)|3, I think|3 times|3x|Of 7 men 3 run. The answer is 3.",
    4: "the one with 4 legs|four of them",
    5: "Total: 5|５|<think>4? 6?</think>5|005",
    21: "twenty-one|Twenty one men",
    105: "one hundred and five|a hundred and five",
    1234: "1,234|1234|one thousand two hundred and thirty-four",
    2006: "two thousand and six",
    12: "a dozen|twelve",
    -2: "-2|It is -2.",
    2.5: "2.5|2.50",
}
NO_NUMBERS = (
    "|many|3 or 4|3-4|3/4|two, three|two three|MP4|H264|2D|at 1:42.97|00:12|3rd|first|someone|no one|the one in red|"
    "often|weight|tend|alone|nothing to be seen|one red, two blue|1.2.3|I cannot tell"
).split("|")


@pytest.mark.parametrize("number", NUMBERS)
def test_a_number_is_found(number: float) -> None:
    texts = NUMBERS[number].split("|")
    assert {text: number_of(text) for text in texts} == dict.fromkeys(texts, number)


def test_no_number_where_there_is_none_or_more_than_one() -> None:
    assert {text: number_of(text) for text in NO_NUMBERS} == dict.fromkeys(NO_NUMBERS)


@given(
    st.integers(0, 10**12), st.sampled_from(["{}", "{}.", "There are {}.", "**{}**", "The answer is {}", "{} times"])
)
def test_a_number_in_digits_is_itself(number: int, dress: str) -> None:
    assert number_of(dress.format(number)) == number
    assert number_of(dress.format(f"{number:,}")) == number


@given(st.integers(0, 999_999))
def test_a_number_in_words_is_itself(number: int) -> None:
    assert number_of(in_words(number)) == number
    assert number_of(f"I count {in_words(number).replace('-', ' ')} in all.") == number


def in_words(number: int) -> str:
    teens = "twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen".split()
    tens = "twenty thirty forty fifty sixty seventy eighty ninety".split()
    small = NUMBER_WORDS + teens
    if number < 20:
        return small[number]
    if number < 100:
        return tens[number // 10 - 2] + (f"-{small[number % 10]}" if number % 10 else "")
    for value, name in ((1000, "thousand"), (100, "hundred")):
        if number >= value:
            rest = number % value
            joint = " and " if value == 100 else " "
            return f"{in_words(number // value)} {name}" + (joint + in_words(rest) if rest else "")
    raise AssertionError(number)


SAID = {
    True: "Yes|yes.|YES!|**Yes**|'yes'|Y|y.|True|Yes, he is.|Yes, there is no doubt.|Yeah|Answer: Yes|Answer: **yes**|"
    "The answer is yes.|No doubt it is.|<think>no, no</think> yes|Ｙｅｓ",
    False: "No|no.|N|No, not yet.|Not yet.|No one is doing this.|Nope|I would say no.|The man sits, so no.|No, no|(no)",
    None: "|Yes and no|yes/no|Yes or no?|yes no|Maybe|No idea|Not sure|None|Nothing|Norway|Yesterday|Now|N/A|y'all|"
    "He says nothing|say no more|Nothing, yes?|I know",
}


@pytest.mark.parametrize("says", SAID)
def test_yes_and_no(says: bool | None) -> None:
    texts = SAID[says].split("|")
    assert {text: yes_or_no(text) for text in texts} == dict.fromkeys(texts, says)


@given(st.lists(st.sampled_from(ENGLISH), max_size=12))
def test_no_yes_or_no_out_of_english_words(words: list[str]) -> None:
    assert yes_or_no(" ".join(words)) is None


def test_words_are_the_same_but_for_case_marks_articles_and_small_numbers() -> None:
    assert same_words("A red circle.", "red circle")
    assert same_words("The  RED circle!", "a red circle")
    assert same_words("two circles", "2 circles")
    assert same_words("“Ｒｅｄ”", "red")
    assert not same_words("red circle", "circle red")
    assert not same_words("dark red circle", "red circle")
    assert not same_words("", "red")
    assert same_words("The", "the") and not same_words("a", "the")
    assert has_words("Goal! Four of hearts, I say", "four of hearts")
    assert has_words("It is 3.", "3") and not has_words("It is 13.", "3")
    assert not has_words("", "3") and not has_words("hearts of four", "four of hearts")


@given(st.floats(0, 1e6), st.floats(0, 1e6), st.floats(0, 10))
def test_in_time_is_near_on_both_sides(first_s: float, right_s: float, tolerance_s: float) -> None:
    assert in_time(first_s, right_s, tolerance_s) == (abs(first_s - right_s) <= tolerance_s)
    assert not in_time(None, right_s, tolerance_s)


def item(form: str, answer: str, **fields: object) -> Item:
    usual = {"id": "1", "video": "a.mp4", "at_s": 4.0, "question": "What?", "kind": "K", "category": "real-time"}
    return Item(answer=answer, form=form, **(usual | fields))


ITEMS = {
    "choice": item("choice", "B", options=SIGHTS),
    "words": item("words", "a red circle"),
    "number": item("number", "3"),
    "yes_no": item("yes_no", "no"),
    "moment": item("moment", "goal", right_at_s=9.0, until_s=13.0),
}
RIGHT = {
    "choice": (Said("(B)"), Said("A compass")),
    "words": (Said("Red circle."), Said("Blue circle.")),
    "number": (Said("three of them"), Said("13")),
    "yes_no": (Said("No, not now"), Said("Yes")),
    "moment": (Said("", first_yes_s=11.0), Said("goal", first_yes_s=11.5)),
}


def test_every_form_has_a_right_and_a_wrong_answer() -> None:
    assert set(ITEMS) == set(FORMS) == set(RIGHT)
    for form, one in ITEMS.items():
        right, wrong = RIGHT[form]
        assert (score(one, right), score(one, wrong)) == (1.0, 0.0), form
        assert score(one, Said("")) == 0.0, form
    assert score(ITEMS["moment"], Said("goal", first_yes_s=11.5), tolerance_s=3.0) == 1.0
    assert score(ITEMS["moment"], Said("goal", first_yes_s=6.9)) == 0.0


def test_what_a_model_is_asked_has_question_options_and_how_to_answer() -> None:
    choice = ask_text(ITEMS["choice"])
    assert choice.startswith("What?\nA. A compass.\nB. A map.\n") and "letter" in choice.splitlines()[-1]
    assert "number" in ask_text(ITEMS["number"]) and "yes or no" in ask_text(ITEMS["yes_no"])
    assert ask_text(ITEMS["words"]).startswith("What?\n")
    assert ask_text(ITEMS["moment"]) == poll_text(ITEMS["moment"]) != say_text(ITEMS["moment"])
    assert all(one.question in ask_text(one) for one in ITEMS.values())
    # What has not come yet must not be given away by the question.
    assert "goal" not in poll_text(ITEMS["moment"]) + say_text(ITEMS["moment"])


def test_a_moment_is_polled_from_after_the_question_to_its_end() -> None:
    moment = ITEMS["moment"]
    assert poll_times(moment) == tuple(float(time) for time in range(5, 14))
    assert poll_times(moment, poll_s=4.0) == (8.0, 12.0)
    assert poll_times(item("moment", "x", right_at_s=1.0, until_s=4.0)) == ()
    with pytest.raises(ValueError, match='only a "moment" is polled; got'):
        poll_times(ITEMS["words"])
    with pytest.raises(ValueError, match="poll_s must be more than 0; got 0"):
        poll_times(moment, poll_s=0.0)


@given(st.floats(0, 1e5), st.floats(0, 1e3), st.floats(0.1, 60))
def test_polls_come_in_order_within_their_time(at_s: float, lasting_s: float, poll_s: float) -> None:
    times = poll_times(item("moment", "x", at_s=at_s, right_at_s=at_s, until_s=at_s + lasting_s), poll_s=poll_s)
    assert list(times) == sorted(set(times))
    assert all(at_s < time <= at_s + lasting_s + 1e-4 for time in times)
    assert len(times) >= int(lasting_s / poll_s) - 1


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"id": " "}, "id must have words; got ' '"),
        ({"video": "a\nb"}, "video must stand on one line"),
        ({"form": "song"}, "form must be one of choice, words"),
        ({"category": "sideways"}, "category must be one of real-time"),
        ({"at_s": float("nan")}, "at_s must be a finite number of seconds, 0 or more; got nan"),
        ({"at_s": -1.0}, "at_s must be a finite number"),
        ({"since_s": 5.0}, "since_s must not be after at_s; got 5.0 and 4.0"),
        ({"until_s": 5.0}, 'only a "moment" has right_at_s and until_s'),
        ({"form": "moment"}, 'a "moment" needs right_at_s'),
        ({"form": "moment", "right_at_s": 5.0, "until_s": 3.0}, "until_s not before at_s"),
        ({"form": "choice"}, "a choice needs 2 to 26 options; got 0"),
        ({"form": "choice", "options": ("a", "b"), "answer": "C"}, "a letter from A to B; got 'C'"),
        ({"form": "choice", "options": "ab", "answer": "A"}, "options must be a list of texts; got 'ab'"),
        ({"options": ("a", "b")}, 'only a "choice" has options; got 2'),
        ({"form": "number", "answer": "three"}, "the answer to a number must be digits; got 'three'"),
        ({"form": "yes_no", "answer": "Yes"}, '"yes" or "no"; got \'Yes\''),
        ({"answer": "  "}, "answer must have words"),
        ({"context": ("1",)}, "an item cannot come before itself; got '1'"),
    ],
)
def test_an_item_checks_itself(fields: dict[str, object], complaint: str) -> None:
    given = {"form": "words", "answer": "red", **fields}
    with pytest.raises(ValueError, match=complaint.replace("(", r"\(")):
        item(**given)


def test_what_crosses_folders_prints_small() -> None:
    assert len(repr(item("words", "x" * 999, question="y" * 999, id="z" * 999, kind="k" * 99))) < 120
    with pytest.raises(ValueError, match="first_yes_s must be a finite number of seconds; got inf"):
        Said("", first_yes_s=float("inf"))


def test_a_summary_counts_by_type_and_category() -> None:
    class Plain(Suite):
        about = "for a test"

        def items(self, path: object, videos: object, **settings: object) -> list[Item]:
            return []

    rights = [
        Scored(item("words", "x", kind=kind, category=category), Said("x"), right)
        for kind, category, right in (("a", "forward", 1.0), ("b", "backward", 0.0), ("a", "backward", 0.0))
    ]
    summary = Plain().summary(rights)
    assert summary["accuracy"] == pytest.approx(1 / 3) and summary["num_questions"] == 3 and summary["num_right"] == 1
    assert summary["by_type"] == {
        "a": {"accuracy": 0.5, "num_questions": 2, "num_right": 1.0},
        "b": {"accuracy": 0.0, "num_questions": 1, "num_right": 0.0},
    }
    assert list(summary["by_category"]) == ["forward", "backward"]
    assert Plain().summary([])["accuracy"] is None
    assert Plain().score(ITEMS["number"], Said("3")) == 1.0


def test_a_wrong_suite_lists_the_right_ones() -> None:
    with pytest.raises(ValueError, match="no suite named 'mlvu'; there are: jsonl, ovo, shapes, streamingbench"):
        SUITES["mlvu"]
