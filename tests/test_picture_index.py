"""PictureIndex against a plain list, and how little it holds."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from millpond.memory.picture_index import Found, PictureIndex
from millpond.stream import Span

# Shapes: N rows, D channels of a picture's vector.


@settings(max_examples=60)
@given(st.lists(st.tuples(st.booleans(), st.floats(0, 1)), max_size=900), st.integers(0, 2**32))
def test_the_index_agrees_with_a_plain_list(steps: list[tuple[bool, float]], seed: int) -> None:
    made = np.random.default_rng(seed)
    index, plain = PictureIndex(4), {}
    rows = 0
    for _ in range(3):  # hypothesis' lists are short: each is walked through three times
        for adds, where in steps:
            if adds or not plain:
                start_s = float(made.integers(0, 50))
                found = Found(rows, Span(start_s, start_s + float(made.integers(0, 3))), rows // 5)
                unit_D = torch.nn.functional.normalize(torch.from_numpy(made.normal(size=4)).float(), dim=0)
                has_vector = bool(made.integers(0, 4))
                index.add(found, unit_D if has_vector else None, is_first=rows % 5 == 0, num_bytes=rows)
                plain[rows] = (found, unit_D.half().float() if has_vector else None)
                rows += 1
            else:
                number = sorted(plain)[int(where * (len(plain) - 1))]
                del plain[number]
                index.remove(number)
    index.check()
    assert index.numbers == sorted(plain)
    assert index.picture_bytes == sum(plain)
    here = [found for found, _ in plain.values()]
    for span in (Span(0, 60), Span(10, 12), Span(11, 11), Span(48.5, 48.6)):
        overlapping = [found for found in here if found.span.overlaps(span)]
        assert index.between(span) == sorted(overlapping, key=lambda f: (f.span, f.number))
    firsts = [n for n in sorted(plain) if n % 5 == 0]
    others = [n for n in sorted(plain) if n % 5]
    for numbers, among_firsts in ((firsts, True), (others, False)):
        oldest = index.oldest(among_firsts=among_firsts)
        assert (oldest.number if oldest else None) == (numbers[0] if numbers else None)
    vectors = {n: vector_D for n, (_, vector_D) in plain.items() if vector_D is not None}
    query_D = torch.tensor([1.0, 2.0, -1.0, 0.5])
    best = index.best(query_D, 10)
    assert len(best) == min(10, len(vectors))
    if len(vectors) > 3:
        mean_D = torch.stack(list(vectors.values())).double().mean(0).float()
        common_D = mean_D / mean_D.norm()
        rest_D = query_D / query_D.norm() - (query_D / query_D.norm() @ common_D) * common_D
        scores = {n: float((v - mean_D) @ rest_D / (v - mean_D).norm() / rest_D.norm()) for n, v in vectors.items()}
        for found, score in zip(best, sorted(scores.values(), reverse=True), strict=False):
            assert found.score == pytest.approx(scores[found.number], abs=1e-4)
            assert found.score == pytest.approx(score, abs=1e-4)


def test_an_index_that_empties_holds_nothing_and_a_sparse_one_little() -> None:
    index = PictureIndex(8)
    for number in range(256 * 10):
        index.add(Found(number, Span(number, number), number), None, is_first=True)
    for number in range(256 * 10):
        if number % 16:
            index.remove(number)
    index.check()
    assert index.num_rows == 160 and index.num_bytes <= 3 * index.chunk_bytes
    for number in range(0, 256 * 10, 16):
        index.remove(number)
    assert index.num_bytes == 0 and index.nearest(3) is None
    with pytest.raises(KeyError, match="picture 16 is not in this index"):
        index.remove(16)
