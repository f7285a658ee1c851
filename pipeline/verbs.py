"""The verbs that run teachers. Ray and torch are imported by the verb, not before."""

from collections.abc import Mapping, Sequence
from typing import Any

import click

from shards.flags import flags, given, newest_store, write_json


@click.command("build-shards")
@click.option(
    "--teacher",
    "teachers",
    multiple=True,
    metavar="NAME",
    help="MODEL (labels), features-, crops-, self- or refiner-MODEL, or a VFM such as dinov2-vitb14.",
)
@click.option(
    "--dataset",
    type=click.Choice(["coco", "folder", "sa1b", "scenes", "urls", "webdataset"]),
    default="scenes",
    show_default=True,
)
@click.option("--regions", default="grid-paper", show_default=True, metavar="PLAN", help="Region plan.")
@click.option("--proposals", metavar="FILE", help="Boxes for --regions proposals, a COCO-style json.")
@click.option("--min-iou", type=float, help="Of --regions masks: the least predicted_iou.")
@click.option("--min-stability", type=float, help="Of --regions masks: the least stability_score.")
@click.option("--shard-size", type=click.IntRange(1), metavar="N", help="Photos in a shard.")
@click.option("--workers", type=click.IntRange(1), help="Processes, each with its own teachers.")
@click.option(
    "--gpus-per-worker",
    type=click.FloatRange(0, min_open=True),
    metavar="F",
    help="GPUs of a worker; 0.5 lets two share one [all GPUs, shared evenly].",
)
@click.option(
    "--ray-address", metavar="URL", help="A Ray cluster: auto, HOST:PORT or ray://HOST:PORT [a local Ray]."
)
@click.option("--tau", type=click.FloatRange(0, min_open=True), help="Softmax temperature of the retrieval.")
@click.option(
    "--views", type=click.IntRange(1), metavar="K", help="Views of a photo that get crops or are refined."
)
@click.option("--side", type=click.IntRange(1), metavar="N", help="Tokens of a refined box: N x N.")
@click.option("--codec", type=click.Choice(["int8", "fp16", "fp32"]), help="Of crops and token factors.")
@click.option("--rank", type=click.IntRange(1), help="Of token factors.")
@click.option(
    "--gram-rmse",
    type=click.FloatRange(0, min_open=True),
    help="RMSE of the cosines to keep, in place of a rank.",
)
@click.option(
    "--student-patch", type=click.IntRange(1), metavar="PX", help="Token stride of the students to come."
)
@click.option("--templates", metavar="NAME", help="Prompts of the categories: plain or imagenet.")
@click.option(
    "--max-unreadable", type=click.IntRange(1), metavar="N", help="Unreadable photos in a row to stop at."
)
@click.option("--dry-run", is_flag=True, help="Say what is missing, write nothing.")
@flags("data", "split", "limit", "store", "canvas", "weights", "categories", "text-embeddings")
@flags("batch-size", "seed", "device", "json")
def build_shards(weights: Sequence[tuple[str, str]], json_file: str | None, **settings: Any) -> None:
    """Ask the teachers once and write what they say into a store.

    \b
    densecli build-shards --teacher vitl14 --dataset coco --split train2017
    """
    from pipeline.driver import BuildConfig
    from pipeline.driver import build_shards as build

    summary = build(BuildConfig(weights=dict(weights), **given(settings)))
    write_json(json_file, summary)
    _echo(summary)


@click.command()
@click.option("--teacher", metavar="NAME", help="The column, features-MODEL [the only one there].")
@click.option(
    "--regions", metavar="PLAN", help="Region plan, of the store or a new one [the only one there]."
)
@click.option("--proposals", metavar="FILE", help="Boxes for --regions proposals, a COCO-style json.")
@click.option("--templates", metavar="NAME", help="Prompts of the categories: plain or imagenet.")
@click.option("--tau", type=click.FloatRange(0, min_open=True), help="Softmax temperature of the retrieval.")
@click.option("--workers", type=click.IntRange(1), help="Processes.")
@click.option("--dry-run", is_flag=True, help="Say what is missing, write nothing.")
@flags("store", "categories", "text-embeddings", "weights", "json")
def relabel(
    store: str | None, weights: Sequence[tuple[str, str]], json_file: str | None, **settings: Any
) -> None:
    """Labels for other categories, prompts or boxes, out of a column of features: on a CPU, no teacher.

    \b
    densecli relabel --store stores/coco-512 --categories 133
    """
    from pipeline.relabel import RelabelConfig
    from pipeline.relabel import relabel as retrieve

    summary = retrieve(RelabelConfig(store=store or newest_store(), weights=dict(weights), **given(settings)))
    write_json(json_file, summary)
    _echo(summary)


def _echo(summary: Mapping[str, Any]) -> None:
    for column in summary["columns"]:
        click.echo(f"{column['kind']:8} {column['name']}-{column['id']}  {column['shards']} shards")
    counts = f", {summary['samples']} photos" if "samples" in summary else ""
    skipped = ", ".join(f"{n} {reason}" for reason, n in summary.get("skipped", {}).items())
    click.echo(
        f"{summary['store']}: {summary['status']}{counts}" + (f"; skipped {skipped}" if skipped else "")
    )
