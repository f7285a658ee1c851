"""The folder for transformers, read by the real library where it is installed, and read back."""

import re
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import densecli
from densecli.core.errors import DenseCLIError
from densecli.models.architecture import Architecture
from densecli.models.checkpoints import load_model, load_weights
from densecli.models.hugging_face import from_hugging_face, to_hugging_face
from densecli.models.registry import MODELS, build
from densecli.train.export import export
from densecli.train.export_config import ExportConfig

SMALL = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": 64, "layers": 3, "width": 128, "patch_size": 16, "head_width": 32},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 2},
}
TEXTS = ["a photo of a dog", "Sofa, wall & 3 cats!  it's", "café", ""]


@pytest.fixture(scope="module", params=[True, False], ids=["quick_gelu", "gelu"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory):
    """A folder for transformers of a small ViT with random weights, and the name of the model."""
    name = f"small-{request.param}"
    if name not in MODELS:
        config = {**SMALL, "quick_gelu": request.param}
        MODELS.add(name, Architecture(name=name, family="vit", config=config), help="For this test.")
    out = tmp_path_factory.mktemp("hf") / "out"
    card = export(ExportConfig(checkpoint="random:1", student=name, layout="transformers", out=str(out)))
    assert card["path"] == str(out / "model.safetensors")
    assert card["load"] == f"transformers.CLIPModel.from_pretrained({str(out)!r})"
    return out, name


def test_export__the_folder_is_whole(folder) -> None:
    out, name = folder
    assert {path.name for path in out.iterdir()} == {
        *("model.safetensors", "model.card.json", "config.json", "preprocessor_config.json", "README.md"),
        *("vocab.json", "merges.txt", "special_tokens_map.json", "tokenizer_config.json"),
    }
    readme = (out / "README.md").read_text()
    assert readme.startswith("---\nlibrary_name: transformers\n")
    assert "random weights" in readme and name in readme


def test_export__reads_back_bit_by_bit(folder) -> None:
    out, name = folder
    model, _ = load_model(name, "random:1")
    theirs = load_file(out / "model.safetensors")
    ours = from_hugging_face(theirs)
    assert ours.keys() == model.clip.state_dict().keys()
    assert all(torch.equal(ours[key], value) for key, value in model.clip.state_dict().items())
    photo = Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 64, 3), np.uint8))
    loaded = densecli.load(out / "model.safetensors", canvas=64, device="cpu")
    again = densecli.load(out / "model.safetensors", student=name, canvas=64, device="cpu")
    assert torch.equal(loaded.dense(photo), again.dense(photo))
    # Older files of theirs hold a constant too.
    load_weights(model, {**theirs, "text_model.embeddings.position_ids": torch.arange(77)[None]})


def test_load_weights__what_is_missing_of_theirs_is_refused(folder) -> None:
    model, _ = load_model(folder[1], "random:1")
    theirs = to_hugging_face(model.clip.state_dict())
    for key in ("vision_model.encoder.layers.1.self_attn.k_proj.weight", "text_projection.weight"):
        with pytest.raises(DenseCLIError, match="1 missing"):
            load_weights(model, {name: value for name, value in theirs.items() if name != key})
    with pytest.raises(DenseCLIError, match="1 unexpected"):
        load_weights(model, {**theirs, "vision_model.encoder.layers.1.gate": torch.zeros(1)})


@torch.no_grad()
def test_transformers__features_texts_and_dense_map_are_equal(folder) -> None:
    transformers = pytest.importorskip("transformers", reason="transformers is not installed here")
    out, name = folder
    model, _ = load_model(name, "random:1")
    theirs, info = transformers.CLIPModel.from_pretrained(out, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"] and not info["mismatched_keys"]
    processor = transformers.CLIPProcessor.from_pretrained(out)
    pixels = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(
        of_pooler(theirs.get_image_features(pixels)), model.encode_image(pixels), atol=1e-5, rtol=0
    )
    tokens = processor.tokenizer(TEXTS, padding="max_length", truncation=True, return_tensors="pt")
    expected = open_clip.SimpleTokenizer()(TEXTS)
    assert torch.equal(torch.where(tokens.attention_mask.bool(), tokens.input_ids, 0), expected)
    torch.testing.assert_close(
        of_pooler(theirs.get_text_features(**tokens)), model.encode_text(expected), atol=1e-5, rtol=0
    )
    # The README's code for the dense map, as it stands there.
    photo = Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8))
    code = re.findall(r"```python\n(.*?)```", (out / "README.md").read_text(), re.DOTALL)[1]
    names = {"processor": processor, "model": theirs, "photo": photo, "torch": torch}
    exec(code, names)
    ours = model.dense(model.prepare(torch.from_numpy(np.asarray(photo).copy()).permute(2, 0, 1)[None]))
    torch.testing.assert_close(names["dense"], ours.flatten(2).transpose(1, 2), atol=1e-4, rtol=0)


def of_pooler(features):
    """The tensor; release 5 wraps it."""
    return getattr(features, "pooler_output", features)


def test_export__refusals(folder, tmp_path: Path) -> None:
    config = {"checkpoint": "random:1", "student": folder[1], "layout": "transformers", "dry_run": True}
    with pytest.raises(DenseCLIError, match="scenes-s does not fit the format transformers"):
        export(ExportConfig(**{**config, "student": "scenes-s", "out": str(tmp_path)}))
    for wrong in ({"out": str(tmp_path / "x.safetensors")}, {"out": "s3://b/x"}, {"format": "pt"}, {}):
        with pytest.raises(DenseCLIError, match=r"folder"):
            export(ExportConfig(**config, **wrong))


def test_hugging_face__every_vit_by_name_has_all_weights() -> None:
    with torch.device("meta"):
        model = build(MODELS["vit-l14-336"])
    theirs = to_hugging_face(model.clip.state_dict())
    # 24 + 12 blocks of 16 tensors, and 14 others.
    assert len(theirs) == 36 * 16 + 14
