"""Exports of a run in every layout it fits, and what their cards say."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file

import densecli
from densecli.cli import main
from densecli.core.errors import DenseCLIError
from densecli.models.checkpoints import load_model
from densecli.models.state_dict import read_state_dict
from densecli.models.weights import weights_sha256
from densecli.train.averaging import average
from densecli.train.distillation import TrainConfig, train
from densecli.train.export import ExportConfig, export

ALPHA = 0.7


@pytest.fixture(scope="module")
def initial() -> dict[str, torch.Tensor]:
    return load_model("scenes-s")[0].clip.state_dict()


@pytest.fixture(scope="module")
def run(tiny_store, tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = str(tmp_path_factory.mktemp("run"))
    train(
        TrainConfig(
            store=str(tiny_store.store.root),
            run=folder,
            student="scenes-s",
            batch_size=4,
            max_steps=2,
            checkpoint_every=1,
            lr=1e-3,
            theta=0.0,
            alpha=ALPHA,
            device="cpu",
        )
    )
    return folder


@pytest.mark.parametrize("format", ["safetensors", "pt"])
def test_export__texts_stay_and_the_image_tower_is_the_students(run: str, initial, format: str) -> None:
    card = export(ExportConfig(run=run, layout="open_clip", format=format))
    assert card["path"] == str(Path(run) / "export" / f"open_clip.{format}")
    exported = read_state_dict(card["path"])
    student = load_file(Path(run) / "export" / "student.safetensors")
    assert exported.keys() == student.keys()
    assert all(torch.equal(exported[key], student[key]) for key in student)
    of_texts = {key for key in initial if not key.startswith("visual.")}
    assert {"logit_scale", "text_projection"} <= of_texts
    assert all(torch.equal(exported[key], initial[key]) for key in of_texts)
    assert any(not torch.equal(exported[key], initial[key]) for key in initial)


def test_export__the_card(run: str, tiny_store) -> None:
    record = export(ExportConfig(run=run, layout="open_clip"))
    file = Path(record["path"])
    card = json.loads(file.with_suffix(".card.json").read_text())
    assert {"path", "bytes", "tensors"} == record.keys() - card.keys()
    assert card["sha256"] == weights_sha256(file)
    student = Path(run) / "export" / "student.safetensors"
    assert card["source"] == {"file": str(student), "sha256": weights_sha256(student)}
    assert (card["student"], card["mode"], card["canvas"], card["alpha"]) == ("scenes-s", "value", 96, ALPHA)
    store, labels = tiny_store.store, tiny_store.labels
    read = {"images": store.images, "regions": store.regions_of(labels), "labels": labels}
    assert card["columns"] == {part: column.key for part, column in read.items()}
    assert card["store"] == str(store.root)
    assert "without attention" in card["mode_means"]
    assert json.loads(file.with_name("scenes-s.json").read_text())["embed_dim"] == 64
    loaded, again = densecli.load(run, device="cpu"), densecli.load(file, device="cpu")
    photo = torch.randint(0, 256, (3, 40, 60), dtype=torch.uint8)
    assert torch.equal(loaded.dense(photo), again.dense(photo)) and again.canvas.size == 96


def test_export__a_checkpoint_is_averaged_with_where_the_run_began(run: str, initial, tmp_path: Path) -> None:
    checkpoint = Path(run) / "checkpoints" / "step-00000001.pt"
    config = ExportConfig(checkpoint=str(checkpoint), layout="open_clip", out=str(tmp_path / "x.safetensors"))
    card = export(config)
    state = torch.load(checkpoint, weights_only=True)["model"]
    student = {key.removeprefix("clip."): value for key, value in state.items()}
    expected = average(student, initial, ALPHA)
    assert all(torch.equal(value, expected[key]) for key, value in load_file(card["path"]).items())
    assert (card["step"], card["alpha"]) == (1, ALPHA)

    card = export(replace(config, alpha=0.0))
    assert all(torch.equal(value, initial[key]) for key, value in load_file(card["path"]).items())
    last = export(ExportConfig(run=run, layout="open_clip", alpha=ALPHA, out=str(tmp_path / "y.safetensors")))
    assert last["step"] == 2
    finished = load_file(Path(run) / "export" / "student.safetensors")
    assert all(torch.equal(value, finished[key]) for key, value in load_file(last["path"]).items())


def test_export__any_weights_of_a_named_student(tmp_path: Path) -> None:
    out = str(tmp_path / "c.pt")
    card = export(ExportConfig(checkpoint="random:3", student="scenes-s", layout="open_clip", out=out))
    before, info = load_model("scenes-s", "random:3")
    assert card["random_weights"] and card["source"] == {"file": "random:3", "sha256": info.sha256}
    again, _ = load_model("scenes-s", out)
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), before.parameters(), strict=True))


def test_export__the_card_of_a_file_names_the_student_that_was_given(tmp_path: Path) -> None:
    first, second = tmp_path / "a.pt", tmp_path / "b.pt"
    config = ExportConfig(checkpoint="random:0", student="scenes-s", layout="open_clip", out=str(first))
    export(config)
    card = first.with_suffix(".card.json")
    card.write_text(card.read_text().replace('"student": "scenes-s"', '"student": "scenes-l"'))
    assert export(replace(config, checkpoint=str(first), out=str(second)))["student"] == "scenes-s"
    assert densecli.load(second, device="cpu").model.arch.name == "scenes-s"


def test_export__a_dry_run_writes_nothing(run: str, tmp_path: Path) -> None:
    out = tmp_path / "none" / "x.safetensors"
    card = export(ExportConfig(run=run, layout="timm", out=str(out), dry_run=True))
    assert card["bytes"] > 1e5 and not out.parent.exists()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"layout": "eva"}, "scenes-s does not fit the format eva"),
        ({"out": "x.npz"}, "x.npz is not a name"),
        ({"out": "x.pt", "format": "safetensors"}, "x.pt is not a name"),
        ({"out": "s3://bucket/x.pt"}, "is not a name"),
        ({"mode": "qqq"}, "no dense mode 'qqq'"),
        ({"run": None}, "exactly one thing to export"),
        ({"checkpoint": "w.pt"}, "one thing to export"),
        ({"run": None, "checkpoint": "w.pt"}, "Nothing says which model"),
        ({"run": None, "checkpoint": "w.pt", "alpha": 0.5}, "not a checkpoint of a run"),
        ({"run": None, "checkpoint": "random:0", "student": "scenes-s"}, "Nothing says where"),
        ({"run": "nowhere"}, "There is no exported student in nowhere"),
        ({"run": "nowhere", "alpha": 0.5}, "There is no checkpoint in nowhere"),
    ],
)
def test_export__refusals(run: str, settings: dict, message: str) -> None:
    with pytest.raises(DenseCLIError, match=message) as caught:
        export(ExportConfig(**{"layout": "open_clip", "run": run, **settings}))
    assert caught.value.hint


def test_export__a_checkpoint_whose_run_began_elsewhere(run: str, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    (copy / "checkpoints").mkdir(parents=True)
    config = json.loads((Path(run) / "config.json").read_text())
    config["initial_weights"] |= {"source": "random:0"}
    (copy / "config.json").write_text(json.dumps(config))
    with pytest.raises(DenseCLIError, match="random:0 does not hold the initial weights"):
        export(ExportConfig(checkpoint=str(copy / "checkpoints" / "step-00000001.pt"), layout="timm"))


def test_command__says_what_it_wrote_and_how_to_load_it(run: str, tmp_path: Path) -> None:
    words = ["export", "--run", run, "--layout", "timm", "--out", str(tmp_path / "t.safetensors")]
    result = CliRunner().invoke(main, [*words, "--json", str(tmp_path / "card.json")])
    assert result.exit_code == 0, result.output
    assert "to be read in mode value" in result.output and "timm.create_model(" in result.output
    assert json.loads((tmp_path / "card.json").read_text())["layout"] == "timm"
