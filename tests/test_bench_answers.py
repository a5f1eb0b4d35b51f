"""The benchmarks that count right answers, on a few worlds: their keys, and what must hold of their figures."""

from __future__ import annotations

from typing import Any

import pytest

from millpond.encoders.compressors import COMPRESSORS
from millpond.pipeline import bench_compress, bench_encode, bench_streaming
from millpond.pipeline.bench import BENCHES, Bench
from millpond.pipeline.bench_compress import RECENT_ONLY, CompressBench
from millpond.pipeline.bench_encode import PARTS, EncodeBench
from millpond.pipeline.bench_streaming import METHODS, WORLDS, StreamingBench


@pytest.fixture(scope="module")
def compressed() -> dict[str, Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bench_compress, "NUM_WORLDS", 4)
        patch.setattr(bench_compress, "_PREFILL_SHAPE", "millpond/mini")
        return CompressBench().run(model="default", repeats=1)


def test_compress_tells_of_every_compressor(compressed: dict[str, Any]) -> None:
    rows = {row["name"]: row for row in compressed["compressors"]}
    assert rows.keys() == {*COMPRESSORS, RECENT_ONLY} and compressed["num_worlds"] == 4
    keys = {"name", "settings", "tokens_per_frame", "token_share", "prefill_share", "accuracy", "interval"}
    for row in rows.values():
        assert row.keys() == keys | {"num_questions"} and row["num_questions"] > 60
        low, high = row["interval"]
        assert 0 <= low <= row["accuracy"] <= high <= 1
    assert (rows["none"]["tokens_per_frame"], rows["none"]["token_share"]) == (37.0, 1.0)
    for name in COMPRESSORS:
        if name != "none":
            # A quarter of 36 and the newline; methods with a threshold of their own keep what they keep.
            assert 1 < rows[name]["tokens_per_frame"] < 20 and 0 < rows[name]["token_share"] < 0.6, name
    assert rows["none"]["accuracy"] > rows[RECENT_ONLY]["accuracy"], "there is something to remember"
    table = CompressBench().table(compressed)
    assert all(name in table for name in rows)


def test_streaming_pairs_its_questions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_streaming, "NUM_WORLDS", 8)
    result = StreamingBench().run(model="default", repeats=1)
    table = StreamingBench().table(result)
    for sort in WORLDS:
        rows = {row["name"]: row for row in result["methods"] if row["worlds"] == sort}
        assert rows.keys() == METHODS.keys()
        whole = rows["none"]
        assert (whole["recomputed_share"], whole["num_lost"], whole["num_won"], whole["points"]) == (1.0, 0, 0, 0.0)
        assert rows["stc2"]["recomputed_share"] == pytest.approx((1 + 0.25) / 2, abs=0.01)
        assert rows["delta"]["recomputed_share"] < {"plain": 0.5, "wide": 1.0}[sort]
        for row in rows.values():
            assert row["num_questions"] == whole["num_questions"] > 60
            balance = (row["num_lost"] - row["num_won"]) / row["num_questions"]
            assert row["points"] == pytest.approx(100 * balance)
            assert row["accuracy"] == pytest.approx(whole["accuracy"] - balance)
        assert all(f"\n{sort:7} {name} " in table for name in rows)


def test_encode_is_all_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, str]] = []

    class Part(Bench):
        name = ""

        def run(self, *, model: str, repeats: int, clips: object = None) -> dict[str, Any]:
            asked.append((self.name, model))
            return {self.name + "_rows": repeats, "machine": self.name}

        def table(self, result: dict[str, Any]) -> str:
            return f"table of {self.name}"

    parts = {name: type(name, (Part,), {"name": name}) for name in PARTS}
    monkeypatch.setattr(bench_encode, "BENCHES", parts)
    result = EncodeBench().run(model="b-512", repeats=3)
    assert asked == [("reuse", "b-512"), ("streaming", "default"), ("compress", "default"), ("profile", "b-512")]
    assert all(result[f"{name}_rows"] == 3 and result[name]["machine"] == name for name in PARTS)
    assert EncodeBench().table(result).split("\n\n") == [f"table of {name}" for name in PARTS]
    assert set(PARTS) <= set(BENCHES)
