"""The verbs that run teachers. Ray and torch are imported by the verb, not before."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import click

from densecli.commands.flags import flags, given, newest_store, say, write_json

# What says which store is meant, in a build and in the plan of one.
BUILD = (
    click.option(
        "--teacher",
        "teachers",
        multiple=True,
        metavar="NAME",
        help="MODEL (labels), features-, crops-, self- or refiner-MODEL, or a VFM such as dinov2-vitb14.",
    ),
    click.option("--dataset", required=True, metavar="NAME", help="Data set, such as coco or folder."),
    click.option("--regions", default="grid-paper", show_default=True, metavar="PLAN", help="Region plan."),
    click.option("--proposals", metavar="FILE", help="Boxes for --regions proposals, a COCO-style json."),
    click.option("--min-iou", type=float, help="Of --regions masks: the least predicted_iou."),
    click.option("--min-stability", type=float, help="Of --regions masks: the least stability_score."),
    click.option("--shard-size", type=click.IntRange(1), metavar="N", help="Photos in a shard."),
    click.option("--tau", type=click.FloatRange(0, min_open=True), help="Softmax temperature of labels."),
    click.option(
        "--views", type=click.IntRange(1), metavar="K", help="Views of a photo that get crops or are refined."
    ),
    click.option("--side", type=click.IntRange(1), metavar="N", help="Tokens of a refined box: N x N."),
    click.option("--codec", type=click.Choice(["int8", "fp16", "fp32"]), help="Of crops and token factors."),
    click.option("--rank", type=click.IntRange(1), help="Of token factors."),
    click.option(
        "--gram-rmse",
        type=click.FloatRange(0, min_open=True),
        help="RMSE of the cosines to keep, in place of a rank.",
    ),
    click.option(
        "--student-patch", type=click.IntRange(1), metavar="PX", help="Token stride of the students to come."
    ),
    click.option("--templates", metavar="NAME", help="Prompts of the categories: plain or imagenet."),
    flags("data", "split", "limit", "store", "canvas", "categories", "text-embeddings", "batch-size", "seed"),
)


def build_flags(verb: Callable) -> Callable:
    """The flags of a build's content."""
    for flag in reversed(BUILD):
        verb = flag(verb)
    return verb


@click.command("build-shards")
@build_flags
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
@click.option(
    "--max-unreadable", type=click.IntRange(1), metavar="N", help="Unreadable photos in a row to stop at."
)
@click.option("--dry-run", is_flag=True, help="Say what is missing, write nothing.")
@flags("weights", "device", "json")
def build_shards(weights: Sequence[tuple[str, str]], json_file: str | None, **settings: Any) -> None:
    """Ask the teachers once and write what they say into a store.

    \b
    densecli build-shards --teacher vitl14 --dataset coco --split train2017
    """
    from densecli.pipeline.build_shards import BuildConfig
    from densecli.pipeline.build_shards import build_shards as build

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
    from densecli.pipeline.relabel import RelabelConfig
    from densecli.pipeline.relabel import relabel as retrieve

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


@click.command()
@build_flags
@click.option("--photos", type=click.IntRange(1), metavar="N", help="Plan for N photos like those there.")
@click.option("--samples", type=click.IntRange(1), default=256, show_default=True, help="Photos to look at.")
@click.option(
    "--tflops",
    type=click.FloatRange(0, min_open=True),
    default=100.0,
    show_default=True,
    help="What a GPU does a second, in 1e12 FLOPs.",
)
@click.option("--calibrate", is_flag=True, help="Measure that instead, with the teachers' weights.")
@flags("weights", "device", "json")
def plan(
    photos: int | None,
    samples: int,
    tflops: float,
    calibrate: bool,
    training: Mapping[str, Any],
    weights: Sequence[tuple[str, str]],
    json_file: str | None,
    **settings: Any,
) -> None:
    """Bytes, FLOPs and hours of a build, and after how many trainings it has paid for itself. Writes nothing.

    Takes the flags of build-shards and those of train that say what it reads and for how long. With --method
    or --loss, teachers that it reads and nobody named are planned too. Needs some of the photos, and no
    weights but to --calibrate.

    \b
    densecli plan --teacher vitl14 --dataset coco --split train2017
    densecli plan --method declip --student eva02-b16 --dataset coco --epochs 6
    """
    from densecli.pipeline.config import BuildConfig
    from densecli.pipeline.plan import PlanConfig, report
    from densecli.pipeline.plan import plan as make

    config = PlanConfig(
        build=BuildConfig(weights=dict(weights), **given(settings)),
        photos=photos,
        samples=samples,
        tflops=tflops,
        calibrate=calibrate,
        **training,
    )
    planned = make(config)
    say(report(planned), json_file, planned)


@click.command()
@click.option("--teacher", "teachers", multiple=True, metavar="NAME", help="A column, else all. May repeat.")
@click.option("--samples", type=click.IntRange(1), default=16, show_default=True, help="Photos of a column.")
@click.option(
    "--tolerance",
    type=click.FloatRange(0),
    default=0.01,
    show_default=True,
    help="How much larger an error may be than recorded.",
)
@flags("store", "weights", "categories", "text-embeddings", "batch-size", "device", "json")
@click.pass_context
def verify(
    ctx: click.Context,
    store: str | None,
    samples: int,
    weights: Sequence[tuple[str, str]],
    json_file: str | None,
    **settings: Any,
) -> None:
    """Ask the teachers again about some photos and compare with what is stored.

    Exits with 1 where an error is larger than its receipt says by more than --tolerance. Weights other than
    the column's own are refused.

    \b
    densecli verify --store stores/coco-512 --samples 32
    """
    from densecli.pipeline.verify import VerifyConfig, report
    from densecli.pipeline.verify import verify as ask_again

    config = VerifyConfig(
        store=store or newest_store(), samples=samples, weights=dict(weights), **given(settings)
    )
    verified = ask_again(config)
    say(report(verified), json_file, verified)
    if not verified["verified"]:
        ctx.exit(1)
