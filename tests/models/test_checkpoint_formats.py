"""Every layout by what reads it: the library where it is here, else the reader's own keys and checks."""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import open_clip
import pytest
import timm
import torch
from open_clip.model import build_model_from_openai_state_dict
from open_clip.openai import load_openai_model
from registries import put
from safetensors.torch import save_file
from torch import Tensor

from densecli.core.errors import DenseCLIError
from densecli.models.architecture import Architecture
from densecli.models.checkpoint_formats import mode_means, timm_model, torchscript
from densecli.models.checkpoints import load_model, load_weights
from densecli.models.registry import MODELS, build
from densecli.models.state_dict import read_state_dict
from densecli.models.student import DenseVFM, load_student
from densecli.models.vfm_architecture import VFMArchitecture
from densecli.models.vfms import VFMS
from densecli.train.exports import EXPORTS, export_weights, formats_of

pytestmark = pytest.mark.slow

# What OpenAI's loader infers from shapes: heads of 64, QuickGELU.
TEXT = {"context_length": 12, "vocab_size": 80, "width": 64, "heads": 1, "layers": 2}
VIT = {"image_size": 64, "layers": 3, "width": 128, "patch_size": 16}
RESNET = {"image_size": 64, "layers": [1, 1, 1, 1], "width": 16, "patch_size": None}
OPENAI = {
    family: Architecture(
        name=f"openai-{family}",
        family=family,
        config={"embed_dim": 32, "vision_cfg": vision, "text_cfg": TEXT, "quick_gelu": True},
    )
    for family, vision in (("vit", VIT), ("resnet", RESNET))
}


def images(side: int, count: int = 2) -> Tensor:
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(0))


def equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


@pytest.mark.parametrize("family", ["vit", "resnet", "convnext", "eva"])
@pytest.mark.parametrize("format", [name for name, each in EXPORTS.items() if each.graph is None])
def test_export_weights__reads_back_to_the_same_dense_map(tiny, family: str, format: str) -> None:
    source = build(OPENAI[family]) if family in OPENAI else tiny(family)
    with torch.no_grad():
        for parameter in source.parameters():
            parameter.add_(torch.randn_like(parameter) / 20)
    if format not in formats_of(source):
        with pytest.raises(DenseCLIError, match=f"{source.arch.name} does not fit the format {format}"):
            export_weights(source, format)
        return
    state = export_weights(source, format)
    if format == "timm":
        assert not any("text" in key or key == "logit_scale" for key in state)
        return
    target = build(source.arch)
    load_weights(target, state)
    assert equal(source.clip.state_dict(), target.clip.state_dict())
    x = images(96)
    assert torch.equal(source.dense(x), target.dense(x))


def shapes(state: Mapping[str, Tensor]) -> dict[str, torch.Size]:
    return {key: value.shape for key, value in state.items()}


OWN = {
    "eva02-b16": "eva",
    "eva02-l14-336": "eva",
    "vit-b16": "openai",
    "vit-l14-336": "openai",
    "rn50": "openai",
    "rn50x4": "openai",
}

HUGGING_FACE = ("vit-b16", "vit-l14-336", "laion-vit-b16", "laion-vit-l14")


@pytest.mark.parametrize("name", sorted({arch.name for _, arch in MODELS.items()}))
def test_export_weights__full_sizes_fit_the_libraries_own_networks(name: str) -> None:
    with torch.device("meta"):
        model = build(MODELS[name])
        tower, options = timm_model(model)
        theirs = timm.create_model(tower, **options)
    own = {OWN[name]} if name in OWN else set()
    hugging_face = {"transformers"} if name in HUGGING_FACE else set()
    assert set(formats_of(model)) == {"onnx", "open_clip", "timm"} | own | hugging_face
    assert shapes(export_weights(model, "timm")) == shapes(theirs.state_dict())
    if isinstance(model.arch.config, str):
        theirs = open_clip.create_model(model.arch.config, load_weights=False, device="meta")
        assert shapes(export_weights(model, "open_clip")) == shapes(theirs.state_dict())


