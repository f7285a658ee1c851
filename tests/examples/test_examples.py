"""The examples of extensions, each loaded from its file by the command that its README names."""

import csv
import importlib.util
import json
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from building import without_ray
from command_line import passed
from PIL import Image
from registries import plugins_of_its_own
from safetensors.torch import load_file, save_file
from torch import nn

from densecli.models.checkpoints import load_model

EXAMPLES = Path(__file__).parents[2] / "examples"
Command = Callable[..., str]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("examples")


@pytest.fixture(scope="module")
def densecli(folder: Path) -> Command:
    """Runs densecli in `folder` with these examples as its only plug-ins; returns what it printed."""

    def run(*words: object, plugins: tuple[str, ...]) -> str:
        command, *rest = words
        loaded = [word for name in plugins for word in ("--plugin", EXAMPLES / f"{name}.py")]
        with pytest.MonkeyPatch.context() as patch, plugins_of_its_own(), without_ray():
            patch.chdir(folder)
            return passed(command, *loaded, *rest)

    return run


@pytest.fixture(scope="module")
def store(densecli: Command, folder: Path) -> Path:
    """Four scenes with the columns of two example teachers and of teachers of ours."""
    teachers = ("colours-p12", "signs-scenes-s", "crops-scenes-s", "scenes-pvlm", "scenes-vfm")
    words = [word for name in teachers for word in ("--teacher", name)]
    densecli(
        "build-shards", "--dataset", "scenes", "--limit", 4, *words, "--views", 1, "--store", "store",
        "--device", "cpu",
        plugins=("teacher", "codec"),
    )  # fmt: skip
    return folder / "store"


@pytest.fixture
def train(densecli: Command, store: Path) -> Callable[..., list[dict]]:
    """A training of two steps; returns its metrics."""

    def run(name: str, *words: object, plugins: tuple[str, ...]) -> list[dict]:
        densecli(
            "train", "--store", store, "--run", name, "--batch-size", 2, "--max-steps", 2, "--device", "cpu",
            *words,
            plugins=plugins,
        )  # fmt: skip
        lines = (store.parent / name / "metrics.jsonl").read_text().splitlines()
        return [json.loads(line) for line in lines]

    return run


@pytest.mark.slow
def test_teacher__a_student_learns_from_a_new_kind_of_target(train):
    rows = train("colours", "--loss", "spatial:colours=1", plugins=("teacher", "codec"))
    assert len(rows) == 2 and all(row["spatial:colours"] > 0 for row in rows)


@pytest.mark.slow
def test_codec__a_student_learns_from_one_bit_a_number(train, densecli, store):
    bits = train("signs", "--loss", "region_cosine:signs=1", plugins=("teacher", "codec"))
    exact = train("crops", "--loss", "region_cosine:crops=1", plugins=("teacher", "codec"))
    [column] = (store / "targets").glob("signs-*")
    error = json.loads((column / "000000.json").read_bytes())["error"]
    assert 0 < error["mean_cosine"] < 0.5
    # The sign of each number keeps the direction, less some of the cosine.
    assert abs(bits[0]["region_cosine:signs"] - exact[0]["region_cosine:crops"]) < 0.3

    words = ("verify", "--store", "store", "--samples", 1, "--device", "cpu", "--json", "verified.json")
    densecli(*words, plugins=("teacher", "codec"))
    verified = json.loads((store.parent / "verified.json").read_text())
    names = {column["name"] for column in verified["columns"]}
    assert verified["verified"] is True and names >= {"signs-scenes-s", "colours-p12"}


@pytest.mark.slow
def test_loss_term__with_an_option_of_its_own(train):
    words = ("--loss", "region_huber=1", "--loss-option", "region_huber.delta=0.1")
    rows = train("huber", *words, "--teacher", "crops-scenes-s", plugins=("teacher", "codec", "loss_term"))
    assert rows[0]["region_huber"] > 0


def imported(name: str) -> ModuleType:
    """An example as a module, in this process."""
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def registries() -> Iterator[None]:
    """What an example registers in this process is forgotten after the test."""
    with plugins_of_its_own():
        yield


def test_declip_regions__distances_of_correlations_by_photo(registries):
    loss = imported("declip_regions").region_correlation_loss
    torch.manual_seed(0)
    student, teacher = (F.normalize(torch.randn(5, width), dim=1) for width in (8, 3))
    photo = torch.tensor([0, 0, 1, 1, 1])
    distances = []
    for i in range(5):
        squares = [
            float(student[i] @ student[j] - teacher[i] @ teacher[j]) ** 2
            for j in range(5)
            if photo[i] == photo[j]
        ]
        distances.append(sum(squares) ** 0.5)
    expected = sum(distances) / 5
    assert float(loss(student, teacher, photo, torch.tensor(5))) == pytest.approx(expected, rel=1e-5)
    # The shares of two batches add up, and a student that agrees with the VFM has nothing to learn.
    parts = [loss(student[p], teacher[p], photo[p], torch.tensor(5)) for p in (photo == 0, photo == 1)]
    assert float(sum(parts)) == pytest.approx(expected, rel=1e-5)
    assert float(loss(student, student, photo, torch.tensor(5))) == 0


