"""The settings of share and adopt."""

from dataclasses import dataclass

from densecli.core.settings import changed, setting
from densecli.pipeline.relabel_config import RelabelConfig
from densecli.shards.config import DryRunSettings, StoreSettings

_COLUMNS = "Column of targets, NAME or NAME-ID. May be given several times."


@dataclass(frozen=True, kw_only=True)
class ShareConfig(StoreSettings):
    """The settings of share."""

    out: str | None = setting(
        None,
        help="Folder or address to write.",
        group="run",
        metavar="URL",
        default_text="shared/STORE",
        path=True,
    )
    columns: tuple[str, ...] = setting(
        (), flag="column", help=_COLUMNS, group="data", metavar="NAME", default_text="every finished one"
    )
    licence: str | None = setting(
        None,
        help="Licence under which you publish the columns, such as cc-by-4.0.",
        group="run",
        metavar="NAME",
        default_text="the card says that there is none yet",
    )


@dataclass(frozen=True, kw_only=True)
class AdoptConfig(StoreSettings, DryRunSettings):
    """The settings of adopt."""

    shared: str = setting(
        help="Folder or address that densecli share has written.",
        group="data",
        metavar="URL",
        argument=True,
        path=True,
    )
    columns: tuple[str, ...] = setting(
        (), flag="column", help=_COLUMNS, group="data", metavar="NAME", default_text="all that are shared"
    )
    workers: int = changed(RelabelConfig, "workers")
