"""The letter of an option is found in many dresses, and never in an English word."""

from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from millpond.pipeline.eval.scoring import letter_of

SIGHTS = ("A compass.", "A map.", "An altitude meter.", "A weather radar.")
# No word here is a cue for a letter.
ENGLISH = (
    "Beside bread cat Dad did cab and a A car drives past I see Carl in blue near Ada because dogs bark at it add "
    "An old man walks along while she cooks as they dance Each Big Cold Dark I'd don't we're ago"
).split()

DRESSES = [
    "{}", "({})", "[{}]", "<{}>", "{}.", "{})", "({}).", "**{}**", "**{}.**", "`{}`", '"{}"', "'{}'", "${}$", " {} \n",
    "\\boxed{{{}}}", "$\\boxed{{\\text{{{}}}}}$", "<answer>{}</answer>", "<think>A or D? A!</think>\n{}",
    "{}. Some words that follow", "({}) some words that follow", "{}) Some words", "{}: some words", "{} - some words",
    "{}\nbecause of the light", "{}, because of the light", "{} because of the light",
    "Answer: {}", "Answer:\n{}", "answer is {}", "The answer is {}.", "The answer is ({}) some words that follow",
    "The correct answer is: {}", "The best option is {}.", "**Answer:** {}", "Answer: **{}**",
    "Option {}", "option ({})", "Choice: {}", "I would choose {}.",
    "I think the answer is {} because of the light.", "So the answer is {}!",
    "It's {}.", "It is {}", "Therefore, {}.", "{} is correct.", "I believe {} is the right answer.",
    "First I look at the men. They run.\n\n{}", "Looking at it, I see them run (as before).\nAnswer: {}.",
    "Option A is wrong. Option B is wrong. The answer is {}.", "The final answer is **({})**",
]  # fmt: skip


@pytest.mark.parametrize("dress", DRESSES)
def test_a_letter_is_found_in_its_dress(dress: str) -> None:
    for letter in "ABCD":
        assert letter_of(dress.format(letter), 4) == letter
        assert letter_of(dress.format(letter), 4, SIGHTS) == letter


@pytest.mark.parametrize(
    "dress", ["{}", "({})", "{}.", "{})", "Answer: {}", "The answer is {}.", "option {}", "**{}**"]
)
def test_a_small_letter_is_one_too(dress: str) -> None:
    assert [letter_of(dress.format(letter), 4) for letter in "abcd"] == list("ABCD")


@pytest.mark.parametrize(
    "text",
    [
        "", "  \n", "?!", "A man is walking", "A dog, and a cat.", "a", "I", "B-2 bomber", "B's", "U.S. flag",
        "e.g. a dog", "D. H. Lawrence", "C.J. is serving", "vitamin C", "the answer is a dog", "The answer is A man",
        "It is a dog", "A or B", "A, B", "A and D", "(A) or (B)", "A/B", "Either A or B.",
        "The answer is A or B.", "none of them",
        "It is not B", "E", "(F)", "Z.", "Dad", "Abcd", "AB", "dB", "Because of it", "I cannot tell.", "C++ code",
        "4 AD", "the answer is A. The answer is B.", "\ud83d\ude00", "A's and B's",
    ],
)  # fmt: skip
def test_no_letter_where_there_is_none_or_more_than_one(text: str) -> None:
    wanted = "A" if text == "a" else None
    assert letter_of(text, 4) == wanted


def test_the_words_of_an_option_name_it() -> None:
    assert letter_of("A map.", 4, SIGHTS) == "B"
    assert letter_of("a weather radar", 4, SIGHTS) == "D"
    assert letter_of("The answer is a map.", 4, SIGHTS) == "B"
    assert letter_of("The answer is B a map", 4, SIGHTS) == "B"
    assert letter_of("A compass", 4, SIGHTS) == "A"
    assert letter_of("It is an altitude meter", 4, SIGHTS) == "C"
    assert letter_of("5", 4, ("4", "5", "15", "50")) == "B"
    assert letter_of("five", 4, ("4", "5", "15", "50")) == "B"
    assert letter_of("A. Smith", 2, ("B. Jones", "A. Smith")) == "B"
    assert letter_of("map", 3, ("A map", "the map", "a dog")) is None, "two options have these words"
    assert letter_of("a map and a compass", 4, SIGHTS) is None
    assert letter_of("A. A map.", 4, SIGHTS) is None, "the letter of one and the words of another"


@given(st.lists(st.sampled_from(ENGLISH), min_size=2, max_size=12), st.integers(2, 26))
def test_never_a_letter_out_of_english_words(words: list[str], num_options: int) -> None:
    if words[-1] in ("a", "A", "I"):
        words = [*words, "cat"]
    # A is no article before "because" and "as".
    assume(not (words[0] == "A" and words[1] in ("because", "as")))
    for end in ("", ".", "!", ", they say."):
        assert letter_of(" ".join(words) + end, num_options) is None
