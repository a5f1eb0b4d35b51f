"""The process in which decord reads one video: a line of JSON in for each request; a line of JSON and bytes out per
picture. The video is indexed once, for the first request.

Started as `python -m millpond.stream.decord_worker`; imports nothing of the caller's. Ends when its input does.
"""

from __future__ import annotations

import json
import sys
from typing import IO, Any

_BATCH_BYTES = 32 << 20


def main() -> int:
    out = sys.stdout.buffer
    reader: Any = None
    for line in sys.stdin.buffer:
        request = json.loads(line)
        try:
            if reader is None:
                reader = _opened(request)
            _serve(reader, request["places"], out)
        except Exception as error:  # noqa: BLE001 - whatever decord throws is an answer, and the parent reads it
            reason = (str(error).strip().splitlines() or [""])[0][:200]
            out.write(json.dumps({"error": f"{type(error).__name__}: {reason}"}).encode() + b"\n")
            out.flush()
            return 1
    return 0


def _opened(request: dict[str, Any]) -> Any:
    import decord

    reader = decord.VideoReader(request["path"], num_threads=request.get("num_threads", 0))
    if len(reader) != request["num_frames"]:
        raise ValueError(f"it counts {len(reader)} pictures, not {request['num_frames']}")
    return reader


def _serve(reader: Any, places: list[int], out: IO[bytes]) -> None:
    begins_s = reader.get_frame_timestamp(places)[:, 0]
    first = reader[places[0]].asnumpy()
    per_batch = max(1, _BATCH_BYTES // first.nbytes)
    for start in range(0, len(places), per_batch):
        for place, rgb in enumerate(reader.get_batch(places[start : start + per_batch]).asnumpy(), start):
            header = {"height": rgb.shape[0], "width": rgb.shape[1], "begin_s": float(begins_s[place])}
            out.write(json.dumps(header).encode() + b"\n")
            out.write(memoryview(rgb).cast("B"))
        out.flush()


if __name__ == "__main__":
    sys.exit(main())
