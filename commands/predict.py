"""The command `predict`: names what is in photos, as pictures and JSON."""

import json
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypedDict

import click

from densecli.commands.command import command
from densecli.commands.diagnose import DiagnoseSettings
from densecli.commands.evaluate import WEIGHTS
from densecli.commands.options import Options
from densecli.commands.photo_paths import PhotoPath, photo_paths
from densecli.commands.results import Result
from densecli.core.errors import DenseCLIError
from densecli.core.progress import say
from densecli.core.settings import Settings, changed
from densecli.core.tables import plain, readable
from densecli.evaluation.prediction_config import PredictConfig

if TYPE_CHECKING:
    from densecli.models.categories import Categories
    from densecli.models.encoder import Encoder, SeenPhoto
    from densecli.models.prediction import Names, Prediction

NAMED = 3
"""So many photos that cannot be read are named on the terminal; the JSON names all."""
STEM_BYTES = 150
"""Bytes of a photo's name in the names of its pictures."""
BATCH_SIZE = 8
THREADS = 2
"""Photos decoded at the same time: a large one takes gigabytes."""


@dataclass(frozen=True, kw_only=True)
class PredictSettings(Settings):
    """The model, and where the pictures go."""

    run: str | None = changed(
        DiagnoseSettings,
        "run",
        help="Run whose student to use, or an exported file with its model card.",
    )
    student: str | None = changed(DiagnoseSettings, "student", help="Model to use, a CLIP.")
    out: str | None = changed(
        DiagnoseSettings,
        "out",
        help="Folder for the pictures and predictions.json.",
        default_text="predictions in the run's folder, else predictions",
    )


class PhotoPrediction(TypedDict):
    """What was seen in a photo."""

    photo: Annotated[str, "Its path."]
    width: Annotated[int, "Width in pixels."]
    height: Annotated[int, "Height in pixels."]
    shares: Annotated[dict[str, float], "Share of the pixels that have each name."]
    regions: Annotated[list[dict[str, Any]], "Each box with its name, probability, cosine and share."]
    pictures: Annotated[dict[str, str], "The files drawn, by kind."]


class Predicted(TypedDict):
    """What was seen in photos."""

    model: Annotated[str, "Name of the model."]
    weights: Annotated[str, "Where its weights are from."]
    random_weights: Annotated[bool, "Whether they began as random ones."]
    canvas: Annotated[int, "Side of the canvas in pixels."]
    mode: Annotated[str, "How the last block was read out."]
    names: Annotated[list[str], "The names."]
    boxes: Annotated[str, "Where the boxes are from."]
    scale: Annotated[float, "Factor of the cosines in the softmax."]
    threshold: Annotated[float, "Probability below which a pixel has no name."]
    photos: Annotated[list[PhotoPrediction], "Each photo."]
    left_out: Annotated[dict[str, str], "Photos that could not be read, with the reason."]


