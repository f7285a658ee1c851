"""The verbs that measure."""

from collections.abc import Sequence
from typing import Any

import click

from shards.flags import flags, given, write_json


@click.command()
@click.option("--mode", metavar="NAME", help="How the last block is read out.")
@click.option("--classes", is_flag=True, help="Print a row per class as well.")
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
    json_file: str | None,
    **settings: Any,
) -> None:
    """Region classification on a panoptic dataset: Boxes, Masks-T, Masks-S, stuff called a thing.

    \b
    densecli evaluate --data data/coco --split val2017 --run runs/densevlm-eva02-b16-coco-512
    """
    from evaluation.classify import ClassifyConfig
    from evaluation.region import Subject, evaluate_regions
    from evaluation.report import class_table, report
    from models.checkpoints import weights_given

    path = weights_given(student, weights) if student else None
    subject = Subject.of_run(run) if run else Subject(model=student or "eva02-b16", weights=path)
    result = evaluate_regions(
        subject,
        data=data or "data/coco",
        split=split or "val2017",
        limit=limit,
        categories=categories or "133",
        text_embeddings_file=text_embeddings,
        device=device,
        config=ClassifyConfig(**{**(subject.settings or {}), **given(settings)}),
    )
    write_json(json_file, {subject.title: result.to_dict()})
    click.echo(report({subject.title: result}))
    if classes:
        click.echo(class_table(result))