def test_layer_values__begins_as_value_and_adds_each_heads_values(registries, tmp_path):
    module = imported("layer_values")
    plain, _ = load_model("scenes-s")
    model, _ = load_model("scenes-s-values")
    images = torch.randn(2, 3, 96, 96, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(model.dense(images, "layers"), plain.dense(images, "value"))

        weights = model.clip.visual.value_weights
        weights.copy_(torch.randn(weights.shape, generator=torch.Generator().manual_seed(1)))
        found = model.dense(images, "layers")

        # The definition, head by head.
        *body, last = plain.blocks()
        x, grid = plain._embed(images)
        added = 0
        for number, block in enumerate(body):
            layer = number - len(body) + len(weights)
            attention, heads = block.attn, block.attn.num_heads
            values = F.linear(block.ln_1(x), *(part.chunk(3)[2] for part in qkv_parameters(attention)))
            for head, v in enumerate(values.chunk(heads, dim=-1)) if layer >= 0 else ():
                columns = attention.out_proj.weight.chunk(heads, dim=1)[head]
                added = added + weights[layer, head] * v @ columns.T
            x = block(x)
        tokens = plain._head(plain._value_path(last, x) + added)[:, 1:]
        expected = F.normalize(tokens, dim=-1).transpose(1, 2).unflatten(2, grid)
    torch.testing.assert_close(found, expected)
    assert len(weights) == module.LAYERS

    # Trained where it is read, frozen elsewhere, and part of what is saved.
    assert "clip.visual.value_weights" not in model.frozen_names("layers")
    assert "clip.visual.value_weights" in model.frozen_names("value")
    save_file(model.clip.state_dict(), tmp_path / "tuned.safetensors")
    again, _ = load_model("scenes-s-values", str(tmp_path / "tuned.safetensors"))
    torch.testing.assert_close(again.dense(images, "layers"), found)


def qkv_parameters(attention: nn.MultiheadAttention) -> tuple[torch.Tensor, torch.Tensor]:
    return attention.in_proj_weight, attention.in_proj_bias


@pytest.mark.slow
def test_declip_regions_and_layer_values__train_from_one_store(train, densecli, folder):
    rows = train("regions", "--method", "declip-regions", "--student", "scenes-s",
                 plugins=("teacher", "codec", "declip_regions"))  # fmt: skip
    assert all(row["region_correlation"] > 0 for row in rows)

    used = ("teacher", "codec", "layer_values")
    for name in ("declip_regions", "layer_values"):
        assert f"examples/{name} " in densecli("ablate", "--list", plugins=(name,))
        densecli("ablate", f"examples/{name}", "--store", "store", "--dry-run",
                 plugins=("teacher", "codec", name))  # fmt: skip
    train("layers", "--method", "clipself", "--student", "scenes-s-values", "--mode", "layers",
          "--teacher", "crops-scenes-s", "--lr", 1e-3, "--warmup-steps", 1, plugins=used)  # fmt: skip
    [exported] = (folder / "layers" / "export").glob("*.safetensors")
    assert load_file(exported)["visual.value_weights"].abs().max() > 0
    densecli("evaluate", "--run", "layers", "--limit", 4, "--device", "cpu", "--json", "layers.json",
             plugins=used)  # fmt: skip
    assert json.loads((folder / "layers.json").read_text())


@pytest.mark.slow
def test_method_schedule_logger_export__in_one_training(train, densecli, store):
    used = ("teacher", "codec", "method", "schedule", "logger")
    rows = train(
        "several", "--method", "labels-and-crops", "--teacher", "crops-scenes-s",
        "--schedule", "inverse-sqrt", "--warmup-steps", 1, "--lr", 1e-3, "--logger", "csv",
        plugins=used,
    )  # fmt: skip
    run = store.parent / "several"
    resolved = json.loads((run / "config.json").read_text())
    assert resolved["losses"] == {"region_kl": 1.0, "region_cosine": 0.5}
    assert (resolved["theta"], resolved["alpha"]) == (0.5, 0.8)
    assert [row["lr"] for row in rows] == pytest.approx([1e-3, 1e-3 * 0.5**0.5])
    with (run / "metrics.csv").open(newline="") as file:
        logged = list(csv.DictReader(file))
    assert [float(row["loss"]) for row in logged] == [row["loss"] for row in rows]

    densecli("export", "--run", "several", "--layout", "image-tower", plugins=("export_format",))
    tower = load_file(run / "export" / "image-tower.safetensors")
    assert "conv1.weight" in tower and not any("token_embedding" in name for name in tower)


@pytest.mark.slow
def test_source__photos_in_a_zip_archive(densecli, folder):
    photo = folder / "photo.jpg"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (48, 64, 3), np.uint8)).save(photo)
    with zipfile.ZipFile(folder / "photos.zip", "w") as archive:
        archive.write(photo, "val/a.jpg")
        archive.write(photo, "train/b.jpg")
        archive.writestr("readme.txt", "no photo")
    densecli(
        "build-shards", "--dataset", "zip", "--data", "photos.zip", "--split", "val", "--canvas", 64,
        "--store", "zipped", "--json", "built.json",
        plugins=("source",),
    )  # fmt: skip
    assert json.loads((folder / "built.json").read_text())["samples"] == 1
    assert json.loads((folder / "zipped" / "store.json").read_text())["dataset"]["name"] == "zip"


