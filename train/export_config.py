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
        help="Run whose student is exported.",
        group="source",
        metavar="DIR",
        default_text="--checkpoint in its place",
        path=True,
    )
    checkpoint: str | None = setting(
        None,
        help="Checkpoint of a run, or any weights of --student.",
        group="source",
        metavar="FILE",
        default_text="--run in its place",
        path=True,
    )
    student: str | None = setting(
        None,
        help="Architecture of the weights in --checkpoint.",
        group="source",
        metavar="NAME",
        default_text="what their card says",
    )
    alpha: float | None = setting(
        None,
        help="Averages the last checkpoint of the run anew, with this share of the trained weights.",
        group="source",
        min=0,
        max=1,
        default_text="what the run exported",
    )
    mode: str | None = setting(
        None,
        help="Read-out that the new card names.",
        group="export",
        metavar="NAME",
        default_text="the run's, else value",
    )
    format: Literal["safetensors", "pt"] | None = setting(
        None,
        help="File format.",
        group="export",
        default_text="as --out ends, else what readers of the layout open",
    )
    out: str | None = setting(
        None,
        help="File to write.",
        group="export",
        metavar="FILE",
        default_text="RUN/export/LAYOUT.FORMAT",
        path=True,
    )
