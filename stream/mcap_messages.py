"""What the messages of a robot's MCAP log hold: pictures, and rows of numbers. Messages are hostile until checked."""

from __future__ import annotations

import base64
import io
import json
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from .jpeg import decode_jpeg
from .robot_log import MAX_NUMBERS
from .source import SourceError

if TYPE_CHECKING:
    from mcap.records import Channel, Schema

# Shapes: H rows of pixels, W columns, 3 colours, D numbers of a row.

_COMPRESSED, _RAW = "sensor_msgs/msg/CompressedImage", "sensor_msgs/msg/Image"
_JOINTS = "sensor_msgs/msg/JointState"
_FOXGLOVE = "foxglove.CompressedImage"
_ARRAYS = ("std_msgs/msg/Float64MultiArray", "std_msgs/msg/Float32MultiArray")
_PICTURES = (_COMPRESSED, _RAW, _FOXGLOVE)
_ROWS = (_JOINTS, *_ARRAYS)

# encoding: how many bytes a pixel has, and which of them are red, green and blue
_ENCODINGS: dict[str, tuple[int, list[int]]] = {
    "rgb8": (3, [0, 1, 2]),
    "bgr8": (3, [2, 1, 0]),
    "rgba8": (4, [0, 1, 2]),
    "bgra8": (4, [2, 1, 0]),
    "mono8": (1, [0, 0, 0]),
}
_PNG, _JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"
_PLAIN_MODES = ("1", "L", "LA", "P", "RGB", "RGBA")
_MAX_ROW_BYTES = 2**20  # far more than MAX_NUMBERS with their names take
# A description comes from the file: an array of messages makes a few hundred bytes of memory of each byte of it.
_ARRAYS_OF = re.compile(rb"^[ \t]*([\w/]+)\[", re.MULTILINE)
_PLAIN_TYPE = re.compile(rb"bool|byte|char|float(32|64)|u?int(8|16|32|64)|w?string|(.*/)?MultiArrayDimension")


class DamagedMessage(ValueError):
    """This message cannot be read; others of its topic may be."""


class Picture(NamedTuple):
    """What a camera's message shows, and what its own clock said in seconds; None where that was not set."""

    rgb_HW3: np.ndarray
    stamp_s: float | None


class Numbers(NamedTuple):
    """What a robot's message tells."""

    values_D: np.ndarray
    names: tuple[str, ...]


def shows_pictures(schema: Schema | None) -> bool:
    """Whether its messages are pictures, in whatever encoding."""
    return schema is not None and schema.name in _PICTURES


def tells_rows(schema: Schema | None) -> bool:
    """Whether its messages are rows of numbers."""
    return schema is not None and schema.name in _ROWS


def is_joints(schema: Schema | None) -> bool:
    """Whether its messages tell where joints are."""
    return schema is not None and schema.name == _JOINTS


