"""Who may write a session on a Redis server: one at a time, known by a token that every write shows."""

from __future__ import annotations

import logging
import os
import re
import secrets
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple
from weakref import WeakValueDictionary

from .base import DepotError, DepotTaken
from .redis_keys import Keys
from .redis_link import RedisLink

_log = logging.getLogger(__name__)

# Two keys hold the token of the writer. The lease expires soon: while it is there nobody else may begin. The
# writer's mark stays: one who lost the lease to another is refused even after that other has ended its own.
#
#     lease: A        renewed with every write     A writes, B is refused
#     lease: -        A silent for lease_s         A goes on with its next write, or B begins
#     mark:  B        B has begun                  A is refused for good
#
# A token has a turn, which grows after every failure: what was sent before the failure and arrives late shows
# the turn before, and changes nothing.

# KEYS: lease, mark. ARGV: token, lease in ms, expiry in s.
_FENCE = """
local held = redis.call('getrange', KEYS[1], 0, 511)
local mark = redis.call('getrange', KEYS[2], 0, 511)
if held ~= '' and held ~= ARGV[1] then return {'lost', held} end
if mark ~= '' and mark ~= ARGV[1] then return {'lost', mark} end
if held == '' then redis.call('set', KEYS[1], ARGV[1], 'PX', ARGV[2]) else redis.call('pexpire', KEYS[1], ARGV[2]) end
if mark == '' then redis.call('set', KEYS[2], ARGV[1], 'EX', ARGV[3]) else redis.call('expire', KEYS[2], ARGV[3]) end
"""
_SET_BOTH = """
redis.call('set', KEYS[1], ARGV[1], 'PX', ARGV[2])
redis.call('set', KEYS[2], ARGV[1], 'EX', ARGV[3])
return {'ok', 0}
"""

# ARGV[4]: the token of one known to be dead, or ''.
_BEGIN = f"""
local held = redis.call('getrange', KEYS[1], 0, 511)
if held ~= '' and held ~= ARGV[4] then return {{'lost', held}} end
{_SET_BOTH}
"""

# ARGV[4]: what the token begins with, whatever its turn; [5]: this turn.
_NEXT_TURN = f"""
for i = 1, 2 do
    local held = redis.call('getrange', KEYS[i], 0, 511)
    local turn = tonumber(string.match(held, '^%x+|(%d+)|') or '')
    local is_ours = string.sub(held, 1, #ARGV[4]) == ARGV[4] and turn and turn <= tonumber(ARGV[5])
    if held ~= '' and not is_ours then return {{'lost', held}} end
end
{_SET_BOTH}
"""

RENEW = f"{_FENCE} return {{'ok', 0}}"

# KEYS[3]: staged value, [4]: where it goes, [5]: sorted set. ARGV[4]: number, [5]: bytes.
COMMIT = f"""{_FENCE}
if redis.call('exists', KEYS[3]) == 0 then return {{'gone', 0}} end
redis.call('zadd', KEYS[5], ARGV[5], ARGV[4])
redis.call('expire', KEYS[5], ARGV[3])
redis.call('rename', KEYS[3], KEYS[4])
redis.call('expire', KEYS[4], ARGV[3])
return {{'ok', redis.call('zcard', KEYS[5])}}
"""

# KEYS[3]: value, [4]: sorted set. ARGV[4]: number, [5]: 'gone' to let go only of a value that is not there.
LET_GO = f"""{_FENCE}
if ARGV[5] == 'gone' and redis.call('exists', KEYS[3]) == 1 then return {{'ok', 1}} end
redis.call('del', KEYS[3])
redis.call('zrem', KEYS[4], ARGV[4])
return {{'ok', 0}}
"""

_END = """
if redis.call('getrange', KEYS[1], 0, 511) == ARGV[1] then redis.call('del', KEYS[1]) end
return {'ok', 0}
"""

_TOKEN = re.compile(
    r"([0-9a-f]{32})\|\d{1,15}\|([0-9a-f-]{0,64})\|(\d{0,20})\|(\d{1,9})\|(\d{0,20})\|([\w.\-]{1,64})", re.ASCII
)
_mine: WeakValueDictionary[str, Lease] = WeakValueDictionary()  # this process's, by the beginning of the token


class Reply(NamedTuple):
    """What a script did, "ok" or "gone", and how many there are now."""

    state: str
    num_records: int


class Holder(NamedTuple):
    """The process behind a token, as it describes itself."""

    secret: str
    boot: str
    pid_space: str
    pid: int
    started: str
    host: str


def holder_of(token: str) -> Holder | None:
    """Who holds a token read from a server, or None where it is not one of ours."""
    match = _TOKEN.fullmatch(token)
    return None if match is None else Holder(match[1], match[2], match[3], int(match[4]), match[5], match[6])


def is_dead(token: str) -> bool:
    """Whether its process is known to have ended: it was on this machine, and is not there any more."""
    holder = holder_of(token)
    if holder is None or not (holder.boot and holder.pid_space and holder.started):
        return False
    if (holder.boot, holder.pid_space) != (_boot(), _pid_space()):
        return False
    if _started(holder.pid) != holder.started:
        return True
    return holder.pid == os.getpid() and holder.secret not in _mine


