"""load_model: the right family for a checkpoint, and one clear sentence for what is none."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from millpond.encoders import FAMILIES, VideoLLM, load_model
from millpond.encoders.load import BUILT_IN
from millpond.stream import Frame

from .tiny_models import TINY_MODELS


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {name: tiny.save(tmp_path_factory.mktemp(name)) for name, tiny in TINY_MODELS.items()}


def broken(folder: Path, tmp_path: Path, file: str, **changes: object) -> Path:
    """A copy of a checkpoint with values of one JSON file changed; a dotted name goes into an object."""
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    content = json.loads((copy / file).read_text())
    for key, value in changes.items():
        *path, last = key.split("__")
        inner = content
        for part in path:
            inner = inner[part]
        inner[last] = value
    (copy / file).write_text(json.dumps(content))
    return copy


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_the_family_is_chosen_by_the_config(folders: dict[str, Path], family: str) -> None:
    model = load_model(folders[family], device="cpu")
    assert isinstance(model, FAMILIES[family])
    assert isinstance(model, VideoLLM)
    assert (model.spec.family, model.spec.name) == (family, str(folders[family]))
    assert model.spec.dtype == torch.float32
    assert load_model(folders[family], device="cpu", dtype="bfloat16").spec.kv.dtype == torch.bfloat16


def test_the_built_in_model_has_its_own_name(folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(BUILT_IN, "millpond/mini", folders["llava_onevision"])
    assert load_model("millpond/mini", device="cpu").spec.name == "millpond/mini"


def test_importing_the_package_imports_no_transformers() -> None:
    code = "import sys, millpond.encoders; print('transformers' in sys.modules, 'torchvision' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.split() == ["False", "False"]


def test_an_unsupported_architecture_names_the_supported_ones(tmp_path: Path) -> None:
    for model_type in ("bert", "no_such_thing", None, ["llava_onevision"]):
        (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type}))
        with pytest.raises(ValueError, match=r"supported architectures are: llava_onevision, qwen2_5_vl.*smolvlm") as e:
            load_model(tmp_path, device="cpu")
        assert str(model_type)[:5] in str(e.value) and "\n" not in str(e.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "cannot be read"),
        ("[1]", "must hold an object"),
        ("\x00\xff", "cannot be read"),
        ("{}", "'None' checkpoint"),
    ],
)
def test_a_damaged_config_is_one_sentence(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "config.json").write_bytes(content.encode("latin-1"))
    with pytest.raises(ValueError, match=message):
        load_model(tmp_path, device="cpu")


def test_a_name_that_leads_nowhere_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # no test asks the network
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    file = tmp_path / "model.safetensors"
    file.write_bytes(b"")
    wanted = {
        str(tmp_path / "nowhere"): "there is no folder .*nowhere'; give the folder",
        "./nowhere": "there is no folder",
        "": "a model needs a name",
        str(tmp_path): "holds no config.json",
        str(file): "is a file; give the folder",
        "no-such-org-here/no-such-model": "and the model hub gave no such",
    }
    for name, message in wanted.items():
        with pytest.raises(ValueError, match=message) as raised:
            load_model(name, device="cpu")
        assert "\n" not in str(raised.value)


def test_a_device_or_dtype_that_is_not_there_is_one_sentence(folders: dict[str, Path]) -> None:
    folder = folders["smolvlm"]
    with pytest.raises(ValueError, match="device must be auto, cpu, cuda or cuda:N; got 'toaster'"):
        load_model(folder, device="toaster")
    with pytest.raises(ValueError, match="device must be auto, cpu, cuda or cuda:N; got 'meta'"):
        load_model(folder, device="meta")
    with pytest.raises(ValueError, match=r"device 'cuda:99' is not there: this machine has \d+ GPUs"):
        load_model(folder, device="cuda:99")
    with pytest.raises(ValueError, match="dtype must be auto, float32, bfloat16, float16; got 'int4'"):
        load_model(folder, device="cpu", dtype="int4")


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_missing_weights_and_tokenizers_are_one_sentence(folders: dict[str, Path], family: str, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(folders[family], copy)
    (copy / "model.safetensors").rename(copy / "pytorch_model.bin")
    with pytest.raises(ValueError, match=r"cannot be loaded|safetensors") as raised:
        load_model(copy, device="cpu")
    assert "\n" not in str(raised.value)
    (copy / "model.safetensors").write_bytes(b"\x10\x00\x00\x00\x00\x00\x00\x00not json at all!")
    with pytest.raises(ValueError, match="cannot be loaded"):
        load_model(copy, device="cpu")


HOSTILE = [
    (
        "qwen2_vl",
        "preprocessor_config.json",
        {"patch_size": 16},
        "patch_size=16 and its config 14; they must agree",
    ),
    ("qwen2_vl", "preprocessor_config.json", {"min_pixels": 10**9}, "at least 1000000000 pixels a frame"),
    (
        "qwen2_vl",
        "preprocessor_config.json",
        {"max_pixels": "all"},
        "max_pixels='all'; wanted a whole number",
    ),
    ("qwen2_5_vl", "preprocessor_config.json", {"temporal_patch_size": 1}, "temporal_patch_size=1"),
    ("qwen3_vl", "video_preprocessor_config.json", {"size": [1]}, "wanted an object"),
    ("qwen3_vl", "video_preprocessor_config.json", {"size": {"shortest_edge": -4}}, "wanted a whole number"),
    ("llava_onevision", "preprocessor_config.json", {"size": {"height": 64, "width": 64}}, "tower reads 56"),
    (
        "llava_onevision",
        "preprocessor_config.json",
        {"size": {"height": 56, "width": 64}},
        "takes square frames",
    ),
    (
        "smolvlm",
        "preprocessor_config.json",
        {"max_image_size": {"longest_edge": 100}},
        "wanted a multiple of 16",
    ),
    ("smolvlm", "preprocessor_config.json", {"max_image_size": {"longest_edge": 10**8}}, "up to 4096"),
    (
        "smolvlm",
        "preprocessor_config.json",
        {"video_sampling__video_size": {"height": 5}},
        "wanted a longest_edge",
    ),
]


@pytest.mark.parametrize(("family", "file", "changes", "message"), HOSTILE, ids=lambda v: str(v)[:30])
def test_hostile_processor_files_are_refused(
    folders: dict[str, Path], tmp_path: Path, family: str, file: str, changes: dict[str, object], message: str
) -> None:
    copy = broken(folders[family], tmp_path, file, **changes)
    with pytest.raises(ValueError, match=message):
        load_model(copy, device="cpu")


@pytest.mark.parametrize(
    "changes",
    [{"text_config": "none"}, {"vision_config__patch_size": "big"}, {"text_config__num_hidden_layers": -1}],
    ids=str,
)
def test_hostile_configs_are_one_sentence(folders: dict[str, Path], tmp_path: Path, changes: dict[str, object]) -> None:
    copy = broken(folders["qwen2_5_vl"], tmp_path, "config.json", **changes)
    with pytest.raises(ValueError) as raised:
        load_model(copy, device="cpu")
    assert "\n" not in str(raised.value)


def test_nested_processor_files_come_first(folders: dict[str, Path], tmp_path: Path) -> None:
    copy = broken(folders["qwen2_vl"], tmp_path, "preprocessor_config.json", min_pixels=10**9)
    nested = {"video_processor": {"size": {"shortest_edge": 784, "longest_edge": 784}}}
    (copy / "processor_config.json").write_text(json.dumps(nested))
    frame = Frame(np.zeros((300, 300, 3), np.uint8), 0.0)
    assert load_model(copy, device="cpu").see([frame])[0].grid_hw == (1, 1)


def test_a_frame_never_takes_more_than_the_budget(folders: dict[str, Path], tmp_path: Path) -> None:
    wide = Frame(np.zeros((720, 3000, 3), np.uint8), 0.0)
    copy = broken(folders["qwen2_vl"], tmp_path, "preprocessor_config.json", min_pixels=3136, max_pixels=12845056)
    height, width = load_model(copy, device="cpu").frame_size(wide.height, wide.width)
    assert height * width <= 768 * 28 * 28
    bounded = load_model(copy, device="cpu", max_side_px=300)
    height, width = bounded.frame_size(wide.height, wide.width)
    assert (height, width) == (56, 280)
    assert bounded.see([wide])[0].grid_hw == (2, 10)


def test_no_checkpoint_runs_its_own_code(folders: dict[str, Path], tmp_path: Path) -> None:
    auto = {"AutoModelForImageTextToText": "evil.Evil", "AutoConfig": "evil.Evil"}
    copy = broken(folders["smolvlm"], tmp_path, "config.json", auto_map=auto)
    marker = tmp_path / "ran"
    (copy / "evil.py").write_text(f"open({str(marker)!r}, 'w').write('x')\nclass Evil: pass\n")
    load_model(copy, device="cpu")
    assert not marker.exists()