class MessageReader:
    """Reads messages of one file; keeps a decoder for each schema. Not thread-safe: one for each reading.

    max_pixels: a larger picture is damaged.
    """

    def __init__(self, max_pixels: int) -> None:
        from mcap_ros2.decoder import DecoderFactory

        self._max_pixels = max_pixels
        self._factory = DecoderFactory()
        self._decoders: dict[int, Callable[[bytes], Any]] = {}

    def check(self, channel: Channel, schema: Schema | None) -> None:
        """SourceError for a channel whose messages are written in a way that is not read here."""
        wanted = "json" if schema is not None and schema.name == _FOXGLOVE else "cdr"
        if channel.message_encoding != wanted:
            name = "nothing" if schema is None else schema.name
            raise SourceError(
                f"topic {channel.topic} holds {name} written as {channel.message_encoding!r}; of that kind only "
                f"{wanted!r} is read"
            )

    def picture(self, channel: Channel, schema: Schema, data: bytes) -> Picture:
        """Raises DamagedMessage, and SourceError for a kind of picture that is none: depth, Bayer, YUV."""
        if schema.name == _FOXGLOVE:
            return self._of_foxglove(data)
        told = self._decoded(channel, schema, data)
        stamp_s = _seconds(told)
        if schema.name == _COMPRESSED:
            pixels = bytes(_get(told, "data"))
            named = str(_get(told, "format"))
            if "compressedDepth" in named:
                raise SourceError(f"topic {channel.topic} is depth ({named[:60]!r}), no picture; wanted JPEG or PNG")
            return Picture(decode_picture(pixels, self._max_pixels), stamp_s)
        return Picture(self._of_raw(channel, told), stamp_s)

    def row(self, channel: Channel, schema: Schema, data: bytes) -> Numbers:
        """Raises DamagedMessage. Of joints the positions; where none are told, velocities, then efforts."""
        if len(data) > _MAX_ROW_BYTES:
            raise DamagedMessage(f"{len(data)} bytes; wanted at most {_MAX_ROW_BYTES} for a row of numbers")
        told = self._decoded(channel, schema, data)
        if schema.name == _JOINTS:
            kinds = [_get(told, kind) for kind in ("position", "velocity", "effort")]
            values = next((values for values in kinds if len(values)), ())
            names: Sequence[str] = [str(name) for name in _get(told, "name")]
        else:
            values, names = _get(told, "data"), ()
        if not 1 <= len(values) <= MAX_NUMBERS:
            raise DamagedMessage(f"{len(values)} numbers; wanted 1 to {MAX_NUMBERS}")
        if names and len(names) != len(values):
            raise DamagedMessage(f"{len(values)} numbers and {len(names)} names")
        return Numbers(np.asarray(values, np.float64), tuple(names) or tuple(str(n) for n in range(len(values))))

    def _decoded(self, channel: Channel, schema: Schema, data: bytes) -> Any:
        try:
            decode = self._decoders.get(schema.id)
            if decode is None:
                decode = self._factory.decoder_for(channel.message_encoding, schema)
                if decode is None:
                    raise SourceError(f"topic {channel.topic} is described in {schema.encoding!r}; wanted 'ros2msg'")
                _check_description(schema)
                self._decoders[schema.id] = decode
            return decode(data)
        except (SourceError, DamagedMessage):
            raise
        except Exception as error:  # the description of the message comes from the file, and parsing it raises anything
            raise DamagedMessage(_short(error)) from error

    def _of_raw(self, channel: Channel, told: Any) -> np.ndarray:
        height, width, step = (int(_get(told, name)) for name in ("height", "width", "step"))
        encoding, data = str(_get(told, "encoding")), bytes(_get(told, "data"))
        if encoding not in _ENCODINGS:
            raise SourceError(
                f"topic {channel.topic} has pictures in {encoding[:40]!r}, which cannot be shown as they are; wanted "
                f"{', '.join(_ENCODINGS)}"
            )
        num_bytes, colours = _ENCODINGS[encoding]
        if not (height >= 1 and width >= 1 and height * width <= self._max_pixels):
            raise DamagedMessage(f"a picture of {width}x{height} pixels; wanted at most max_pixels={self._max_pixels}")
        if step < width * num_bytes or len(data) < height * step:
            raise DamagedMessage(f"{len(data)} bytes in rows of {step} for {width}x{height} pixels of {encoding}")
        rows = np.frombuffer(data, np.uint8, height * step).reshape(height, step)[:, : width * num_bytes]
        return np.ascontiguousarray(rows.reshape(height, width, num_bytes)[:, :, colours])

    def _of_foxglove(self, data: bytes) -> Picture:
        try:
            told = json.loads(data)
            pixels = base64.b64decode(told["data"], validate=True)
            stamp = told.get("timestamp") or {}
            stamp_s = float(stamp.get("sec", 0)) + 1e-9 * float(stamp.get("nsec", 0))
        except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError) as error:
            raise DamagedMessage(_short(error)) from error
        return Picture(decode_picture(pixels, self._max_pixels), stamp_s or None)


def decode_picture(data: bytes, max_pixels: int) -> np.ndarray:
    """A JPEG or a PNG as uint8 RGB (height, width, 3); DamagedMessage for what is neither, damaged, or too large."""
    try:
        if data.startswith(_JPEG):
            return decode_jpeg(data, max_pixels)
        if data.startswith(_PNG):
            return _decode_png(data, max_pixels)
    except ValueError as error:
        raise DamagedMessage(str(error)) from error
    raise DamagedMessage(f"{len(data)} bytes that begin neither as JPEG nor as PNG")


def _decode_png(data: bytes, max_pixels: int) -> np.ndarray:
    from PIL.PngImagePlugin import PngImageFile

    try:
        with PngImageFile(io.BytesIO(data)) as image:
            if not 1 <= image.width * image.height <= max_pixels:
                raise DamagedMessage(f"a picture of {image.width}x{image.height} pixels; wanted at most {max_pixels}")
            if image.mode not in _PLAIN_MODES:
                raise DamagedMessage(f"a PNG of mode {image.mode!r}; wanted 8 bits a colour")
            return np.array(image.convert("RGB"))
    except DamagedMessage:
        raise
    except (SyntaxError, OSError, ValueError, TypeError, LookupError, ArithmeticError, MemoryError) as error:
        raise DamagedMessage(_short(error)) from error


def _check_description(schema: Schema) -> None:
    """DamagedMessage for what no picture and no row has."""
    for found in _ARRAYS_OF.finditer(schema.data):
        if _PLAIN_TYPE.fullmatch(found[1]) is None:
            kind = found[1][:40].decode("ascii", "replace")
            raise DamagedMessage(f"it is described with an array of {kind}, which no {schema.name} has")


def _get(told: Any, name: str) -> Any:
    try:
        return getattr(told, name)
    except AttributeError as error:
        raise DamagedMessage(f"it has no {name!r}") from error


def _seconds(told: Any) -> float | None:
    """The stamp of a message's header; None where it has none, or was never set."""
    stamp = getattr(getattr(told, "header", None), "stamp", None)
    try:
        return float(stamp.sec) + 1e-9 * float(stamp.nanosec) or None  # type: ignore[union-attr]
    except (AttributeError, TypeError, ValueError):
        return None


def _short(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error)[:120]}"
