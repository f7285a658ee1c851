"""The command `diagnose`: pictures and figures of a model on any photos, before and after training."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypedDict

import click

from densecli.commands.command import command
from densecli.commands.evaluate import WEIGHTS, EvaluateSettings
from densecli.commands.options import Options
from densecli.commands.photo_paths import photo_paths
from densecli.commands.results import Result
from densecli.core.settings import Settings, changed, setting
from densecli.evaluation.diagnosis_config import DiagnosisConfig

if TYPE_CHECKING:
    from densecli.evaluation.model_under_test import ModelUnderTest
    from densecli.evaluation.photo_files import Photos


@dataclass(frozen=True, kw_only=True)
class DiagnoseSettings(Settings):
    """The model, and where the page goes."""

    run: str | None = changed(
        EvaluateSettings,
        "run",
        help="Run whose student is shown, before and after.",
        default_text="the newest in runs/",
    )
    student: str | None = setting(
        None, help="Model to show.", group="model", metavar="NAME", default_text="the run's"
    )
    out: str | None = setting(
        None,
        help="Writes the page to DIR/index.html.",
        group="output",
        metavar="DIR",
        default_text="diagnosis in the run's folder, else diagnosis",
        path=True,
    )


class Diagnosed(TypedDict):
    """What was drawn and measured of a model."""

    page: Annotated[str, "The page."]
    photos: Annotated[list[str], "The drawn photos."]
    measured_photos: Annotated[int, "Photos that the figures are of."]
    categories: Annotated[str, "Category set."]
    canvas: Annotated[int, "Side of the canvas in pixels."]
    mode: Annotated[str, "How the last block was read out."]
    notes: Annotated[list[str], "What is left out, and why."]
    models: Annotated[
        dict[str, dict[str, Any]],
        "Each model: weights, coupling ratios, proxy scores, and regions as of evaluate.",
    ]


@command(DiagnoseSettings, DiagnosisConfig, WEIGHTS, results=(Result(fields=Diagnosed),))
def diagnose(options: Options) -> None:
    """Show what a model, or the student of a run before and after, does with a few photos, as one page:
    attention and correlations by layer, proxy tokens, similarity to texts, segmentations, coupling.

    Any photos will do; with --split, those of an annotated data set, also the confusion of its regions.

    \b
    densecli diagnose --run runs/declip-eva02-b16-coco-560 --data photos/
    densecli diagnose --student dinov2-vits14 --data street.jpg --point 0.3 0.6
    """
    from densecli.commands.run_data import categories_of, on_the_runs_data, store_of
    from densecli.evaluation.diagnosis import diagnose as measure
    from densecli.evaluation.diagnosis_page import figures_table, write_diagnosis_page
    from densecli.models.categories import load_categories

    options = options.with_run("student")
    settings = options.make(DiagnoseSettings)
    models_under_test = _models_under_test(settings, options)
    model = list(models_under_test.values())[-1]
    asked = options.make(DiagnosisConfig)
    options = on_the_runs_data(options, settings.run, photos=_count(asked))
    own = {k: v for k, v in (model.settings or {}).items() if k not in options.given}
    config = options.make(DiagnosisConfig, **own)
    # Annotated photos have categories of their own.
    of_run = "" if config.split or "categories" in options.given else store_of(settings.run)
    categories = categories_of(of_run) if of_run else load_categories(config.categories)
    photos = _photos(config, categories)
    found = measure(models_under_test, photos, categories, config)
    page = write_diagnosis_page(
        settings.out or (str(Path(settings.run) / "diagnosis") if settings.run else "diagnosis"),
        f"Diagnosis of {model.title}",
        found,
        read_out=f"categories {categories.name}, canvas {config.canvas} px, mode {config.mode}",
        note=categories.note,
    )
    values = {
        "page": str(page),
        "photos": [photo.key for photo in found.photos],
        "measured_photos": found.measured_photos,
        "categories": categories.name,
        "canvas": config.canvas,
        "mode": config.mode,
        "notes": list(found.notes),
        "models": {title: each.to_dict() for title, each in found.models.items()},
    }
    options.say("\n".join([figures_table(found).text(), *found.notes, f"Page: {page}"]), values)


def _models_under_test(settings: DiagnoseSettings, options: Options) -> "dict[str, ModelUnderTest]":
    """The models by title."""
    from densecli.evaluation.model_under_test import ModelUnderTest
    from densecli.models.weights import weights_given

    pairs = options.get("weights", ())
    if bool(settings.run) == bool(settings.student):
        raise click.UsageError("Give --run or --student.")
    if settings.run:
        after = ModelUnderTest.of_run(settings.run)
        before = ModelUnderTest.before_run(settings.run, weights_given(after.model, pairs))
        return {"before": before, "after": after}
    name = str(settings.student)
    return {name: ModelUnderTest.named(name, weights_given(name, pairs))}


def _photos(config: DiagnosisConfig, categories: Any) -> "Photos":
    """Opens the photos."""
    from densecli.evaluation.panoptic import PanopticDataset
    from densecli.evaluation.photo_files import PhotoFiles

    if not config.data:
        raise click.UsageError("Give --data, a photo or a folder of photos.")
    if config.split is None:
        return PhotoFiles([each.path for each in photo_paths(config.data, "--data")], _count(config))
    if len(config.data) > 1:
        raise click.UsageError("With --split, --data is the folder of one data set.")
    return PanopticDataset(config.data[0], config.split, categories, _count(config))


def _count(config: DiagnosisConfig) -> int:
    """The number of photos that are read."""
    return max(config.limit, config.measured_photos)