def test_eva__is_what_the_released_tower_wrote(golden: Path) -> None:
    arrays = np.load(golden / "eva_densevlm.npz", allow_pickle=False)
    config, prefix = json.loads(str(arrays["config"])), "state_dict/"
    theirs = {
        k.removeprefix(prefix): torch.from_numpy(arrays[k]) for k in arrays.files if k.startswith(prefix)
    }
    model = build(Architecture(name="golden", family="eva", config=config))
    load_weights(model, theirs)
    ours = export_weights(model, "eva")
    assert shapes(ours) == shapes(theirs)
    for key, value in theirs.items():
        torch.testing.assert_close(ours[key], value, atol=1e-6 if "rope" in key else 0, rtol=0)


def clip_load(file: Path) -> torch.nn.Module:
    """What `clip.load(FILE, jit=False)` of openai/CLIP (d05afc4) does; build_model is open_clip's."""
    with open(file, "rb") as opened_file:
        try:
            model = torch.jit.load(opened_file, map_location="cpu").eval()
            state_dict = None
        except RuntimeError:
            state_dict = torch.load(opened_file, map_location="cpu")
    return build_model_from_openai_state_dict(state_dict or model.state_dict()).float()


@pytest.mark.parametrize("family", OPENAI)
def test_openai__their_loaders_build_the_same_network(tmp_path: Path, family: str) -> None:
    model = build(OPENAI[family])
    state = export_weights(model, "openai")
    file = tmp_path / "openai.pt"
    file.write_bytes(torchscript(state))
    assert torchscript(state) == file.read_bytes()
    assert equal(read_state_dict(file), state)
    # Their build_model rounds most weights to half precision before they are made float again.
    for theirs in (load_openai_model(str(file), precision="fp32", device="cpu"), clip_load(file)):
        for key, value in theirs.state_dict().items():
            assert torch.equal(value, state[key]) or torch.equal(value, state[key].half().float()), key
        theirs.load_state_dict(model.clip.state_dict())
        torch.testing.assert_close(theirs.encode_image(images(64)), model.encode_image(images(64)))
        tokens = torch.randint(1, 80, (3, 12))
        torch.testing.assert_close(theirs.encode_text(tokens), model.encode_text(tokens))
    numbers = [int(state[key]) for key in ("input_resolution", "context_length", "vocab_size")]
    assert numbers == [64, 12, 80]


def test_openai__a_file_of_torch_save_is_none_of_theirs(tmp_path: Path) -> None:
    torch.save(export_weights(build(OPENAI["vit"]), "openai"), tmp_path / "saved.pt")
    with pytest.raises(EOFError):
        clip_load(tmp_path / "saved.pt")


@pytest.mark.parametrize("change", [{"quick_gelu": False}, {"text_cfg": {**TEXT, "heads": 2}},
                                    {"vision_cfg": {**VIT, "head_width": 32}}])  # fmt: skip
def test_openai__what_their_loader_would_build_otherwise_is_refused(change: dict) -> None:
    config = {**OPENAI["vit"].config, **change}
    model = build(Architecture(name="other", family="vit", config=config))
    with pytest.raises(DenseCLIError, match="does not fit the format openai") as caught:
        export_weights(model, "openai")
    named = caught.value.hint.removeprefix("It can be exported as ").removesuffix(".")
    assert sorted(named.split(" or ")) == ["onnx", "open_clip", "timm"]


def run(description: str) -> torch.nn.Module:
    """The model that the Python of `ExportFormat.load` gives."""
    *before, last = description.split("; ")
    names = {"open_clip": open_clip, "timm": timm}
    for statement in before:
        exec(statement, names)
    return eval(last, names).eval()


def test_open_clip__a_named_network_is_loaded_by_its_name(tmp_path: Path) -> None:
    model, _ = load_student("eva02-b16", "random:0")
    file = str(tmp_path / "student.safetensors")
    save_file(export_weights(model, "open_clip"), file)
    theirs = run(EXPORTS["open_clip"].load(model, str(file)))
    assert equal(theirs.state_dict(), model.clip.state_dict())
    assert EXPORTS["open_clip"].config(model) is None
    with torch.inference_mode():
        torch.testing.assert_close(theirs.encode_image(images(224, 1)), model.encode_image(images(224, 1)))


