"""Where a session's records lie on a Redis server, what they cost there, and what is found there."""

from __future__ import annotations

import re
from functools import partial
from typing import Any, NamedTuple
from urllib.parse import quote
from zlib import crc32

from .base import KINDS, MAX_NUMBER, DepotError, Kind
from .record import HEADER_BYTES, PUT, read_header
from .redis_link import RedisLink, answers

MAX_SESSION_CHARS = 100
_NUMBER = re.compile(rb"0|[1-9]\d{0,18}", re.ASCII)
_BATCH = 1000
_SMALL_BYTES = 64 * 2**10  # what comes with the header, so that a small record takes one round trip
# One long answer is read much faster than many short ones. Members that are no numbers come by themselves.
_MEMBERS = """
local pairs = redis.call('zrange', KEYS[1], 0, ARGV[1], 'WITHSCORES')
local good, strange = {}, {}
for i = 1, #pairs, 2 do
    local member, size = pairs[i], pairs[i + 1]
    if #member < 20 and #size < 17 and string.find(member, '^%d+$') and string.find(size, '^%d+$') then
        good[#good + 1] = member .. ' ' .. size
    else
        strange[#strange + 1] = member
    end
end
return {#pairs / 2, table.concat(good, ' '), strange}
"""
_LENGTHS = """
local lengths = {}
for i, key in ipairs(KEYS) do
    local length = redis.pcall('strlen', key)
    lengths[i] = type(length) == 'number' and length or 0
end
return lengths
"""
# Beside the value: names, entries of the tables of keys and of expiry times, the number in the sorted set.
_ENTRY_BYTES = 288


class Keys:
    """The names of all keys of one session. What a user calls it cannot name another's keys, or a pattern.

    session: 1 to 100 characters; all but letters, digits and _.-~ are percent-encoded.
    """

    def __init__(self, session: str) -> None:
        if not isinstance(session, str) or not 0 < len(session) <= MAX_SESSION_CHARS:
            raise ValueError(f"a session's name has 1 to {MAX_SESSION_CHARS} characters; got {session!r:.120}")
        try:
            self.prefix = f"millpond:{quote(session, safe='')}:"
        except UnicodeEncodeError:
            raise ValueError(f"a session's name is text that can be encoded; got {session!r}") from None
        self.session = session
        self.lease = f"{self.prefix}lease"
        self.mark = f"{self.prefix}writer"
        self._salts = {kind: crc32(self.records(kind).encode()) for kind in KINDS}

    def value(self, kind: Kind, number: int) -> str:
        return f"{self.prefix}{kind}:{number}"

    def records(self, kind: Kind) -> str:
        """The sorted set of numbers; a number's score is the bytes of its value."""
        return f"{self.prefix}{kind}"

    def salt(self, kind: Kind) -> int:
        """What ties a record to this session and kind: copied elsewhere it does not pass."""
        return self._salts[kind]


def resting_bytes(value_bytes: int) -> int:
    """Memory that a value of so many bytes takes on the server, its entries in the tables included.

    The allocator rounds up to one of four steps for each doubling.
    """
    whole = value_bytes + 32  # the object, and the string's own header
    step = max(16, 1 << max(0, whole.bit_length() - 3))
    return -(-whole // step) * step + _ENTRY_BYTES


class Found(NamedTuple):
    """A payload, or what is wrong: "" where there is simply nothing."""

    payload: bytes | None
    problem: str = ""


def fetch(link: RedisLink, keys: Keys, kind: Kind, number: int, max_bytes: int) -> Found:
    """The record as it lies there. Its length and header are checked before the payload is asked for.

    No MULTI: a server that is out of memory refuses even reads in one. Each GETRANGE is of one moment anyway.
    """
    key, salt, most_bytes = keys.value(kind, number), keys.salt(kind), HEADER_BYTES + max_bytes

    def ask(client: Any) -> list[Any]:
        pipe = client.pipeline(transaction=False)
        pipe.strlen(key)
        pipe.getrange(key, 0, _SMALL_BYTES - 1)
        return answers(pipe)

    try:
        value_bytes, data = link.call(ask)
        if not isinstance(value_bytes, int) or not isinstance(data, bytes):
            raise link.strange()
        if value_bytes > most_bytes:
            return Found(None, f"it has {value_bytes} bytes, more than {max_bytes} of payload")
        if len(data) == _SMALL_BYTES and read_header(data, salt=salt) is not None:
            data = link.call(lambda client: client.getrange(key, 0, most_bytes))
            if not isinstance(data, bytes):
                raise link.strange()
    except DepotError as error:
        if "WRONGTYPE" in str(error):
            return Found(None, "it is not a string")
        raise
    if not data:
        return Found(None)
    header = read_header(data, salt=salt)
    if header is None or header.does != PUT or header.number != number:
        return Found(None, "it has no header of ours")
    if header.payload_bytes != len(data) - HEADER_BYTES:
        return Found(None, f"its header says {header.payload_bytes} bytes, {len(data) - HEADER_BYTES} are there")
    payload = memoryview(data)[HEADER_BYTES:]
    if crc32(payload) != header.payload_crc:
        return Found(None, "its checksum is wrong")
    return Found(bytes(payload))


class Survey(NamedTuple):
    """What the server holds of one kind."""

    held: dict[int, int]  # number -> bytes of its value, which is there
    recorded: dict[int, int]  # number -> bytes, as the sorted set has them
    strangers: list[bytes]  # members of the set that are no numbers, or have no size

    @property
    def vanished(self) -> list[int]:
        return [number for number in self.recorded if number not in self.held]


def members(link: RedisLink, keys: Keys, kind: Kind, max_records: int) -> Survey:
    """The sorted set as it is; `held` stays empty. DepotError where it is longer than any of ours."""
    # One more than there may be tells whether there are too many.
    answer = link.call(lambda client: client.eval(_MEMBERS, 1, keys.records(kind), max_records))
    match answer:
        case [int() as num_records, bytes() as joined, list() as strangers]:
            pass
        case _:
            raise link.strange()
    if num_records > max_records:
        raise DepotError(
            f"{link.where} has more than {max_records} numbers in {keys.records(kind)!r}; "
            "see who wrote them, or use another session name"
        )
    found = Survey({}, {}, strangers)
    words = joined.split()
    for member, size in zip(words[::2], words[1::2], strict=False):
        if _NUMBER.fullmatch(member) and int(member) <= MAX_NUMBER:
            found.recorded[int(member)] = int(size)
        else:
            found.strangers.append(member)
    return found


def survey(link: RedisLink, keys: Keys, kind: Kind, max_records: int) -> Survey:
    """The sorted set, and which of its values are there."""
    found = members(link, keys, kind, max_records)
    numbers = list(found.recorded)
    for first in range(0, len(numbers), _BATCH):
        some = numbers[first : first + _BATCH]
        lengths: Any = link.call(partial(_lengths, [keys.value(kind, number) for number in some]))
        if not isinstance(lengths, list) or len(lengths) != len(some):
            raise link.strange()
        for number, num_bytes in zip(some, lengths, strict=True):
            if isinstance(num_bytes, int) and num_bytes > 0:
                found.held[number] = num_bytes
    return found


def _lengths(names: list[str], client: Any) -> Any:
    return client.eval(_LENGTHS, len(names), *names)
