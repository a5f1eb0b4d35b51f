"""Lost H.264 pictures are noticed, and none that was not lost; whatever the bytes are."""

from __future__ import annotations

import io
from fractions import Fraction

import av
import pytest
from hypothesis import given
from hypothesis import strategies as st

from millpond.stream.lost_pictures import LostPictures

from .clips import H264, numbered_picture

NUM = 40
# How encoders differ in what they write before and into the count.
WAYS = {
    "baseline": {"profile": "baseline", "g": "15", "bf": "0"},
    "high": {"profile": "high", "g": "15", "bf": "0"},
    "b-frames": {"profile": "high", "g": "12", "bf": "2"},
    "slices": {"g": "15", "bf": "0", "x264-params": "slices=4"},
    "matrices": {"g": "15", "bf": "0", "x264-params": "cqm=jvt"},
    "444": {"profile": "high444", "g": "15", "bf": "0"},
    "refresh": {"g": "300", "bf": "0", "x264-params": "intra-refresh=1"},
    "references": {"g": "250", "bf": "0", "refs": "4"},
}

pytestmark = pytest.mark.skipif(H264 != "libx264", reason="this FFmpeg has no encoder for H.264")


def encoded(way: str) -> list[bytes]:
    made = io.BytesIO()
    with av.open(made, "w", format="h264") as container:
        settings = {"preset": "veryfast", "sc_threshold": "0", **WAYS[way]}
        stream = container.add_stream("libx264", rate=25, options=settings)
        stream.width, stream.height = 160, 96
        stream.pix_fmt = "yuv444p" if way == "444" else "yuv420p"
        packets = []
        for number in range(NUM):
            picture = av.VideoFrame.from_ndarray(numbered_picture(number), format="rgb24")
            picture.time_base, picture.pts = Fraction(1, 25), number
            packets += [bytes(packet) for packet in stream.encode(picture)]
        packets += [bytes(packet) for packet in stream.encode(None)]
    return packets


def noticed(packets: list[bytes], extradata: bytes | None = None) -> list[int]:
    lost = LostPictures("h264", extradata)
    return [number for number, data in enumerate(packets) if lost.notice(av.Packet(data))]


def is_referred_to(data: bytes) -> bool:
    return any(unit[0] & 31 in (1, 5) and unit[0] & 0x60 for unit in data.split(b"\x00\x00\x01")[1:])


def is_key(data: bytes) -> bool:
    return any(unit[0] & 31 == 5 for unit in data.split(b"\x00\x00\x01")[1:])


@pytest.mark.parametrize("way", WAYS)
def test_each_loss_is_noticed_at_once_and_nothing_else_is(way: str) -> None:
    packets = encoded(way)
    assert len(packets) == NUM and noticed(packets) == []
    for where in range(1, NUM - 4):
        following = where + 1
        found = noticed(packets[:where] + packets[following:])
        if not is_referred_to(packets[where]):
            assert found == []
        elif is_key(packets[where]):  # what follows it counts on from it, and the one before may have been the same
            assert len(found) <= 1
        elif is_key(packets[following]):
            assert found == []  # and nothing that follows refers to it
        else:
            assert found == [where], way


def test_parameters_may_come_apart_from_the_stream() -> None:
    packets = encoded("high")
    cut = packets[0].index(b"\x00\x00\x01", packets[0].index(b"\x00\x00\x01\x67") + 4)
    parameters, packets[0] = packets[0][:cut], packets[0][cut:]
    assert noticed(packets[:5] + packets[6:14]) == []  # it cannot know
    assert noticed(packets[:5] + packets[6:14], parameters) == [5]


def test_other_codecs_are_left_to_their_decoders() -> None:
    packets = encoded("high")
    lost = LostPictures("hevc")
    assert not any(lost.notice(av.Packet(data)) for data in packets[:5] + packets[9:])


@given(st.lists(st.binary(max_size=80).map(lambda data: b"\x00\x00\x01" + data), max_size=8), st.binary(max_size=60))
def test_bytes_may_be_anything(packets: list[bytes], extradata: bytes) -> None:
    noticed([data or b"\x00" for data in packets], extradata)


@given(st.integers(0, NUM - 1), st.integers(0, 200), st.integers(0, 255))
def test_a_damaged_head_does_no_harm(which: int, at: int, byte: int) -> None:
    packets = list(PLAIN)
    data = bytearray(packets[which])
    data[at % len(data)] = byte
    packets[which] = bytes(data)
    noticed(packets)


PLAIN = encoded("baseline") if H264 == "libx264" else []