def test_vfm_with_text__patches_are_read_in_the_half_that_their_mean_was_trained_in(registries):
    example = imported("vfm_with_text")
    model, _ = load_model(example.NAME, "random:0")
    photos = torch.randint(0, 255, (2, 3, 96, 96))
    image, dense = (read(model.prepare(photos)) for read in (model.encode_image, model.dense))
    tokens, (height, width) = model.clip.visual.tokens(model.prepare(photos))
    assert dense.shape == (2, model.embed_dim, height, width) and (height, width) == (8, 8)
    half = model.embed_dim // 2
    torch.testing.assert_close(image[:, :half], tokens[:, 0])
    torch.testing.assert_close(image[:, half:], tokens[:, 1:].mean(1))
    assert not dense[:, :half].any()
    for row, column in ((0, 0), (3, 7)):
        patch = tokens[:, 1 + 8 * row + column]
        torch.testing.assert_close(dense[:, half:, row, column], patch / patch.norm(dim=1, keepdim=True))


@pytest.mark.slow
def test_vfm_with_text__is_trained_and_compared_with_another_pvlm(densecli, folder):
    file = folder / "vfm-text.safetensors"
    with plugins_of_its_own():
        losses = imported("vfm_with_text").train(file, photos=128, pairs=1024)
    assert losses[-1] < losses[0]
    densecli(
        "build-shards", "--dataset", "scenes", "--limit", 4, "--store", "texts", "--device", "cpu",
        "--teacher", "scenes-pvlm", "--teacher", "scenes-vfm-text", "--weights", f"scenes-vfm-text={file}",
        plugins=("vfm_with_text",),
    )  # fmt: skip
    densecli(
        "verify", "--store", "texts", "--teacher", "scenes-pvlm", "--against", "scenes-vfm-text",
        "--json", "against.json",
        plugins=("vfm_with_text",),
    )  # fmt: skip
    found = json.loads((folder / "against.json").read_text())
    assert found["regions"] > 0 and 0 <= found["agreement"] <= 1


@pytest.mark.slow
def test_backbone_and_benchmark__a_new_model_is_measured_on_a_new_data_set(densecli, folder):
    root = folder / "pets"
    for part in ("images", "annotations/trimaps"):
        (root / part).mkdir(parents=True)
    pixels = np.random.default_rng(0).integers(0, 255, (96, 96, 3), np.uint8)
    Image.fromarray(pixels).save(root / "images" / "a.jpg")
    trimap = np.full((96, 96), 2, np.uint8)
    trimap[30:60, 30:60], trimap[28:30] = 1, 3
    Image.fromarray(trimap).save(root / "annotations" / "trimaps" / "a.png")
    (root / "annotations" / "test.txt").write_text("a 1 1 1\n")
    densecli(
        "evaluate", "--task", "segmentation", "--dataset", "pets", "--data", "pets", "--split", "test",
        "--student", "tiny-vit", "--weights", "tiny-vit=random:0", "--device", "cpu", "--json", "pets.json",
        plugins=("backbone", "benchmark"),
    )  # fmt: skip
    [found] = json.loads((folder / "pets.json").read_text()).values()
    assert found["random_weights"] is True and found["photos"] == 1
    assert {row["name"] for row in found["classes"]} == {"background", "pet"}


def test_readme__names_every_example():
    listed = (EXAMPLES / "README.md").read_text()
    files = sorted(path.name for path in EXAMPLES.glob("*.py"))
    assert files
    assert all(f"[{name}]({name})" in listed for name in files)
