"""The command `build-shards`: runs teachers once over photos."""

from collections.abc import Mapping, Sequence
from typing import Any

import click

from densecli.commands.command import command
from densecli.commands.method_needs import METHOD, STUDENT, build_for
from densecli.commands.options import Options
from densecli.core.passed_over import in_words
from densecli.core.tables import plain
from densecli.pipeline.config import BuildConfig


@command(BuildConfig, METHOD, STUDENT)
def build_shards(options: Options) -> None:
    """Run teachers once over a data set and write what they say into a store.

    What the store has already is left alone: the same command continues a build that was stopped.

    \b
    densecli build-shards --teacher vitl14 --dataset coco --split train2017
    densecli build-shards --method declip --student eva02-b16 --dataset coco
    """
    from densecli.pipeline.build_shards import build_shards as build

    summary = build(build_for(options))
    options.write(summary)
    show_summary(summary)


def examples(count: int, names: Sequence[str]) -> str:
    """The first names of so many, in brackets; empty where there are none."""
    more = ", ..." if names and count > len(names) else ""
    return f" ({', '.join(map(plain, names))}{more})" if names else ""


def show_summary(summary: Mapping[str, Any]) -> None:
    """Prints the columns of a build or a relabelling and how many photos they have."""
    for column in summary["columns"]:
        click.echo(f"{column['kind']:8} {column['name']}-{column['id']}  {column['shards']} shards")
    counts = f", {summary['samples']} photos" if "samples" in summary else ""
    first = summary.get("skipped_first", {})
    skipped = ", ".join(
        f"{n} {reason}{examples(n, first.get(reason, ()))}"
        for reason, n in summary.get("skipped", {}).items()
    )
    click.echo(
        f"{summary['store']}: {summary['status']}{counts}" + (f"; skipped {skipped}" if skipped else "")
    )
    if proposals := summary.get("proposals"):
        click.echo(
            f"Proposals: {proposals['matched']} of {proposals['photos']} photos have boxes; "
            f"{proposals['unmatched']} names in the file are of no listed photo; "
            f"of {proposals['boxes']} boxes {proposals['left_out']} are left out by their area, "
            f"{proposals['duplicates']} are there twice"
        )
    if passed := in_words(summary.get("passed_over", {})):
        click.echo(f"Passed over in the listing: {passed}")