@command(PredictSettings, PredictConfig, WEIGHTS, results=(Result(fields=Predicted),))
def predict(options: Options) -> None:
    """Name what is in photos: a segmentation, boxes with names and heat maps, as PNG and JSON.

    The names are yours, or a category set's. Every pixel gets one of them, so name what else is in the photos
    too, or set a --threshold. Boxes are those of --proposals, else those around connected pixels of one name:
    nothing searches for objects, and two of one name that touch are one box.

    \b
    densecli predict street.jpg --run runs/densevlm-eva02-b16-coco-512 --names "dog, sofa, wall"
    densecli predict photos/ --student vitb16 --weights vitb16.pt --categories 133 --out looks
    """
    from densecli.core.progress import Progress
    from densecli.evaluation.prediction_pictures import heat_names, pictures_of

    options = options.with_run("student")
    settings = options.make(PredictSettings)
    config = options.make(PredictConfig)
    categories = _categories(config, settings.run)
    if absent := [name for name in config.heat if name not in categories.names]:
        raise DenseCLIError(
            f"--heat {plain(absent[0])} is not among the names.", hint="Give it with --names too."
        )
    photos = photo_paths(config.photos, "the photos")
    if not photos:
        raise DenseCLIError("There is no photo in what was given.", hint="Name photos, or folders with some.")
    boxes = _boxes(config.proposals, photos)
    encoder, about = _encoder(settings, options, config)
    names = _names(encoder, categories, config)
    folder = _folder(settings)
    stems, left_out = _Stems(), {}
    found: list[dict[str, Any]] = []
    progress = Progress(len(photos), "photos", silence=3)
    with closing(_seen(encoder, photos)) as seen:
        while batch := list(islice(seen, BATCH_SIZE)):
            readable_ones = [(photo, image) for photo, image in batch if not isinstance(image, str)]
            left_out.update({readable(str(p.path)): image for p, image in batch if isinstance(image, str)})
            given = None if boxes is None else [boxes.get(p.name, []) for p, _ in readable_ones]
            predictions = encoder.compare([image for _, image in readable_ones], names, boxes=given)
            for (photo, _), each in zip(readable_ones, predictions, strict=True):
                drawn = pictures_of(each, heat_names(each, config.heat, config.heat_maps), config.side)
                files = _write(folder, stems.new(photo.name), each, drawn)
                found.append({"photo": readable(str(photo.path)), **each.to_dict(), "pictures": files})
            progress.advance(len(batch))
    progress.close()
    if not found:
        raise DenseCLIError(next(iter(left_out.values())), hint="Give photos that can be opened.")
    values = {
        **about,
        "names": list(categories.names),
        "boxes": config.proposals or "connected parts of the segmentation",
        "scale": config.scale,
        "threshold": config.threshold,
        "photos": found,
        "left_out": left_out,
    }
    (folder / "predictions.json").write_text(json.dumps(values, indent=1) + "\n")
    options.say(_told(found, left_out, about, folder), values)


def _categories(config: PredictConfig, run: str | None) -> "Categories":
    """The names that were given, else the categories of the run's store."""
    from densecli.commands.run_data import categories_of, store_of
    from densecli.models.categories import Categories, load_categories

    if config.names and config.categories:
        raise click.UsageError("Give --names or --categories.")
    if config.categories:
        return load_categories(config.categories)
    if config.names is None:
        if not (store := store_of(run)):
            raise click.UsageError("Give --names or --categories.")
        found = categories_of(store)
        say(f"The categories of the run's store are taken: {found.name} ({len(found.names)}).")
        return found
    names = tuple(dict.fromkeys(name for each in str(config.names).split(",") if (name := each.strip())))
    if not names:
        raise DenseCLIError("--names has no name.", hint='Separate names by commas: --names "dog, sofa".')
    return Categories(name="names", names=names, thing=None)


def _boxes(proposals: str | None, photos: Sequence[PhotoPath]) -> dict[str, Any] | None:
    """The boxes of each photo by its name, (N, 4) xyxy in pixels; None without a file of boxes."""
    import numpy as np

    from densecli.shards.proposals import compare_names, read_proposals

    if proposals is None:
        return None
    read = read_proposals(proposals)
    facts = compare_names(read, (photo.name for photo in photos), lambda _: "")
    if lacking := facts["photos"] - facts["matched"]:
        say(f"{proposals} has no box for {lacking} of {facts['photos']} photos.")
    found = {}
    for name, rows in read.boxes.items():
        xywh = np.array(rows, np.float64).reshape(-1, 5)[:, :4]
        xywh = xywh[(xywh[:, 2:] > 0).all(1)]
        found[name] = np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], 1)
    return found


def _encoder(
    settings: PredictSettings, options: Options, config: PredictConfig
) -> "tuple[Encoder, dict[str, Any]]":
    """The model, and what it is."""
    from densecli.core.device import pick_device
    from densecli.evaluation.model_under_test import ModelUnderTest
    from densecli.models.encoder import Encoder
    from densecli.models.weights import weights_given

    if bool(settings.run) == bool(settings.student):
        raise click.UsageError("Give --run or --student.")
    pairs = options.get("weights", ())
    if settings.run and pairs:
        raise click.UsageError("--weights is for --student: a run has weights of its own.")
    if settings.run:
        under_test = ModelUnderTest.of_run(settings.run)
    else:
        name = str(settings.student)
        under_test = ModelUnderTest.named(name, weights_given(name, pairs))
    read_out: dict[str, Any] = {"canvas": config.canvas, "mode": config.mode}
    read_out |= {k: v for k, v in (under_test.settings or {}).items() if k not in options.given}
    model, info = under_test.load_student(pick_device(config.device))
    model.check_mode(read_out["mode"])
    encoder = Encoder(model, canvas=read_out["canvas"], mode=read_out["mode"])
    about = {"model": under_test.model, "weights": info.source, "random_weights": info.random, **read_out}
    return encoder, about


