"""The command `preview`: draws what is stored of one photo."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, TypedDict

from densecli.commands.command import command
from densecli.commands.options import Options
from densecli.commands.results import Result
from densecli.core.settings import changed, setting
from densecli.pipeline.verify_config import VerifyConfig
from densecli.shards.config import DeviceSettings, StoreSettings

if TYPE_CHECKING:
    from densecli.evaluation.preview import LiveTeacher
    from densecli.shards.store import Column, Store


@dataclass(frozen=True, kw_only=True)
class PreviewSettings(StoreSettings, DeviceSettings):
    """The settings of preview."""

    key: str = setting(help="Key of the photo.", group="data", argument=True)
    teachers: tuple[str, ...] = setting(
        (),
        flag="teacher",
        help="Column to draw, NAME or NAME-ID. May be given several times.",
        group="data",
        metavar="NAME",
        default_text="every column",
    )
    view: int | None = setting(
        None,
        help="View whose cells to draw.",
        group="picture",
        min=0,
        metavar="N",
        default_text="6, or the last one of a photo with fewer",
    )
    point: tuple[float, float] = setting(
        (0.5, 0.5),
        help="Point whose affinities are drawn, as shares of the photo.",
        group="picture",
        min=0,
        max=1,
        metavar="X Y",
    )
    theta: float | None = setting(
        None,
        help="Also draws the cells that a loss with this theta keeps.",
        group="picture",
        min=0,
        max=1,
        metavar="P",
        default_text="all cells alone",
    )
    live: bool = setting(False, help="Draws the teacher's own maps beside the stored ones.", group="picture")
    run: str | None = setting(
        None,
        help="Draws the affinities of this run's student, before and after.",
        group="picture",
        metavar="DIR",
        default_text="none",
        path=True,
    )
    weights: Mapping[str, str] = changed(
        VerifyConfig, "weights", help="With --live: weights of a teacher, NAME=PATH."
    )
    out: str | None = setting(
        None, help="PNG file to write.", group="output", metavar="FILE", default_text="KEY.png", path=True
    )


class Preview(TypedDict):
    """A picture of what is stored."""

    picture: Annotated[str, "The file."]
    columns: Annotated[list[str], "NAME-ID of each column that is drawn."]


@command(PreviewSettings, results=(Result(fields=Preview),))
def preview(options: Options) -> None:
    """Draw what a store holds for one photo: cells and labels, affinities of a point, crops.

    With --run also the affinities of its student, before and after.

    \b
    densecli preview 000000000009 --store stores/coco-512 --point 0.4 0.6
    """
    from densecli.evaluation.preview import PreviewRequest, draw_preview
    from densecli.models.teacher_names import find_teacher_column
    from densecli.shards.parted_store import open_store

    config = options.make(PreviewSettings, store=options.get("store") or _stores_of(options) or options.store)
    store = open_store(config.store)
    columns = [find_teacher_column(store, name) for name in config.teachers] or store.columns("targets")
    request = PreviewRequest(
        key=config.key,
        view=config.view,
        point=config.point,
        theta=config.theta,
        live_teacher=_live_teacher(store, config) if config.live else None,
        students=_students(config) if config.run else {},
    )
    drawn = draw_preview(store, columns, request)
    file = config.out or f"{config.key}.png"
    drawn.save(file)
    names = [column.full_name for column in columns]
    options.say(f"{', '.join(names)}: {file}", {"picture": file, "columns": names})


def _stores_of(options: Options) -> str:
    """The stores that the run of --run reads, if there is one and they are still there."""
    from densecli.commands.run_data import store_of
    from densecli.core.progress import say

    found = store_of(options.get("run"))
    if found:
        say(f"The run's store is taken, {found}.")
    return found


def _students(config: PreviewSettings) -> dict[str, Any]:
    """The dense maps of a run's student, before and after."""
    from densecli.core.device import pick_device
    from densecli.evaluation.model_under_test import ModelUnderTest

    run, device = str(config.run), pick_device(config.device)
    models = {"before": ModelUnderTest.before_run(run), "after": ModelUnderTest.of_run(run)}
    return {name: each.token_map((each.settings or {})["mode"], device) for name, each in models.items()}


def _live_teacher(store: "Store", config: PreviewSettings) -> "LiveTeacher":
    """Runs the teacher of a column of token maps."""
    from densecli.evaluation.preview import find_record
    from densecli.pipeline.verify import live_target, regions_beside

    verify = VerifyConfig(store=store.root, weights=config.weights, device=config.device)

    def live(column: "Column", key: str) -> Any:
        return live_target(store, column, find_record(store, [regions_beside(store, column)], key), verify)

    return live
