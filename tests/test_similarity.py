"""Words and pictures in one space: the video model's own, and SigLIP against transformers' own logits."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, SiglipConfig, SiglipModel
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

from millpond.encoders.selectors import FamilySimilarity, Similarity
from millpond.encoders.selectors.siglip import SiglipSimilarity
from millpond.stream import Frame

from .tiny_models import TINY_MODELS, spread
from .watched import tiny

SIDE = 32
WORDS = ("what", "color", "is", "the", "red", "square", "yes")
QUESTION = "What color is the red square?"


def pictures(num: int = 5) -> list[Frame]:
    rng = np.random.default_rng(7)
    frames = []
    for i in range(num):
        height, width = [(48, 64), (48, 64), (64, 48), (20, 20), (33, 77)][i % 5]
        patches = Image.fromarray(rng.integers(0, 256, (5, 7, 3), np.uint8))
        frames.append(Frame(np.asarray(patches.resize((width, height))), float(i)))
    return frames


def save_siglip(folder: Path, *, image_size: int = SIDE) -> Path:
    """A small random SigLIP, from the real config class, as a checkpoint on disk."""
    words = Tokenizer(models.WordLevel({"</s>": 0, "<unk>": 1, **{w: i + 2 for i, w in enumerate(WORDS)}}, "<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, pad_token="</s>", unk_token="<unk>")
    half = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    ids = {"pad_token_id": 0, "bos_token_id": 0, "eos_token_id": 0, "vocab_size": len(tokenizer)}
    config = SiglipConfig(
        text_config={**half, **ids, "max_position_embeddings": 24, "projection_size": half["hidden_size"]},
        vision_config={**half, "image_size": SIDE, "patch_size": 8},
    )
    with torch.random.fork_rng():
        torch.manual_seed(3)
        model = SiglipModel(config)
        spread(model)
        model.logit_scale.data.fill_(1.5)
        model.logit_bias.data.fill_(-0.5)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    settings = {
        "image_processor_type": "SiglipImageProcessor",
        "size": {"height": image_size, "width": image_size},
        "resample": 3,
        "image_mean": [0.5, 0.4, 0.6],
        "image_std": [0.5, 0.5, 0.25],
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_siglip(tmp_path_factory.mktemp("siglip"))


@pytest.fixture(scope="module", params=["llava_onevision", "qwen2_vl", "siglip"])
def similarity(request: pytest.FixtureRequest, folder: Path) -> Iterator[Similarity]:
    if request.param == "siglip":
        yield SiglipSimilarity.load(str(folder))
    else:
        yield FamilySimilarity(tiny(request.param))


def test_vectors_are_of_length_one_and_a_frame_has_its_own(similarity: Similarity) -> None:
    frames = pictures()
    together_ND = similarity.look(frames)
    assert together_ND.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(together_ND, axis=1), 1.0, atol=1e-5)
    alone_ND = np.concatenate([similarity.look([frame]) for frame in frames])
    np.testing.assert_allclose(together_ND, alone_ND, atol=2e-5)
    assert len(similarity.look([])) == 0


def test_a_similarity_is_a_cosine_and_the_question_matters(similarity: Similarity) -> None:
    vectors_ND = similarity.look(pictures())
    one_N = similarity.compare(vectors_ND, QUESTION)
    assert one_N.shape == (5,) and np.abs(one_N).max() <= 1 + 1e-6
    assert np.abs(one_N - similarity.compare(vectors_ND, "yes")).max() > 1e-3


def test_siglip_gives_transformers_own_logits(folder: Path) -> None:
    model = SiglipModel.from_pretrained(folder).eval()
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    processor = SiglipImageProcessorPil.from_pretrained(folder)
    frames = pictures()
    pixels = processor([Image.fromarray(frame.rgb_HW3) for frame in frames], return_tensors="pt")["pixel_values"]
    ids = tokenizer([QUESTION.lower()], padding="max_length", max_length=24, truncation=True, return_tensors="pt")
    with torch.inference_mode():
        theirs = model(input_ids=ids["input_ids"], pixel_values=pixels).logits_per_image[:, 0].numpy()
    ours = SiglipSimilarity.load(str(folder))
    cosine_N = ours.compare(ours.look(frames), QUESTION)
    # Resized pictures may be two levels of 255 off Pillow's.
    np.testing.assert_allclose(cosine_N * np.exp(1.5) - 0.5, theirs, atol=0.02)
    assert np.ptp(theirs) > 0.2


def test_siglip_cuts_a_question_that_is_too_long(folder: Path) -> None:
    ours = SiglipSimilarity.load(str(folder))
    vectors_ND = ours.look(pictures())
    assert np.isfinite(ours.compare(vectors_ND, QUESTION * 50)).all()


def test_a_familys_words_are_those_it_reads() -> None:
    for family in TINY_MODELS:
        model = tiny(family)
        words_MD = model.embed_words("the red square")
        (tokens,) = model.see(pictures(1))
        assert words_MD.shape == (len(model.encode("the red square")), tokens.x_TD.shape[1])
    with pytest.raises(ValueError, match="at least one token; got ''"):
        model.embed_words("")


def test_what_is_no_siglip_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"is a 'qwen2_vl' checkpoint; wanted siglip"):
        SiglipSimilarity.load(str(TINY_MODELS["qwen2_vl"].save(tmp_path / "other")))
    with pytest.raises(ValueError, match=r"^[^\n]*cannot be loaded: [^\n]*$"):
        SiglipSimilarity.load(str(tmp_path / "nothing"))
    with pytest.raises(ValueError, match="makes pictures of 48 pixels and its tower reads 32"):
        SiglipSimilarity.load(str(save_siglip(tmp_path / "sizes", image_size=48)))
    damaged = save_siglip(tmp_path / "damaged")
    weights = damaged / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ValueError, match=r"^[^\n]*cannot be loaded: [^\n]*$"):
        SiglipSimilarity.load(str(damaged))


def test_a_tokenizer_that_is_not_to_be_had_is_told_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = save_siglip(tmp_path)

    def lacks(*_: object, **__: object) -> None:
        raise ImportError("\nSiglipTokenizer requires the SentencePiece library\n")

    monkeypatch.setattr("transformers.AutoTokenizer.from_pretrained", lacks)
    with pytest.raises(ImportError, match="needs sentencepiece; pip install sentencepiece, or take a SigLIP 2"):
        SiglipSimilarity.load(str(folder))
