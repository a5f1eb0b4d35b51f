"""EpisodeSource: one camera of one episode of a LeRobot dataset on disk, with its rows of state and action."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path

from .decoding import MAX_PIXELS
from .lerobot_meta import ACTION, STATE, Layout, find_episode, read_layout, read_rows
from .robot_log import RobotFrame, RobotLogSource, RowTimeline, log_address
from .sampling import EveryFrame, Sampler
from .source import SourceError
from .video_file import FileSource, Instant, clock_of

_log = logging.getLogger(__name__)

# Shapes: N rows, D numbers of a row.

_SETTINGS = {"episode": "its number, from 0", "camera": "the name of a camera, such as observation.images.top"}
_SLACK_STEPS = 0.1  # of a frame: how far two clocks of one dataset may round apart
_WORTH_SEEKING_S = 2.0


class EpisodeSource(RobotLogSource):
    """An episode of a LeRobot dataset: folder/, lerobot://folder?episode=3&camera=observation.images.top.

    Reads the layouts v2.0, v2.1 and v3.x (tables and MP4) with no LeRobot installed. Times are seconds from the
    episode's first frame, so cameras of one episode share a clock. Where the video is damaged, the frame after has
    `gap_s` above 0.

    episode: its number, from 0, which is the default.
    camera: may be left out where there is one.
    max_pixels: a larger picture is refused before it is decoded.
    tasks: what the robot was told to do, in words.
    """

    def __init__(
        self,
        uri: str | os.PathLike[str],
        *,
        stream_id: str | None = None,
        episode: int | None = None,
        camera: str | None = None,
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        address = log_address(os.fspath(uri), "lerobot", _SETTINGS)
        self.folder = address.path
        self.layout = read_layout(self.folder)
        self.episode = _whole(address.settings.get("episode", "0")) if episode is None else episode
        if self.episode < 0:
            raise SourceError(f"episodes are counted from 0; got {self.episode}")
        self.camera = _choose_camera(self.layout, camera or address.settings.get("camera"))
        name = Path(os.path.abspath(self.folder)).name
        super().__init__(str(self.folder), stream_id=stream_id or f"{name}/{self.episode}/{self.camera}")
        self._place = find_episode(self.layout, self.episode, self.camera)
        self.tasks = self._place.tasks
        table = read_rows(self.layout, self._place, self.episode)
        self._num_rows = len(table.times_s)
        first_s = table.times_s[0]
        times_s = [time_s - first_s for time_s in table.times_s]
        self._rows = {
            kind: RowTimeline(times_s, values_ND, self.layout.names(feature, values_ND.shape[1]))
            for kind, feature, values_ND in (("state", STATE, table.state_ND), ("action", ACTION, table.action_ND))
            if values_ND is not None
        }
        self.state_names, self.action_names = (
            self._rows[kind].names if kind in self._rows else () for kind in ("state", "action")
        )
        self.duration_s = times_s[-1] + self._step_s
        self._video = FileSource(self._place.video, stream_id=self.stream_id, max_pixels=max_pixels)

    @property
    def _step_s(self) -> float:
        return 1.0 / self.layout.rate_hz

    def __iter__(self) -> Iterator[RobotFrame]:
        return self.sampled(EveryFrame())

    def sampled(self, sampler: Sampler) -> Iterator[RobotFrame]:
        """The frames that are due; the others are decoded, as they must be, but never converted to RGB."""
        self.check_open()
        return self._frames(sampler)

    def _frames(self, sampler: Sampler) -> Iterator[RobotFrame]:
        run = sampler.start()
        step_s, last_s, gap_s, index = self._step_s, -self._step_s, 0.0, -1
        for index, instant in enumerate(self._instants()):
            if self.is_closed:
                return
            pts_s = instant.pts_s
            self.stats.num_frames += 1
            if pts_s - last_s > 1.5 * step_s:
                gap_s += self._count_gap(pts_s - last_s - step_s, pts_s)
            last_s = pts_s
            if not run.take(pts_s):
                continue
            rows = {kind: timeline.at(pts_s, _SLACK_STEPS * step_s) for kind, timeline in self._rows.items()}
            frame = self._video.to_frame(instant)
            yield RobotFrame(frame.rgb_HW3, pts_s, self.stream_id, index, None, None, gap_s, **rows)
            gap_s = 0.0
        self._tell_the_end(last_s, index + 1)

    def _instants(self) -> Iterator[Instant]:
        """The episode's pictures, at their times in the episode."""
        from_s, half_s = self._place.from_s, 0.5 * self._step_s
        until_s = from_s + (self.duration_s or 0.0)  # what has no rows is not of this episode
        if self._place.until_s is not None:
            until_s = min(until_s, self._place.until_s)
        num_before = self._video.stats.num_damaged
        for instant in self._from(from_s - half_s):
            self.stats.num_damaged += self._video.stats.num_damaged - num_before
            num_before = self._video.stats.num_damaged
            if instant.pts_s < from_s - half_s:
                continue
            if instant.pts_s >= until_s - half_s:
                return
            pts_s = instant.pts_s - from_s
            yield instant._replace(pts_s=pts_s if pts_s > 1e-6 else 0.0)

    def _from(self, time_s: float) -> Iterator[Instant]:
        """The video's pictures from there on, and some from before; all of them where it cannot be sought in."""
        if time_s > _WORTH_SEEKING_S:
            with self._video.opened() as video:
                if video.start_time is not None and video.time_base is not None:
                    clock = clock_of(video)
                    video.container.seek(clock.ticks(time_s), stream=video)  # type: ignore[union-attr]
                    instants = self._video.instants_from_here(video, clock)
                    first = next(instants, None)
                    if first is not None and first.pts_s <= time_s:
                        yield first
                        yield from instants
                        return
        with self._video.opened() as video:
            yield from self._video.instants_from_here(video)

    def _count_gap(self, gap_s: float, at_s: float) -> float:
        """Pictures are missing: those that did not decode, or were never there."""
        self.stats.num_gaps += 1
        self.stats.gap_s += gap_s
        _log.warning("%s: %.3f s without a picture before %.3f s of episode %d",
                     self.uri, gap_s, at_s, self.episode)  # fmt: skip
        return gap_s

    def _tell_the_end(self, last_s: float, num_frames: int) -> None:
        """Called once all has been read: rows without pictures are told."""
        if not num_frames:
            raise SourceError(
                f"episode {self.episode} of {self.uri} has {self._num_rows} rows and no picture of {self.camera} that "
                f"can be decoded; is {self._place.video} damaged?"
            )
        assert self.duration_s is not None
        missing_s = self.duration_s - self._step_s - last_s
        if missing_s > 0.5 * self._step_s:
            self._count_gap(missing_s, self.duration_s)

    def close(self) -> None:
        super().close()
        self._video.close()


