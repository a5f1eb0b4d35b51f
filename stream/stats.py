"""SourceStats: what a source has done so far, in plain counts."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class SourceStats:
    """Made by a source and written by it alone, read by everybody.

    num_frames: frames decoded, those that a sampler left out or a slow reader lost included.
    num_dropped: frames lost because the reader of a live source was slower than the source.
    num_damaged: packets or pictures that did not decode, and pictures that decoded with errors.
    num_retimed: frames whose time was missing or ran backwards, and was set by the source.
    num_skipped: pictures that decoded after damage and were held back until the next key frame.
    num_stalls: times that a live peer kept its connection and sent nothing for `read_timeout_s`.
    num_reconnects: times that a lost peer was found again.
    num_gaps, gap_s: stretches in which nothing could be seen, and how long they were together.
    lag_s: how long the newest frame handed out had waited since it arrived; 0 where nothing arrives by
        itself.
    """

    num_frames: int = 0
    num_dropped: int = 0
    num_damaged: int = 0
    num_retimed: int = 0
    num_skipped: int = 0
    num_stalls: int = 0
    num_reconnects: int = 0
    num_gaps: int = 0
    gap_s: float = 0.0
    lag_s: float = 0.0
