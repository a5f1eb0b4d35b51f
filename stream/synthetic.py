"""SyntheticSource: synthetic://shapes, a small world with known answers, painted as it is asked for."""

from __future__ import annotations

import math
from collections.abc import Iterator
from urllib.parse import parse_qsl, urlsplit

from .frame import Frame
from .long_world import MOST_LONG_THINGS, make_long_world
from .render import render
from .sampling import Sampler
from .source import Source, SourceError
from .wide_world import MOST_THINGS, make_wide_world
from .world import World, make_world

_MOST_PLAIN_THINGS = 4
_SETTINGS = {
    # name: (default, least, most)
    "seed": (0, 0, 2**53),
    "duration_s": (16.0, 0.1, 86_400.0),
    "rate_hz": (10.0, 0.01, 120.0),
    "step_s": (1.0, 0.1, 3600.0),
    "objects": (4, 0, MOST_LONG_THINGS),
    "wide": (0, 0, 1),
    "width": (320, 8, 4096),
    "height": (240, 8, 4096),
}


class SyntheticSource(Source):
    """A world of coloured shapes: synthetic://shapes?seed=1&duration_s=16&rate_hz=10&width=320&height=240.

    Also step_s, the grid in seconds that events keep to, objects, how many there are at most (4), and wide=1 for a
    world that is harder to watch, `make_wide_world`, with up to 8 objects; with more, up to 18, they come and go all
    through the stream, `make_long_world`. The same uri gives the same pictures to the last bit. `world` holds the
    truth; `millpond.stream.truth.Witness` says it in words.
    """

    world: World

    def __init__(self, uri: str, *, stream_id: str | None = None) -> None:
        parts = urlsplit(uri)
        if parts.netloc != "shapes" or parts.path not in ("", "/"):
            raise SourceError(
                f"no synthetic world is called {parts.netloc + parts.path!r}; there is: synthetic://shapes"
            )
        settings = _read_settings(parts.query)
        super().__init__(uri, stream_id=stream_id, duration_s=float(settings["duration_s"]))
        self.rate_hz = float(settings["rate_hz"])
        self._width, self._height = int(settings["width"]), int(settings["height"])
        self.world = _make(settings, self._width / self._height)

    def __iter__(self) -> Iterator[Frame]:
        self.check_open()
        return self._paint(None)

    def sampled(self, sampler: Sampler) -> Iterator[Frame]:
        """Only what is due is painted."""
        self.check_open()
        return self._paint(sampler)

    def _paint(self, sampler: Sampler | None) -> Iterator[Frame]:
        assert self.duration_s is not None
        due = sampler.start() if sampler is not None else None
        for index in range(math.ceil(self.duration_s * self.rate_hz - 1e-9)):
            if self.is_closed:
                return
            self.stats.num_frames += 1
            pts_s = index / self.rate_hz
            if due is None or due.take(pts_s):
                picture = render(self.world, [pts_s], width=self._width, height=self._height).rgb_NHW3[0]
                yield Frame(picture, pts_s, self.stream_id, index)


def _make(settings: dict[str, float], aspect: float) -> World:
    most = MOST_LONG_THINGS if settings["wide"] else _MOST_PLAIN_THINGS
    num_objects = int(settings["objects"])
    if num_objects > most:
        raise SourceError(f"objects must be at most {most} where wide={int(settings['wide'])}; got {num_objects}")
    if not settings["wide"]:
        make = make_world
    else:
        make = make_wide_world if num_objects <= MOST_THINGS else make_long_world
    try:
        return make(
            int(settings["seed"]),
            duration_s=float(settings["duration_s"]),
            step_s=float(settings["step_s"]),
            max_things=num_objects,
            aspect=aspect,
        )
    except ValueError as error:
        raise SourceError(str(error)) from error


def _read_settings(query: str) -> dict[str, float]:
    settings: dict[str, float] = {name: default for name, (default, _, _) in _SETTINGS.items()}
    for name, words in parse_qsl(query, keep_blank_values=True):
        if name not in _SETTINGS:
            raise SourceError(f"synthetic://shapes has no setting {name!r}; it has: {', '.join(_SETTINGS)}")
        default, least, most = _SETTINGS[name]
        try:
            value = type(default)(words)
        except ValueError:
            value = math.nan
        if not least <= value <= most:
            kind = "a whole number" if isinstance(default, int) else "a number"
            raise SourceError(f"{name} must be {kind} from {least} to {most}; got {words!r}")
        settings[name] = value
    return settings