def _whole(words: str) -> int:
    if not words.isascii() or not words.isdigit() or len(words) > 9:
        raise SourceError(f"an episode is a whole number from 0; got {words[:40]!r}")
    return int(words)


def _choose_camera(layout: Layout, wanted: str | None) -> str:
    cameras = layout.cameras
    if wanted in layout.stored_as_pictures:
        raise SourceError(
            f"{layout.folder} keeps {wanted} as pictures in its tables and has no video of it; "
            "convert the dataset to video with LeRobot"
        )
    if not cameras:
        there = ", ".join(sorted(layout.features)) or "none"
        raise SourceError(f"{layout.folder} has no video: none of its features is one ({there[:300]})")
    if wanted is None and len(cameras) > 1:
        raise SourceError(f"{layout.folder} has several cameras: {', '.join(cameras)}; choose one with camera=...")
    camera = wanted or cameras[0]
    if camera not in cameras:
        raise SourceError(f"{layout.folder} has no camera {camera!r}; it has: {', '.join(cameras)}")
    facts = layout.features[camera].get("info") or layout.features[camera].get("video_info") or {}
    if isinstance(facts, dict) and (facts.get("video.is_depth_map") or facts.get("is_depth_map")):
        raise SourceError(f"{camera} of {layout.folder} is depth, no picture; choose another camera")
    return camera
