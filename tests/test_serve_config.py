"""The config file of a server: what it means, and what in it is refused, with the file, the section and the nearest."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from millpond.pipeline.serve import ServeConfig, read_config
from millpond.pipeline.serve.config_file import config_of

WHOLE = """
[server]
host = "127.0.0.2"
port = 9000
token_file = "token"
grace_s = 3

[model]
name = "millpond/mini"
fps = 2.0
reuse = { name = "delta", falls_back = false }

[memory]
at = "kept"
recent_frames = 12

[history]
archive_bytes = 1048576

[narration]
max_gap_s = 5.0

[limits]
num_streams = 3

[urls]
networks = ["192.168.7.0/24"]

[[streams]]
id = "front-door"
source = "rtsp://admin:hunter2word@cam.lan/main"
question = "who is at the door?"
narrate = false
options = { transport = "udp", read_timeout_s = 2.0 }

[[streams]]
id = "yard"
source = "clips/yard.mp4"
as_live = true
memory = "yard-kept"
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "millpond.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_whole_file(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("0123456789abcdef0123\n", encoding="utf-8")
    config = read_config(written(tmp_path, WHOLE), environment={})
    assert (config.server.host, config.server.port, config.server.grace_s) == ("127.0.0.2", 9000, 3)
    assert config.server.token is not None and config.server.token.reveal() == b"0123456789abcdef0123"
    assert (config.engine.model, config.engine.fps, config.engine.narration.max_gap_s) == ("millpond/mini", 2.0, 5.0)
    assert config.engine.memory is not None and config.engine.memory.recent_frames == 12
    assert config.engine.history.archive_bytes == 1048576 and config.memory_at == str(tmp_path / "kept")
    door, yard = config.streams
    assert (door.id, door.question, door.narrate, dict(door.options)["transport"]) == (
        "front-door",
        "who is at the door?",
        False,
        "udp",
    )
    assert door.source == "rtsp://admin:hunter2word@cam.lan/main"  # an address stays as it is
    assert (yard.source, yard.memory, yard.as_live) == (
        str(tmp_path / "clips/yard.mp4"),
        str(tmp_path / "yard-kept"),
        True,
    )
    assert config.limits.num_streams == 3 and config.urls.networks == ("192.168.7.0/24",)


def test_nothing_at_all_is_a_server_on_this_machine_alone(tmp_path: Path) -> None:
    config = read_config(written(tmp_path, ""), environment={})
    assert config == ServeConfig() and config.server.host == "127.0.0.1" and config.server.token is None


def test_no_secret_is_shown(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("0123456789abcdef0123", encoding="utf-8")
    config = read_config(written(tmp_path, WHOLE), environment={})
    shown = repr(config) + str(config)
    assert "hunter2" not in shown and "0123456789abcdef" not in shown


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[serve]", r"no section \[serve\]; did you mean \[server\]"),
        ("port = 1", r"no section \[port\]; there are: server"),
        ("[server]\nprot = 1", r"no setting 'prot' in \[server\]; did you mean 'port'"),
        ("[server]\nport = 'x'", r"'port' in \[server\] must be int; got 'x'"),
        ("[server]\nport = 70000", "port is a whole number"),
        ("[server]\ntoken = 'short'", "16 bytes or more"),
        ("[server]\ntoken = 'with spaces in it, and long enough'", "without spaces"),
        ("[server]\ntoken_file = 'nowhere'", "token_file .* cannot be read"),
        ("[server]\ntoken = '0123456789abcdef'\ntoken_file = 'x'", "one place"),
        ("[model]\nnam = 'x'", r"no setting 'nam' in \[model\]; did you mean 'name'"),
        ("[model]\nmodel = 'x'", r"no setting 'model' in \[model\]"),
        ("[model]\nselector = 'uniform'", r"no setting 'selector' in \[model\]"),
        ("[model]\ntrust_remote_code = true", "no setting 'trust_remote_code'"),
        ("[memory]\nat = 1", r"'at' in \[memory\]"),
        ("[memory]\nrecent_frame = 1", r"no setting 'recent_frame' in \[memory\]; did you mean 'recent_frames'"),
        ("[history]\nlog_byte = 1", r"no setting 'log_byte' in \[history\]; did you mean 'log_bytes'"),
        ("[limits]\nnum_stream = 1", r"no setting 'num_stream' in \[limits\]; did you mean 'num_streams'"),
        ("[urls]\nschemes = ['gopher']", "no scheme named 'gopher'"),
        ("[streams]\nid = 'x'", r"written as tables, \[\[streams\]\]"),
        ("[[streams]]\nid = 'x'", "settings are missing in .streams, number 1.: got id; add source"),
        ("[[streams]]\nid = 'x'\nsource = 'synthetic://shapes'\nsorce = 'y'", "did you mean 'source'"),
        ("[[streams]]\nid = 'a/b'\nsource = 'synthetic://shapes'", "leave out slashes"),
        ("[[streams]]\nid = 'x'\nsource = 'gopher://x'", "no source reads gopher"),
        ("[[streams]]\nid = 'x'\nsource = 's.mp4'\n[[streams]]\nid = 'x'\nsource = 't.mp4'", "two streams have the id"),
        ("[[alerts]]\nid = 'a'\nstream = 'x'\nsay = 'y'", "did you mean 'says'"),
        ("x = ", "is not TOML"),
        ("\x00", "is not TOML"),
    ],
)  # fmt: skip
def test_what_does_not_belong_is_told_with_its_file(tmp_path: Path, text: str, said: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(ValueError, match=said) as told:
        read_config(path, environment={})
    assert str(path) in str(told.value) and "\n" not in str(told.value).strip()


def test_a_file_that_is_not_there_or_no_config_is_told(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"cannot be read: No such file"):
        read_config(tmp_path / "none.toml")
    big = tmp_path / "big.toml"
    big.write_bytes(b"#" * (1 << 20) + b"#")
    with pytest.raises(ValueError, match="more than 1048576 bytes"):
        read_config(big)


def test_the_token_may_come_from_the_environment_and_the_file_goes_before_it(tmp_path: Path) -> None:
    environment = {"MILLPOND_TOKEN": "from-the-environment"}
    config = read_config(written(tmp_path, ""), environment=environment)
    assert config.server.token is not None and config.server.token.reveal() == b"from-the-environment"
    config = read_config(written(tmp_path, "[server]\ntoken = 'from-the-file-itself'"), environment=environment)
    assert config.server.token is not None and config.server.token.reveal() == b"from-the-file-itself"


def test_a_token_that_is_refused_is_not_repeated(tmp_path: Path) -> None:
    with pytest.raises(ValueError) as told:
        read_config(written(tmp_path, "[server]\ntoken = 'hunter2 hunter2 hunter2'"), environment={})
    assert "hunter2" not in str(told.value)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
SECTIONS = st.sampled_from(
    ["server", "streams", "model", "memory", "history", "narration", "limits", "urls", "alerts", "x"]
)
KEYS = st.sampled_from(["id", "source", "host", "port", "name", "at", "fps", "num_streams", "hosts", "token", "says"])


@settings(max_examples=50)
@given(
    st.dictionaries(
        SECTIONS, VALUES | st.dictionaries(KEYS, VALUES) | st.lists(st.dictionaries(KEYS, VALUES)), max_size=3
    )
)
def test_whatever_a_file_says_is_a_config_or_a_sentence(given_tables: dict[str, object]) -> None:
    try:
        assert isinstance(config_of(given_tables, environment={}), ServeConfig)
    except ValueError as error:
        assert str(error).strip()
