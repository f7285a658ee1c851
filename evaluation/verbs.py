"""The verbs that measure."""

from collections.abc import Sequence
from typing import Any

import click

from shards.flags import flags, given, write_json


@click.command()
@click.option("--mode", metavar="NAME", help="How the last block is read out.")
@click.option("--classes", is_flag=True, help="Print a row per class as well.")
@click.option("--coupling", is_flag=True, help="Only how alike the tokens of different segments are.")
@click.option("--refiner", metavar="FILE", help="With --coupling: also of the model's Refiner.")
@flags("data", "split", "limit", "run", "student", "weights", "categories", "text-embeddings", "canvas")
@flags("batch-size", "device", "json")
def evaluate(
    data: str | None,
    split: str | None,
    limit: int | None,
    run: str | None,
    student: str | None,
    weights: Sequence[tuple[str, str]],
    categories: str | None,
    text_embeddings: str | None,
    device: str,
    classes: bool,
    coupling: bool,
    refiner: str | None,
    json_file: str | None,
    **settings: Any,
) -> None:
    """Region classification on a panoptic dataset: Boxes, Masks-T, Masks-S, stuff called a thing.

    \b
    densecli evaluate --data data/coco --split val2017 --run runs/densevlm-eva02-b16-coco-512
    """
    from evaluation.classify import ClassifyConfig
    from evaluation.coupling import evaluate_coupling
    from evaluation.region import Subject, evaluate_regions
    from evaluation.report import class_table, coupling_table, report
    from models.checkpoints import weights_given

    path = weights_given(student, weights) if student else None
    subject = Subject.of_run(run) if run else Subject(model=student or "eva02-b16", weights=path)
    where: dict[str, Any] = {
        "data": data or "data/coco",
        "split": split or "val2017",
        "limit": limit,
        "categories": categories or "133",
        "device": device,
        "config": ClassifyConfig(**{**(subject.settings or {}), **given(settings)}),
    }
    if coupling:
        ratios = evaluate_coupling(subject, refiner, **where)
        write_json(json_file, ratios)
        click.echo(coupling_table(ratios))
        return
    result = evaluate_regions(subject, text_embeddings_file=text_embeddings, **where)
    write_json(json_file, {subject.title: result.to_dict()})
    click.echo(report({subject.title: result}))
    if classes:
        click.echo(class_table(result))
