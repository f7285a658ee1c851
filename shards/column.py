"""A column: one thing stored about every sample of a data set."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

from densecli.core import fs
from densecli.core.errors import DenseCLIError
from densecli.shards.codecs import Codec, codec_from_spec
from densecli.shards.keys import column_key, short_id
from densecli.shards.receipts import Receipt
from densecli.shards.regions import Grids
from densecli.shards.specs import FULL_PRECISION, ColumnInfo, ColumnSpec


@dataclass(frozen=True, kw_only=True)
class Column:
    """A folder with one tar and one receipt per shard; of computed boxes, with a description alone.

    Attributes:
        url: The folder.
        spec: All that its bytes depend on; `key` is its hash.
        shard_names: Every shard of the store, built or not.
        info: What people may want to know, and the key does not depend on.
    """

    url: str
    spec: ColumnSpec
    shard_names: Sequence[str]
    info: ColumnInfo = field(default_factory=ColumnInfo)

    @property
    def kind(self) -> str:
        """images, regions or targets."""
        return self.spec["kind"]

    @property
    def name(self) -> str:
        """images, the name of the region plan, or that of the teacher."""
        return self.spec["name"]

    @cached_property
    def key(self) -> str:
        """sha256 of the spec, 64 hex digits."""
        return column_key(self.spec)

    @property
    def id(self) -> str:
        """The first 12 hex digits of the key."""
        return short_id(self.key)

    @property
    def full_name(self) -> str:
        """NAME-ID, which tells apart columns of the same name."""
        return f"{self.name}-{self.id}"

    @property
    def part(self) -> str:
        """Where a joined record keeps this column: "images", "regions" or the teacher's name."""
        return self.name if self.kind == "targets" else self.kind

    @property
    def target_kind(self) -> str:
        """The kind of target, such as labels; "" for images and regions."""
        return self.spec["target"].get("name", "") if "target" in self.spec else ""

    @property
    def regions_key(self) -> str | None:
        """Key of the region column that the targets are about; None if they hold for any boxes."""
        return self.spec.get("regions")

    @property
    def computed(self) -> bool:
        """Whether readers compute it from the photos, so that it has no shards."""
        return self.spec.get("stored") is False

    @cached_property
    def grids(self) -> Grids:
        """The boxes of a computed column: `column.grids.of_photo(about)`, with a photo's `.json`.

        Raises:
            DenseCLIError: They are not those of grids.
        """
        try:
            return Grids.of(self.spec)
        except ValueError as error:
            raise DenseCLIError(
                f"The column {self.url} cannot be computed: {error}.",
                hint="Read it with the densecli that wrote it, or delete the folder and build it again.",
            ) from error

    @property
    def random_weights(self) -> bool:
        """Whether the teacher had random weights: numbers that follow from it say nothing about accuracy."""
        return self.info.get("random_weights", False)

    @property
    def codec(self) -> Codec:
        """The codec of a target column. Raises DenseCLIError for one that no plug-in here registers."""
        try:
            return codec_from_spec(self.spec["codec"])
        except (KeyError, TypeError, ValueError) as error:
            raise DenseCLIError(
                f"The column {self.url} names no codec with options that this densecli knows.",
                hint="Read it with the densecli that wrote it, or delete the folder and build it again.",
            ) from error

    @property
    def precision(self) -> str:
        """Precision of the teacher's arithmetic."""
        return self.spec.get("precision", FULL_PRECISION)

    @property
    def side(self) -> int | None:
        """Tokens along each side of a box, where a box has side * side rows; None if it has one row."""
        return self.spec["target"].get("side")

    def locate(self, shard: str) -> tuple["Column", str]:
        """The column that has a shard in its folder, and the shard's name there."""
        return self, shard

    def tar_url(self, shard: str) -> str:
        """Address of a shard's tar."""
        return fs.join(self.url, f"{shard}.tar")

    def receipt_url(self, shard: str) -> str:
        """Address of a shard's receipt."""
        return fs.join(self.url, f"{shard}.json")

    def receipt(self, shard: str) -> Receipt | None:
        """The shard's receipt, or None if the shard is not built.

        Raises:
            DenseCLIError: The receipt is damaged, or belongs to another column or shard.
        """
        try:
            data = fs.read_bytes(self.receipt_url(shard))
        except FileNotFoundError:
            return None
        return self.parsed_receipt(shard, data)

    def parsed_receipt(self, shard: str, data: bytes) -> Receipt:
        """The receipt in a shard's file. Raises the errors of `receipt`."""
        url = self.receipt_url(shard)
        try:
            receipt = Receipt.from_json(data)
        except ValueError as error:
            raise DenseCLIError(
                f"The receipt {url} is damaged: {error}.",
                hint="Delete it and run the build again: it redoes this shard only.",
            ) from error
        if (receipt.column, receipt.shard) != (self.key, shard):
            raise DenseCLIError(
                f"The receipt {url} belongs to shard {receipt.shard} of column {short_id(receipt.column)}, "
                f"not to shard {shard} of column {self.id}.",
                hint="It was copied here from elsewhere: delete it and its tar, and run the build again.",
            )
        return receipt

    def has(self, shard: str) -> bool:
        """Whether the shard is built, or computed when it is read."""
        return self.computed or all(fs.exists(fs.join(self.url, name)) for name in _files(shard))

    def missing(self) -> list[str]:
        """Names of the shards that are not built yet: none of a computed column."""
        if self.computed:
            return []
        # One listing of the folder, where `has` would ask for every file.
        names = set(fs.listdir(self.url))
        return [shard for shard in self.shard_names if not names.issuperset(_files(shard))]

    @property
    def complete(self) -> bool:
        """Whether every shard is built."""
        return not self.missing()


def check_photos(columns: Sequence[Column]) -> None:
    """Raises DenseCLIError if boxes are to be computed, and the photos are not read with them."""
    computed = [column for column in columns if column.computed]
    if computed and all(column.kind != "images" for column in columns):
        raise DenseCLIError(
            f"The boxes of {computed[0].url} are computed from the photos, which are not read with them.",
            hint="Read the column of photos (store.images) too.",
        )


def _files(shard: str) -> tuple[str, str]:
    """Files of a finished shard."""
    return f"{shard}.tar", f"{shard}.json"
