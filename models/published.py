"""The address at which the weights of a model are published."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Published:
    """Weights that are downloaded where none are given or found.

    Attributes:
        address: hf-hub:ORG/REPO[/FILE][@REVISION], or open_clip:TAG with a tag of open_clip's own table.
        megabytes: About the size of the download, if it is known without a question to the hub.
        licence: As their authors say, if it is known so.
    """

    address: str
    megabytes: int | None = None
    licence: str = ""
