"""The settings of export."""

from dataclasses import dataclass
from typing import Literal

from densecli.core.settings import setting
from densecli.shards.config import DryRunSettings


@dataclass(frozen=True, kw_only=True)
class ExportConfig(DryRunSettings):
    """The settings of export."""

    layout: str = setting(
        help="Checkpoint layout; densecli list exports describes them.",
        group="export",
        metavar="NAME",
        registry="exports",
    )
    run: str | None = setting(
        None,
        help="Run whose student to export.",
        group="source",
        metavar="DIR",
        default_text="the newest in runs/",
        path=True,
        by_position=True,
    )
    checkpoint: str | None = setting(
        None,
        help="Checkpoint of a run, or any weights of --student.",
        group="source",
        metavar="FILE",
        default_text="the run's export",
        path=True,
    )
    student: str | None = setting(
        None,
        help="Model that the weights in --checkpoint belong to.",
        group="source",
        metavar="NAME",
        default_text="from their model card",
    )
    alpha: float | None = setting(
        None,
        help="Averages the run's last checkpoint again, with this share of the trained weights.",
        group="source",
        min=0,
        max=1,
        default_text="the run's export as it is",
    )
    mode: str | None = setting(
        None,
        help="Read-out mode to write into the new model card.",
        group="export",
        metavar="NAME",
        default_text="the run's, else value",
    )
    format: Literal["safetensors", "pt"] | None = setting(
        None,
        help="File format.",
        group="export",
        default_text="from the ending of --out, else what readers of the layout open",
    )
    out: str | None = setting(
        None,
        help="File to write.",
        group="export",
        metavar="FILE",
        default_text="RUN/export/LAYOUT.FORMAT",
        path=True,
    )
