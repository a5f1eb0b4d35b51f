"""Settings as JSON: whatever is chosen by name can be written down, and told apart."""

from __future__ import annotations

import json

import pytest

from millpond.encoders.compressors import COMPRESSORS
from millpond.encoders.reuse import REUSERS
from millpond.memory import MemoryConfig
from millpond.memory.codecs import CODECS
from millpond.memory.evictors import EVICTORS
from millpond.memory.pruners import PRUNERS
from millpond.memory.retrievers import RETRIEVERS
from millpond.pipeline import EngineConfig
from millpond.pipeline.batch.settings import BatchSettings, described, differences, digest
from millpond.stream import GATES

ENGINE = {"compressor": COMPRESSORS, "reuse": REUSERS, "gate": GATES}
MEMORY = {"codec": CODECS, "evictor": EVICTORS, "pruner": PRUNERS, "retriever": RETRIEVERS}
ROWS = [
    *((key, name) for key, table in ENGINE.items() for name in table),
    *((key, name) for key, table in MEMORY.items() for name in table),
]


def config_of(key: str, name: str) -> EngineConfig:
    if key in ENGINE:
        return EngineConfig(**{key: ENGINE[key][name]()})  # type: ignore[arg-type]
    return EngineConfig(memory=MemoryConfig(**{key: MEMORY[key][name]()}))  # type: ignore[arg-type]


@pytest.mark.parametrize(("key", "name"), ROWS)
def test_every_row_of_every_table_is_written_as_json_and_read_back(key: str, name: str) -> None:
    told = described(config_of(key, name), BatchSettings())
    assert json.loads(json.dumps(told, allow_nan=False)) == told
    assert digest(told) == digest(described(config_of(key, name), BatchSettings()))


def test_what_is_set_otherwise_is_said() -> None:
    before = described(EngineConfig(compressor=COMPRESSORS["tome"]()), BatchSettings())
    now = described(EngineConfig(compressor=COMPRESSORS["uniform"]()), BatchSettings())
    assert digest(before) != digest(now) and any(line.startswith("compressor") for line in differences(before, now))