class Lease:
    """The right to write one session, and the scripts that show it. Not thread-safe: RedisDepot locks.

    held_s: how long it lasts unless renewed; expire_s: how long its mark does.
    """

    def __init__(self, link: RedisLink, keys: Keys, *, held_s: float, expire_s: int) -> None:
        self._link, self._keys = link, keys
        self._held_s, self._expire_s = held_s, expire_s
        self._secret = secrets.token_hex(16)
        self._turn = 0
        pid = os.getpid()
        host = re.sub(r"[^\w.\-]", "-", socket.gethostname() or "unknown", flags=re.ASCII)[:64]
        self._place = f"{_boot()}|{_pid_space()}|{pid}|{_started(pid)}|{host}"
        self._taken_by = ""
        self._has_begun = False
        _mine[self._secret] = self

    @property
    def staged_key(self) -> str:
        """Where this turn gathers a value."""
        return f"{self._keys.prefix}incoming:{self._secret}:{self._turn}"

    def begin(self) -> None:
        """Takes the lease; DepotTaken where another writer has it and is not known to be dead."""
        self._has_begun = True
        taken_by = self._begun("")
        if is_dead(taken_by):
            _log.info("the writer of %r ended without a word; its lease is taken over", self._keys.prefix)
            taken_by = self._begun(taken_by)
        if taken_by:
            raise DepotTaken(
                f"another process{_where(taken_by)} writes session {self._keys.session!r} at {self._link.where}; "
                f"end it (its lease expires within {self._held_s:g} s), open with read_only, or use another session"
            )

    def next_turn(self) -> None:
        """After a failure: what was sent before it can do nothing any more."""
        self._turn += 1
        self.run(_NEXT_TURN, [], [f"{self._secret}|", self._turn])

    def run(self, script: str, keys: Sequence[str], rest: Sequence[object]) -> Reply:
        """Runs a script that is fenced; DepotTaken where the lease is another's."""
        return self.read(self._link.call(lambda client: self.add_to(client, script, keys, rest)))

    def add_to(self, client: Any, script: str, keys: Sequence[str], rest: Sequence[object]) -> Any:
        """Has a client or a pipeline run a script, which is told first of the lease, and shown the token."""
        if self._taken_by:
            raise DepotTaken(self._taken_by)
        keys = [self._keys.lease, self._keys.mark, *keys]
        token = f"{self._secret}|{self._turn}|{self._place}"
        return client.eval(script, len(keys), *keys, token, int(self._held_s * 1000), self._expire_s, *rest)

    def read(self, answer: object) -> Reply:
        """What a script answered; DepotTaken where it says that the lease is another's."""
        state, said = self._said(answer)
        if state == "lost":
            self._taken_by = (
                f"session {self._keys.session!r} at {self._link.where} has been taken over by another "
                f"process{_where(str(said))}; this one writes there no more: end one of the two"
            )
            _log.warning("%s", self._taken_by)
            raise DepotTaken(self._taken_by)
        if not isinstance(said, int):
            raise self._link.strange()
        return Reply(state, said)

    def end(self) -> None:
        """Gives the lease back, where it is ours and the server is there."""
        try:
            if self._has_begun and not self._taken_by:
                self.run(_END, [], [])
        except DepotError:
            _log.info("%s was away at the end; the lease of %r expires", self._link.where, self._keys.prefix)
        finally:
            _mine.pop(self._secret, None)

    def _begun(self, replacing: str) -> str:
        """Tries to take the lease; whose it is instead, "" where it is ours now."""
        state, said = self._said(self._link.call(lambda client: self.add_to(client, _BEGIN, [], [replacing])))
        return str(said) or "an unknown one" if state == "lost" else ""

    def _said(self, answer: object) -> tuple[str, str | int]:
        match answer:
            case [bytes() as state, bytes() as said]:
                return state.decode("ascii", "replace"), said.decode("ascii", "replace")
            case [bytes() as state, int() as said]:
                return state.decode("ascii", "replace"), said
        raise self._link.strange()


def _where(token: str) -> str:
    holder = holder_of(token)
    return "" if holder is None else f" (pid {holder.pid} on {holder.host})"


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="ascii", errors="replace")
    except OSError:  # not Linux, or the process is gone
        return ""


def _boot() -> str:
    return _read("/proc/sys/kernel/random/boot_id").strip()


def _pid_space() -> str:
    """The inode of the namespace that process ids belong to: containers on one machine have their own."""
    try:
        return str(os.stat("/proc/self/ns/pid").st_ino)
    except OSError:
        return ""


def _started(pid: int) -> str:
    """When a process began, in clock ticks since the machine did: tells it from a later one with its pid."""
    fields = _read(f"/proc/{pid}/stat").rpartition(")")[2].split()
    # state is field 3 of the manual, the start time field 22; a zombie holds nothing any more
    return fields[19] if len(fields) > 19 and fields[0] != "Z" else ""
