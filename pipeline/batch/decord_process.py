"""The process in which decord reads one video, stretch after stretch: it is indexed once.

Started by pictures.py by its path, so that nothing of the package is imported. A line of JSON in for each stretch; a
line of JSON and bytes out for each picture, as stream/decord_worker.py writes them. Ends when its input does.
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
        try:
            request = json.loads(line)
            if reader is None:
                reader = _open(request)
            _serve(reader, request["places"], out)
        except Exception as error:  # noqa: BLE001 - whatever decord throws is an answer, and the parent reads it
            reason = (str(error).strip().splitlines() or [""])[0][:200]
            out.write(json.dumps({"error": f"{type(error).__name__}: {reason}"}).encode() + b"\n")
            out.flush()
            return 1
    return 0


def _open(request: dict[str, Any]) -> Any:
    import decord  # type: ignore[import-untyped]

    reader = decord.VideoReader(request["path"], num_threads=request["num_threads"])
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
