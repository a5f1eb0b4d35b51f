"""Connections of slow clients: uvicorn's own HTTP/1.1, with an end to every wait that a client can cause."""

from __future__ import annotations

import asyncio
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from .limits import Limits

_MOST_TOLD = 64  # connections beyond the limit that are answered, with 503


def patient_protocol(limits: Limits) -> type[H11Protocol]:
    """The class of connection to give to uvicorn as `http`: it hangs up on a client whose request has no end to its
    head after `header_s`, also one that has sent nothing yet, and on one that for `send_s` takes nothing of what waits
    for it. uvicorn itself waits for both without limit, and accepts connections without limit.
    """

    class PatientProtocol(H11Protocol):
        _head_timer: asyncio.TimerHandle | None = None
        _send_timer: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            if len(self.connections) > limits.num_connections + _MOST_TOLD:
                transport.abort()  # beyond those that are told so
            else:
                self._await_head()

        def data_received(self, data: bytes) -> None:
            # A timer that runs is not wound up again by a few bytes more.
            if self._head_timer is None and self._is_between_requests():
                self._await_head()
            super().data_received(data)
            if not self._is_between_requests():
                self._head_timer = _stopped(self._head_timer)

        def on_response_complete(self) -> None:
            super().on_response_complete()
            if self.transport.is_closing():
                self._watch_the_rest()
            elif not self._is_between_requests():
                self._head_timer = _stopped(self._head_timer)

        def connection_lost(self, exc: Exception | None) -> None:
            self._head_timer, self._send_timer = _stopped(self._head_timer), _stopped(self._send_timer)
            super().connection_lost(exc)

        def pause_writing(self) -> None:
            super().pause_writing()
            self._watch_the_rest()

        def resume_writing(self) -> None:
            super().resume_writing()
            self._send_timer = _stopped(self._send_timer)

        def _await_head(self) -> None:
            self._head_timer = _stopped(self._head_timer)
            self._head_timer = self.loop.call_later(limits.header_s, self.transport.abort)

        def _watch_the_rest(self) -> None:
            """From now on the client has `send_s` to take some of it; a close waits for that as well."""
            if self._send_timer is None:
                self._send_timer = self.loop.call_later(limits.send_s, self.transport.abort)

        def _is_between_requests(self) -> bool:
            """Whether no head has come since the last answer, or none at all."""
            return self.conn.their_state is h11.IDLE

    return PatientProtocol


def uvicorn_settings(limits: Limits) -> dict[str, Any]:
    """What uvicorn is to be told for the limits to hold; the rest is the server's."""
    return {
        "http": patient_protocol(limits),
        "ws": "none",
        "h11_max_incomplete_event_size": limits.head_bytes,
        "limit_concurrency": limits.num_connections,
        "timeout_keep_alive": max(1, round(limits.idle_s)),
        "server_header": False,
        "proxy_headers": False,
        "date_header": True,
    }


def _stopped(timer: asyncio.TimerHandle | None) -> None:
    if timer is not None:
        timer.cancel()
