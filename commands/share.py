"""The command `share`: columns of a store for others, without the photos."""

from typing import Annotated, TypedDict

from densecli.commands.command import command
from densecli.commands.options import Options
from densecli.commands.results import Result
from densecli.core.tables import size
from densecli.pipeline.share_config import ShareConfig


class Shared(TypedDict):
    """Columns to share."""

    shared: Annotated[str, "Address of the folder."]
    version: Annotated[int, "Version of the folder's format."]
    columns: Annotated[list[str], "NAME-ID of each."]
    samples: Annotated[int, "Photos."]
    bytes: Annotated[int, "Bytes."]
    licence: Annotated[str | None, "The licence that was stated."]
    paths_removed: Annotated[int, "Paths of this machine that are left out."]


@command(ShareConfig, results=(Result(fields=Shared),))
def share(options: Options) -> None:
    """Copy finished columns without the photos, for others to use with their own copy of the data set.

    Each target carries the digest of the photo that its teacher saw. A card (README.md) says what the columns
    are, of which data and weights, how exact, and how to use and cite them.

    \b
    densecli share --store stores/coco-512 --out shared/coco-vitl14 --licence cc-by-4.0
    """
    from densecli.pipeline.share import share as write

    found = write(options.make(ShareConfig, store=options.store))
    removed = found["paths_removed"]
    lines = [
        f"{found['shared']}: {len(found['columns'])} columns of {found['samples']} photos, "
        f"{size(found['bytes'])}.",
        "Read README.md there before you publish it.",
        *([f"Left out: where weights lie on this machine ({removed})."] if removed else []),
        *([] if found["licence"] else ["No licence is stated: --licence NAME."]),
    ]
    options.say("\n".join(lines), found)