def test_open_clip__a_network_of_ours_is_loaded_by_its_configuration(tmp_path: Path) -> None:
    model, _ = load_student("scenes-s")
    file = str(tmp_path / "student.safetensors")
    save_file(export_weights(model, "open_clip"), file)
    (tmp_path / "scenes-s.json").write_text(json.dumps(EXPORTS["open_clip"].config(model)))
    theirs = run(EXPORTS["open_clip"].load(model, str(file)))
    assert equal(theirs.state_dict(), model.clip.state_dict())
    torch.testing.assert_close(theirs.encode_image(images(96)), model.encode_image(images(96)))


@torch.no_grad()
def test_timm__the_image_tower_of_a_vit(tmp_path: Path) -> None:
    model, _ = load_model("scenes-s")
    theirs = timm_file(model, tmp_path)
    tokens = theirs.head(theirs.forward_features(images(96)))
    vanilla = model.dense(images(96), "vanilla")
    torch.testing.assert_close(tokens[:, 1:].transpose(1, 2).unflatten(2, (8, 8)), vanilla)


@torch.no_grad()
@pytest.mark.parametrize(("name", "close"), [("rn50", 1e-4), ("eva02-b16", 1e-6)])
def test_timm__the_image_tower_embeds_as_the_clip_does(tmp_path: Path, name: str, close: float) -> None:
    embeds_as_the_clip_does(load_model(name, "random:0")[0], tmp_path, close)


@torch.no_grad()
@pytest.mark.parametrize("projection", ["linear", "mlp"])
def test_timm__a_convnext_embeds_as_the_clip_does(tiny, tmp_path: Path, projection: str) -> None:
    config = tiny("convnext").arch.config
    config = {**config, "vision_cfg": {**config["vision_cfg"], "timm_proj": projection}}
    embeds_as_the_clip_does(
        build(Architecture(name="other", family="convnext", config=config)), tmp_path, 1e-4
    )


def embeds_as_the_clip_does(model, folder: Path, close: float) -> None:
    theirs = timm_file(model, folder)
    x = images(model.arch.native_side)
    torch.testing.assert_close(theirs(x), model.encode_image(x), atol=close, rtol=close)


@torch.no_grad()
def test_timm__features_only_of_a_vfm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = VFMArchitecture(
        name="dinov2-vits14", timm="vit_small_patch14_dinov2", patch=14, options={"depth": 3, "img_size": 56}
    )
    put(monkeypatch, VFMS, "dinov2-vits14", small)
    model, _ = load_student("dinov2-vits14", "random:0")
    assert isinstance(model, DenseVFM) and formats_of(model) == ["timm"]
    theirs = timm_file(model, tmp_path)
    tokens = theirs.forward_features(images(56))[:, 1:]
    torch.testing.assert_close(
        torch.nn.functional.normalize(tokens, dim=2), model(images(56)).flatten(2).transpose(1, 2)
    )
    name, options = timm_model(model)
    overlay = {"file": str(tmp_path / "timm.safetensors")}
    features = timm.create_model(
        name, features_only=True, pretrained=True, pretrained_cfg_overlay=overlay, **options
    )
    maps = features.eval()(images(56))
    for got, want in zip(
        maps, theirs.forward_intermediates(images(56), intermediates_only=True), strict=True
    ):
        assert torch.equal(got, want) and got.shape == (2, 384, 4, 4)


def timm_file(model, folder: Path) -> torch.nn.Module:
    file = str(folder / "timm.safetensors")
    state = {key: value.clone().contiguous() for key, value in export_weights(model, "timm").items()}
    save_file(state, file)
    theirs = run(EXPORTS["timm"].load(model, str(file)))
    assert equal(theirs.state_dict(), state)
    return theirs


def test_mode_means__says_every_mode_apart(tiny) -> None:
    model = tiny("eva")
    modes = [*model.modes, "qq+scale", "qq+rope", "qq+unit"]
    assert len({mode_means(model, mode) for mode in modes}) == len(modes)
    assert "unit norm" in mode_means(model, "value") and "unit norm" not in mode_means(model, "maskclip")
