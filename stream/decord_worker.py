"""The process in which decord runs: a line of JSON in; a line of JSON and bytes out per picture.

Started by random_access.py as `python -m millpond.stream.decord_worker`; imports nothing of the caller's.
"""

from __future__ import annotations

import json
import sys
from typing import IO, Any

_BATCH_BYTES = 64 << 20


def main() -> int:
    out = sys.stdout.buffer
    request = json.loads(sys.stdin.buffer.readline())
    try:
        _serve(request, out)
    except Exception as error:  # noqa: BLE001 - whatever decord throws is an answer, and the parent reads it
        reason = (str(error).strip().splitlines() or [""])[0][:200]
        out.write(json.dumps({"error": f"{type(error).__name__}: {reason}"}).encode() + b"\n")
        out.flush()
        return 1
    return 0


def _serve(request: dict[str, Any], out: IO[bytes]) -> None:
    import decord

    reader = decord.VideoReader(request["path"], num_threads=0)
    if len(reader) != request["num_frames"]:
        raise ValueError(f"it counts {len(reader)} pictures, not {request['num_frames']}")
    places: list[int] = request["places"]
    begins_s = reader.get_frame_timestamp(places)[:, 0]
    first = reader[places[0]].asnumpy()
    per_batch = max(1, _BATCH_BYTES // first.nbytes)
    for start in range(0, len(places), per_batch):
        batch = places[start : start + per_batch]
        for place, rgb in enumerate(reader.get_batch(batch).asnumpy(), start):
            header = {"height": rgb.shape[0], "width": rgb.shape[1], "begin_s": float(begins_s[place])}
            out.write(json.dumps(header).encode() + b"\n")
            out.write(memoryview(rgb).cast("B"))
    out.flush()


if __name__ == "__main__":
    sys.exit(main())