def _names(encoder: "Encoder", categories: "Categories", config: PredictConfig) -> "Names":
    from densecli.models.prompts import find_templates
    from densecli.models.text import load_text_embeddings

    text = None
    if config.text_embeddings:
        width = encoder.model.embed_dim
        text = load_text_embeddings(config.text_embeddings, len(categories), width)
        text = text.to(next(encoder.model.parameters()).device)
    return encoder.names(
        categories.names,
        text=text,
        thing=None if categories.decided else categories.thing,
        templates=find_templates(config.templates) if config.templates else None,
        scale=config.scale,
        threshold=config.threshold,
        min_share=config.min_share,
    )


def _folder(settings: PredictSettings) -> Path:
    run = Path(settings.run) if settings.run else None
    beside = run / "predictions" if run and run.is_dir() else Path("predictions")
    folder = Path(settings.out) if settings.out else beside
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _seen(encoder: "Encoder", photos: Sequence[PhotoPath]) -> "Generator[tuple[PhotoPath, SeenPhoto | str]]":
    """Each photo as the model sees it, or why it cannot be read; some are decoded ahead."""
    from densecli.core.prefetch import prefetch

    def see(photo: PhotoPath) -> "tuple[PhotoPath, SeenPhoto | str]":
        try:
            return photo, encoder.see(photo.path)
        except DenseCLIError as error:
            return photo, plain(readable(str(error)), 240)

    return prefetch(see, photos, threads=THREADS, window=2 * BATCH_SIZE)


class _Stems:
    """Beginnings of file names, none of them twice."""

    def __init__(self) -> None:
        self._taken: set[str] = set()

    def new(self, photo: str) -> str:
        """The photo's name without its ending, made safe for any file system and unique."""
        stem = plain(readable(Path(photo).stem)).replace("/", "_").replace("\\", "_")
        stem = stem.encode()[:STEM_BYTES].decode(errors="ignore") or "photo"
        found, number = stem, 1
        while found in self._taken:
            number += 1
            found = f"{stem}-{number}"
        self._taken.add(found)
        return found


def _write(folder: Path, stem: str, prediction: "Prediction", drawn: Any) -> dict[str, str]:
    """Writes the pictures of a photo. Returns their paths by kind."""
    from PIL import Image

    files = {}
    for number, (kind, picture) in enumerate(drawn.items()):
        # A name may hold anything, so its picture is numbered.
        ending = f"heat-{number - 1}" if kind.startswith("heat-") else kind
        files[kind] = str(folder / f"{stem}-{ending}.png")
        picture.save(files[kind])
    # 0: no name; c + 1: name c.
    labels = Image.fromarray((prediction.full_labels() + 1).astype("uint16"))
    files["labels"] = str(folder / f"{stem}-labels.png")
    labels.save(files["labels"])
    return files


def _told(
    found: Sequence[dict[str, Any]], left_out: dict[str, str], about: dict[str, Any], folder: Path
) -> str:
    lines = []
    for each in found[:NAMED]:
        shares = [f"{name} {share:.0%}" for name, share in list(each["shares"].items())[:NAMED]]
        lines.append(f"{each['photo']}: {', '.join(shares)}; {len(each['regions'])} boxes")
    if len(found) > NAMED:
        lines.append(f"... and {len(found) - NAMED} more.")
    if left_out:
        count = "1 photo is" if len(left_out) == 1 else f"{len(left_out)} photos are"
        more = " ..." if len(left_out) > NAMED else ""
        lines.append(f"{count} left out. {' '.join(list(left_out.values())[:NAMED])}{more}")
    if about["random_weights"]:
        lines.append("The weights are random: what is named means nothing.")
    return "\n".join([*lines, f"Pictures and predictions.json: {folder}"])
