from dataclasses import replace

import pytest
import torch
from registries import put
from safetensors.torch import save_file
from timm.models.eva import checkpoint_filter_fn

from densecli.core.errors import DenseCLIError
from densecli.models.checkpoints import EVA_CLIP, PLAIN_TEXT, inverse, load_model, load_weights, rename
from densecli.models.registry import MODELS, build, resolve
from densecli.models.weights import find_weights, is_random, weights_sha256

State = dict[str, torch.Tensor]
BLOCK = """
norm1.weight norm1.bias attn.q_bias attn.v_bias attn.q_proj.weight attn.k_proj.weight attn.v_proj.weight
attn.inner_attn_ln.weight attn.inner_attn_ln.bias attn.proj.weight attn.proj.bias norm2.weight norm2.bias
"""
# width, blocks, patch, native side, FFN width, embedding, text width
EVA_SIZES = {
    "eva02-b16": (768, 12, 16, 224, 2048, 512, 512),
    "eva02-l14-336": (1024, 24, 14, 336, 2730, 768, 768),
}


def eva_clip_shapes(name: str) -> dict[str, tuple[int, ...]]:
    """Every key of a published EVA-02 CLIP checkpoint with its shape."""
    width, depth, patch, side, ffn, embed, text = EVA_SIZES[name]
    tokens = (side // patch) ** 2
    shapes: dict[str, tuple[int, ...]] = {
        "logit_scale": (),
        "visual.cls_token": (1, 1, width),
        "visual.pos_embed": (1, 1 + tokens, width),
        "visual.patch_embed.proj.weight": (width, 3, patch, patch),
        "visual.patch_embed.proj.bias": (width,),
        "visual.rope.freqs_cos": (tokens, 64),
        "visual.rope.freqs_sin": (tokens, 64),
        "visual.norm.weight": (width,),
        "visual.norm.bias": (width,),
        "visual.head.weight": (embed, width),
        "visual.head.bias": (embed,),
        "text.positional_embedding": (77, text),
        "text.text_projection": (text, embed),
        "text.token_embedding.weight": (49408, text),
        "text.ln_final.weight": (text,),
        "text.ln_final.bias": (text,),
    }
    for i in range(depth):
        block = f"visual.blocks.{i}"
        for part in BLOCK.split():
            shapes[f"{block}.{part}"] = (width, width) if part.endswith("proj.weight") else (width,)
        for part in ("w1", "w2"):
            shapes |= {f"{block}.mlp.{part}.weight": (ffn, width), f"{block}.mlp.{part}.bias": (ffn,)}
        shapes |= {f"{block}.mlp.ffn_ln.weight": (ffn,), f"{block}.mlp.ffn_ln.bias": (ffn,)}
        shapes |= {f"{block}.mlp.w3.weight": (width, ffn), f"{block}.mlp.w3.bias": (width,)}
        shapes |= {f"{block}.attn.rope.freqs_{part}": (tokens, 64) for part in ("cos", "sin")}
    for i in range(12):
        block = f"text.transformer.resblocks.{i}"
        shapes |= {
            f"{block}.{norm}.{part}": (text,) for norm in ("ln_1", "ln_2") for part in ("weight", "bias")
        }
        shapes |= {
            f"{block}.attn.in_proj_weight": (3 * text, text),
            f"{block}.attn.in_proj_bias": (3 * text,),
        }
        shapes |= {f"{block}.attn.out_proj.weight": (text, text), f"{block}.attn.out_proj.bias": (text,)}
        shapes |= {f"{block}.mlp.c_fc.weight": (4 * text, text), f"{block}.mlp.c_fc.bias": (4 * text,)}
        shapes |= {f"{block}.mlp.c_proj.weight": (text, 4 * text), f"{block}.mlp.c_proj.bias": (text,)}
    return shapes


def random_state(shapes: dict[str, tuple[int, ...]]) -> State:
    """Half-precision values that all views share the memory of; no two keys hold the same."""
    generator = torch.Generator().manual_seed(0)
    pool = torch.randn(40_000_000, generator=generator).half()
    return {key: pool[i:].as_strided(shape, _strides(shape)) for i, (key, shape) in enumerate(shapes.items())}


def _strides(shape: tuple[int, ...]) -> tuple[int, ...]:
    return torch.empty(shape, device="meta").stride()


def eva_clip_state(state: State) -> State:
    """A network's own keys in EVA-CLIP's layout."""
    return {rename(key, inverse(EVA_CLIP)): value for key, value in state.items()}


@pytest.mark.parametrize("name", EVA_SIZES)
def test_load_weights__full_size_eva_clip(name: str) -> None:
    state = random_state(eva_clip_shapes(name))
    model = build(resolve(name))
    load_weights(
        model, {"epoch": 6, "name": name, "state_dict": {f"module.{k}": v for k, v in state.items()}}
    )
    loaded = model.clip.state_dict()
    by_timm = checkpoint_filter_fn(state, model.clip.visual.trunk)
    assert by_timm.keys() == {k.removeprefix("visual.trunk.") for k in loaded if k.startswith("visual.")}
    for key, value in by_timm.items():
        assert torch.equal(loaded[f"visual.trunk.{key}"], value.float()), key
    for key, value in state.items():
        if not key.startswith("visual."):
            assert torch.equal(loaded[key], value.float()), key


@pytest.mark.parametrize("wrapper", ["state_dict", "model", "module", None])
@pytest.mark.parametrize("prefix", ["module.", ""])
def test_load_weights__wrappers_and_prefixes(tiny, wrapper: str | None, prefix: str) -> None:
    source, target = tiny("vit"), tiny("vit")
    for parameter in source.parameters():
        parameter.data.add_(1)
    state = {prefix + key: value for key, value in source.clip.state_dict().items()}
    load_weights(target, {wrapper: state, "epoch": 3} if wrapper else state)
    assert all(torch.equal(a, b) for a, b in zip(source.parameters(), target.parameters(), strict=True))


def test_load_weights__eva_clip_and_open_clip_layouts_agree(tiny) -> None:
    source = tiny("eva").clip.state_dict()
    state = {key: value + 1 for key, value in source.items()}
    theirs = eva_clip_state(state) | {"visual.rope.freqs_cos": torch.zeros(16, 32)}
    assert "visual.blocks.1.mlp.w3.weight" in theirs and "visual.blocks.0.attn.inner_attn_ln.bias" in theirs
    for layout in (state, theirs):
        model = tiny("eva")
        load_weights(model, layout)
        assert all(torch.equal(value, state[key]) for key, value in model.clip.state_dict().items())


def test_load_weights__openai_extras_half_precision_and_text_prefix(tiny) -> None:
    state = {key: value.half() for key, value in tiny("vit").clip.state_dict().items()}
    openai = state | {"input_resolution": torch.tensor(64), "context_length": torch.tensor(16)}
    below_text = {rename(key, PLAIN_TEXT): value for key, value in state.items()}
    assert (
        "text.token_embedding.weight" in below_text
        and "visual.transformer.resblocks.0.ln_1.bias" in below_text
    )
    for layout in (openai, below_text):
        model = tiny("vit")
        for parameter in model.parameters():
            parameter.data.zero_()
        load_weights(model, layout)
        assert all(torch.equal(value, state[key].float()) for key, value in model.clip.state_dict().items())


def test_load_weights__names_in_the_files_layout_what_does_not_fit(tiny) -> None:
    model = tiny("eva")
    before = {key: value.clone() for key, value in model.clip.state_dict().items()}
    state = eva_clip_state({key: value + 1 for key, value in before.items()})
    del state["visual.blocks.0.attn.q_bias"]
    state["visual.blocks.7.mlp.w1.bias"] = torch.zeros(3)
    state["visual.pos_embed"] = torch.zeros(1, 5, 64)
    with pytest.raises(DenseCLIError) as error:
        load_weights(model, state, source="x.pt")
    message = str(error.value)
    assert "x.pt does not fit tiny-eva" in message
    assert "1 missing (visual.blocks.0.attn.q_bias)" in message
    assert "1 unexpected (visual.blocks.7.mlp.w1.bias)" in message
    assert "1 of another shape (visual.pos_embed (1, 5, 64) for (1, 17, 64))" in message
    assert all(torch.equal(value, before[key]) for key, value in model.clip.state_dict().items())


@pytest.mark.parametrize("other", ["vit", "resnet", "convnext"])
def test_load_weights__another_architecture_is_a_sentence(tiny, other: str) -> None:
    for target, state in (("eva", tiny(other).clip.state_dict()), (other, tiny("eva").clip.state_dict())):
        with pytest.raises(DenseCLIError, match=rf"fit tiny-{target}: \d+ missing .* unexpected") as error:
            load_weights(tiny(target), state)
        assert len(str(error.value)) < 600


def test_load_weights__no_weights_at_all_is_a_sentence(tiny) -> None:
    with pytest.raises(DenseCLIError, match="holds no weights"):
        load_weights(tiny("eva"), {"epoch": 3})


def test_load_model__random_is_deterministic_recorded_and_leaves_the_generator() -> None:
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    model, info = load_model("scenes-s", "random:7")
    assert torch.equal(torch.rand(1), expected)
    _, again = load_model("scenes-s", "random:7")
    _, other = load_model("scenes-s", "random:8")
    assert info.random and info.source == "random:7" and not model.training
    assert info.sha256 == again.sha256 != other.sha256
    with pytest.raises(DenseCLIError, match="has no seed"):
        load_model("scenes-s", "random:x")


def test_load_model__finds_weights_by_name_and_alias(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("DENSECLI_WEIGHTS", str(tmp_path))
    with pytest.raises(DenseCLIError, match=r"no vitb16\.safetensors or eva02-b16\.safetensors") as error:
        find_weights("vitb16")
    assert "--weights vitb16=PATH" in error.value.hint
    source, _ = load_model("scenes-s", "random:1")
    save_file(source.clip.state_dict(), tmp_path / "scenes-s.safetensors")
    model, info = load_model("scenes-s")
    assert info.source == str(tmp_path / "scenes-s.safetensors") and not info.random
    assert info.sha256 == weights_sha256(tmp_path / "scenes-s.safetensors")
    assert all(torch.equal(a, b) for a, b in zip(source.parameters(), model.parameters(), strict=True))
    (tmp_path / "eva02-b16.pt").touch()
    assert find_weights("vitb16") == str(tmp_path / "eva02-b16.pt")
    with pytest.raises(DenseCLIError, match="no weights file"):
        load_model("scenes-s", str(tmp_path / "none.pt"))


def test_find_weights__an_alias_shares_files_and_a_tuned_model_has_its_own(tmp_path, monkeypatch) -> None:
    mine, shipped = tmp_path / "mine", tmp_path / "shipped.safetensors"
    monkeypatch.setenv("DENSECLI_WEIGHTS", str(mine))
    mine.mkdir()
    base = resolve("eva02-b16")
    put(monkeypatch, MODELS, "tuned", base)
    put(monkeypatch, MODELS, "tuned-shipped", replace(base, weights=str(shipped)))
    (mine / "eva02-b16.safetensors").touch()
    assert find_weights("vitb16") == str(mine / "eva02-b16.safetensors")
    with pytest.raises(DenseCLIError, match=r"no tuned\.safetensors \(nor"):
        find_weights("tuned")

    assert find_weights("tuned-shipped") == str(shipped)
    (mine / "vitb16.pt").touch()
    (mine / "tuned.pt").touch()
    (mine / "tuned-shipped.pt").touch()
    assert find_weights("vitb16") == str(mine / "vitb16.pt")
    assert find_weights("tuned") == str(mine / "tuned.pt")
    assert find_weights("tuned-shipped") == str(mine / "tuned-shipped.pt")
    assert find_weights("eva02-b16") == str(mine / "eva02-b16.safetensors")
    assert resolve("scenes-pvlm").name == resolve("scenes-l").name == "scenes-l"


@pytest.mark.parametrize(
    ("weights", "random"),
    [("random:0", True), ("random:17", True), ("random:x", False), ("random:", False),
     ("/data/random:trial/x", False), ("data/random:1", False), ("random:1/x", False)],
)  # fmt: skip
def test_is_random__a_whole_seed_and_nothing_else(weights: str, random: bool) -> None:
    assert is_random(weights) is random
