"""After damage a live stream hands out nothing that a decoder made up."""

from __future__ import annotations

import io
from collections.abc import Callable
from fractions import Fraction

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from millpond.stream import SourceStats
from millpond.stream.decoding import DamageGuard
from millpond.stream.lost_pictures import LostPictures

from .clips import H264, numbered_picture

KEY_EVERY, NUM = 12, 60


class Picture:
    """What the guard asks of a decoded picture."""

    def __init__(self, number: int, is_key: bool, is_corrupt: bool) -> None:
        self.number, self.key_frame, self.is_corrupt = number, is_key, is_corrupt


class Packet:
    """One picture, or one that the decoder refuses."""

    def __init__(self, picture: Picture | None, is_corrupt: bool = False) -> None:
        self.picture, self.is_corrupt = picture, is_corrupt

    def decode(self) -> list[Picture]:
        if self.picture is None:
            raise av.error.InvalidDataError(1, "no picture")
        return [self.picture]


KINDS = {
    "good": lambda n: Packet(Picture(n, False, False)),
    "key": lambda n: Packet(Picture(n, True, False)),
    "bad": lambda n: Packet(Picture(n, False, True)),
    "bad key": lambda n: Packet(Picture(n, True, True)),
    "refused": lambda n: Packet(None),
    "torn": lambda n: Packet(Picture(n, False, False), is_corrupt=True),
}


def shown(kinds: list[str], max_skip_s: float, step_s: float = 1.0, stats: SourceStats | None = None) -> list[int]:
    guard = DamageGuard(stats or SourceStats(), max_skip_s)
    numbers = []
    for number, kind in enumerate(kinds):
        pictures = guard.decode(KINDS[kind](number), number * step_s)  # type: ignore[arg-type]
        numbers += [picture.number for picture in pictures]  # type: ignore[attr-defined]
    return numbers


@pytest.mark.parametrize(
    ("kinds", "numbers"),
    [
        (["key", "good", "good"], [0, 1, 2]),
        (["key", "bad", "good", "good", "key", "good"], [0, 4, 5]),
        (["key", "refused", "good", "bad key", "good", "key", "good"], [0, 5, 6]),
        (["key", "torn", "good", "key"], [0, 1, 3]),
    ],
)
def test_what_follows_damage_waits_for_a_whole_key_frame(kinds: list[str], numbers: list[int]) -> None:
    stats = SourceStats()
    assert shown(kinds, 100.0, stats=stats) == numbers
    assert stats.num_damaged == sum(kind in ("bad", "bad key", "refused", "torn") for kind in kinds)
    assert stats.num_skipped == len(kinds) - len(numbers) - kinds.count("refused")


def test_without_key_frames_it_goes_on_after_a_while() -> None:
    assert shown(["key", "bad", *["good"] * 20], 5.0) == [0, *range(6, 22)]
    # And does not wait again before there is one.
    assert shown(["key", *["bad"] * 20], 5.0) == [0, *range(6, 21)]
    assert shown(["key", *["bad"] * 20, "key", "bad", *["good"] * 9], 5.0) == [0, *range(6, 22), *range(27, 32)]


def test_nothing_is_held_back_where_that_is_asked_for() -> None:
    assert shown(["key", "bad", "good", "torn", "good"], 0.0) == [0, 1, 2, 3, 4]


@given(st.lists(st.sampled_from(sorted(KINDS)), max_size=60), st.integers(0, 20))
def test_promises(kinds: list[str], max_skip: int) -> None:
    stats = SourceStats()
    numbers = shown(kinds, float(max_skip), stats=stats)
    num_pictures = sum(kind != "refused" for kind in kinds)
    assert len(numbers) + stats.num_skipped == num_pictures
    assert all(number in numbers for number, kind in enumerate(kinds) if kind == "key")
    # A picture is never kept back for longer than it may: of any max_skip + 1 that follow each other, one is shown.
    run = 0
    for number, kind in enumerate(kinds):
        run = 0 if number in numbers else run + 1
        assert run <= max_skip or kind == "refused" or "refused" in kinds[number - run + 1 : number + 1]


def encoded() -> list[bytes]:
    """The packets of a numbered clip."""
    made = io.BytesIO()
    with av.open(made, "w", format="h264" if H264 == "libx264" else "m4v") as container:
        settings = {"g": str(KEY_EVERY), "bf": "0"}
        if H264 == "libx264":
            settings |= {"preset": "veryfast", "tune": "zerolatency", "sc_threshold": "0", "x264-params": "slices=4"}
        stream = container.add_stream(H264, rate=25, options=settings)
        stream.width, stream.height, stream.pix_fmt = 160, 96, "yuv420p"
        packets = []
        for number in range(NUM):
            picture = av.VideoFrame.from_ndarray(numbered_picture(number), format="rgb24")
            picture.time_base, picture.pts = Fraction(1, 25), number
            packets += [bytes(packet) for packet in stream.encode(picture)]
    return packets


def decoded(packets: list[tuple[int, bytes]], max_skip_s: float) -> tuple[dict[int, np.ndarray], SourceStats]:
    """What is handed out, by number."""
    context = av.CodecContext.create("h264" if H264 == "libx264" else "mpeg4", "r")
    context.thread_count = 1
    stats = SourceStats()
    guard, lost = DamageGuard(stats, max_skip_s), LostPictures(context.name)

    class Sent(Packet):
        def __init__(self, number: int, data: bytes) -> None:
            super().__init__(None)
            self.packet = av.Packet(data)
            self.packet.pts = number

        def decode(self) -> list[av.VideoFrame]:  # type: ignore[override]
            return context.decode(self.packet)  # type: ignore[return-value]

    pictures: dict[int, np.ndarray] = {}
    for number, data in packets:
        sent = Sent(number, data)
        is_after_loss = lost.notice(sent.packet)
        for picture in guard.decode(sent, number / 25, is_after_loss=is_after_loss):  # type: ignore[arg-type]
            assert picture.pts is not None
            pictures[picture.pts] = picture.to_ndarray(format="rgb24")
    return pictures, stats


def torn(data: bytes) -> bytes:
    """Without its last slices, as after a lost packet."""
    return data[: len(data) // 2]


def scratched(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes(255 - byte for byte in data[middle : middle + 20]) + data[middle + 20 :]


@pytest.mark.skipif(H264 != "libx264", reason="this FFmpeg has no encoder for H.264")
@pytest.mark.parametrize("harm", [torn, scratched, lambda data: None], ids=["torn", "scratched", "lost"])
@pytest.mark.parametrize("where", [16, 32, 40])
def test_what_a_real_decoder_makes_up_is_not_handed_out(harm: Callable[[bytes], bytes | None], where: int) -> None:
    packets = list(enumerate(encoded()))
    clean, _ = decoded(packets, 100.0)
    hurt = [(number, harm(data) if number == where else data) for number, data in packets]
    got, stats = decoded([(number, data) for number, data in hurt if data is not None], 100.0)
    assert stats.num_damaged >= 1
    wrong = [number for number, rgb in got.items() if not np.array_equal(rgb, clean[number])]
    assert not wrong, f"made up: {wrong}"
    following_key = -(-(where + 1) // KEY_EVERY) * KEY_EVERY
    assert set(got) >= set(range(where)) | set(range(following_key, NUM))
