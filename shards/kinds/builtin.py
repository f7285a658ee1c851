"""The kinds of target that come with densecli."""

from densecli.shards.kinds import KINDS, TargetKind

KINDS.add(
    "labels",
    TargetKind(
        name="labels",
        prefix="",
        layout="cells",
        read_by=("region_kl", "region_text"),
        options=("categories",),
    ),
    help="The distribution over categories that a P-VLM retrieves for each box (DenseVLM).",
)
KINDS.add(
    "features",
    TargetKind(
        name="features",
        prefix="features-",
        layout="map",
        relabelled_as="labels",
        relabelled_prefix="relabel-",
    ),
    help="A P-VLM's dense map, from which densecli relabel makes labels.",
)
KINDS.add(
    "crops",
    TargetKind(
        name="crops",
        prefix="crops-",
        layout="views",
        read_by=("region_cosine",),
        options=("views",),
        own_teacher=True,
        relabelled_as="crop-labels",
        relabelled_prefix="relabel-crops-",
    ),
    help="A CLIP's image embedding of the crop of each box (CLIPSelf).",
)
KINDS.add(
    "crop-labels",
    TargetKind(
        name="crop-labels",
        prefix="relabel-crops-",
        layout="views",
        read_by=("region_kl", "region_text"),
        options=("categories", "views"),
    ),
    help="The distribution over categories of the crop of each box, which densecli relabel makes of crops.",
)
KINDS.add(
    "gram",
    TargetKind(name="gram", prefix="", layout="map", read_by=("context", "spatial")),
    help="A vision foundation model's tokens, for their correlations (DeCLIP).",
)
KINDS.add(
    "self",
    TargetKind(name="self", prefix="self-", layout="map", read_by=("spatial", "context"), own_teacher=True),
    help="A CLIP's own tokens, for their correlations (SC-CLIPSelf).",
)
KINDS.add(
    "refined",
    TargetKind(
        name="refined",
        prefix="refiner-",
        layout="views",
        read_by=("spatial",),
        options=("views", "refiner"),
        own_teacher=True,
    ),
    help="A Refiner's tokens of each box, for their correlations (R-SC-CLIPSelf).",
)
KINDS.add(
    "refined-map",
    TargetKind(
        name="refined-map",
        prefix="refined-map-",
        layout="map",
        read_by=("spatial", "context"),
        options=("refiner",),
        own_teacher=True,
    ),
    help="A Refiner's tokens of the whole photo, for their correlations (R-SC, tables 7 and 14).",
)
KINDS.add(
    "aggregated",
    TargetKind(
        name="aggregated",
        prefix="aggregated-",
        layout="map",
        read_by=("spatial", "context"),
        own_teacher=True,
    ),
    help="A CLIP's own tokens, averaged over many other photos around the photo (R-SC, eq. 7).",
)
KINDS.add(
    "cls",
    TargetKind(name="cls", prefix="cls-", layout="image", read_by=("image_cosine",), own_teacher=True),
    help="A CLIP's image embedding of the whole photo.",
)
