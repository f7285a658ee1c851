"""The page of the papers: the commands of its blocks and rows run on generated scenes, one after the other.

They run in one folder and in the order of the page, so that later ones find the stores, columns and runs of
earlier ones, under the names that the page gives for the generated world. Few photos, few steps: the numbers
mean nothing, but everything happens. Of an ablation the columns are looked up and the runs are listed; what
an ablation says that it lacks is made by the very commands of its hint.
"""

import json
import re
import shlex
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from building import without_ray
from command_line import passed, refused
from papers_page import commands

from densecli.scenes.coco import write_coco
from densecli.shards.store import Store

pytestmark = pytest.mark.slow

STORE = "stores/scenes-96"
KEY = "train-00000000"
# The names of the generated world, as the page has them.
CLIPS = ("vitb16", "eva02-b16", "vit-b16", "siglip-b16", "rn50x4", "laion-vit-l14")
VFMS = ("dinov2-vitb14", "sam-l")
NAMES = {"coco": "scenes", "vitl14": "scenes-pvlm", "000000000139": KEY, "openai": "open_clip"}
NAMES |= dict.fromkeys(("voc21", "context59"), "panoptic")
NAMES |= dict.fromkeys(CLIPS, "scenes-s") | dict.fromkeys(VFMS, "scenes-vfm")
PREFIXES = ("refined-map-", "aggregated-", "crops-", "self-", "")
PLACES = {
    "RUN": "runs/the",
    "FILE": "runs/refiner-scenes-s-scenes-96/export/refiner.safetensors",
    "DIR": "report",
}
# What is added to the words of a command, so that it takes a second or so.
FEW = {
    "build-shards": "--limit 8 --shard-size 4 --side 3 --contexts 2 --views 2 --device cpu",
    "train": "--max-steps 2 --batch-size 4 --spatial-side 3 --device cpu",
    "train-refiner": "--max-steps 2 --batch-size 4 --crops 2 --tokens 3 --device cpu",
    "evaluate": "--limit 4 --batch-size 4 --device cpu",
    "diagnose": "--limit 1 --device cpu --out page",
    "ablate": "--dry-run",
}
# Commands that the page names elsewhere in the row, for the columns that a row reads.
BEFORE = {
    "train --method logit-kd": ["build-shards --teacher crops-vitl14 --dataset coco",
                                "relabel --teacher crops-vitl14"],
    "train --method regiontext": ["build-shards --teacher vitl14 --dataset coco"],
    "train --method sc-clipself": ["build-shards --method sc-clipself --dataset coco"],
    "train --method r-sc-v": ["train-refiner --student dinov2-vitb14",
                              "build-shards --method r-sc-v --student dinov2-vitb14 --dataset coco"],
    "train --method r-sc-clipself --loss": ["build-shards --teacher refined-map-vitb16 --dataset coco"],
}  # fmt: skip
# Ablations whose columns are in no other command's store.
OWN_STORE = ("categories", "decoupling", "input-size", "pvlm", "refiner-depth", "regions", "theta")
ALL = commands()


def on_scenes(line: str, number: int) -> list[str]:
    """The words of a command for the generated world.

    Args:
        line: The command, without the program's name.
        number: Its number, after which its output is named.
    """
    for flag in (" --regions proposals", " --proposals FILE"):
        line = line.replace(flag, "")
    name, *words = [named(word) for word in line.split()]
    if name in ("evaluate", "diagnose"):
        words = with_data(words)
    if "webdataset" in words:
        words = [
            *" ".join(words).replace("DIR", "data/tars").split(),
            "--canvas",
            "96",
            "--student",
            "scenes-s",
        ]
    words = [PLACES.get(word, word) for word in words]
    if name not in ("build-shards", "evaluate", "diagnose", "export"):
        words += ["--store", STORE]
    if name == "train" or (name == "train-refiner" and len(words) > 2 and "scenes-vfm" not in words):
        # Without another option, a Refiner has the folder in which build-shards finds it.
        words += ["--run", f"runs/{number}"]
    if name == "export":
        words += ["--out", f"runs/{number}.pt"]
    return [name, *words, *FEW.get(name, "").split()]


def named(word: str) -> str:
    """A word with the generated world's name for a data set, model, teacher or photo."""
    prefix = next(prefix for prefix in PREFIXES if word.startswith(prefix))
    model = word.removeprefix(prefix)
    return f"{prefix}{NAMES.get(model, model)}"


def with_data(words: list[str]) -> list[str]:
    """The words of evaluate or diagnose, with data to measure on."""
    text = " ".join(words)
    text = re.sub(r" --(data|split|categories) \S+", "", text)
    ranks = "detection" in words
    return [*text.split(), "--data", "data/world", "--split", "test",
            *([] if ranks else ["--categories", "scenes"])]  # fmt: skip


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The working folder: photos of several layouts in data/, and builds without Ray."""
    folder = tmp_path_factory.mktemp("papers")
    write_data(folder / "data")
    with pytest.MonkeyPatch.context() as patch, without_ray():
        patch.chdir(folder)
        patch.setenv("DENSECLI_CACHE", str(folder / "cache"))
        yield folder


def write_data(root: Path) -> None:
    """Four annotated scenes, and their photos in a tar."""
    write_coco(root / "world", seed=0, split="test", count=4)
    (root / "tars").mkdir()
    with tarfile.open(root / "tars" / "000000.tar", "w") as tar:
        for photo in sorted((root / "world" / "test").glob("*.jpg")):
            tar.add(photo, photo.name)


@pytest.mark.parametrize("number", range(len(ALL)), ids=[f"{paper}: {words}" for paper, words in ALL])
def test_command__runs_on_scenes(world: Path, number: int) -> None:
    paper, line = ALL[number]
    if line.startswith("ablate ") and line.split()[1] in OWN_STORE:
        run_with_the_hints(line.split()[1])
        return
    for start, needed in BEFORE.items():
        for extra in needed if line.startswith(start) else ():
            passed(*on_scenes(extra, len(ALL)))
    passed(*on_scenes(line, number))
    if line == f"train --method {METHOD_OF[paper]}":
        the = world / PLACES["RUN"]
        the.unlink(missing_ok=True)
        the.symlink_to(world / "runs" / str(number))


# The method whose run the rows of a paper name RUN.
METHOD_OF = {"DenseVLM": "densevlm", "DeCLIP": "declip", "R-SC-CLIPSelf": "r-sc-clipself"}


def run_with_the_hints(spec: str) -> None:
    """Looks up the columns of an ablation, after the commands that its refusal in an empty store names."""
    store = f"stores/{spec}"
    passed("build-shards", "--dataset", "scenes", "--store", store, *FEW["build-shards"].split())
    words = ["ablate", spec, "--store", store, "--dry-run"]
    _, *hints = refused(*words).split("  densecli ")
    assert hints
    for hint in hints:
        command = shlex.split(hint)
        few = [] if command[0] == "relabel" else FEW[command[0]].split()
        passed(*command, *few)
    assert passed(*words).count("densecli train ") > 1


def test_store__every_kind_of_column_was_made(world: Path) -> None:
    kinds = {column.target_kind for column in Store.open(str(world / STORE)).columns("targets")}
    assert kinds >= {"labels", "crops", "crop-labels", "gram", "self", "refined", "refined-map", "aggregated"}
    assert json.loads((world / "runs" / "the" / "config.json").read_text())["method"] == "r-sc-clipself"
