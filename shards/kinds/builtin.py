"""The kinds of target that come with densecli."""

from densecli.shards.kinds import KINDS, TargetKind

for kind, help in (
    (
        TargetKind(name="labels", prefix="", layout="cells", read_by=("region_kl", "region_text")),
        "The distribution over categories that a P-VLM retrieved for every box (DenseVLM).",
    ),
    (
        TargetKind(name="features", prefix="features-", layout="map", read_as="labels"),
        "A P-VLM's dense map; densecli relabel makes labels of it.",
    ),
    (
        TargetKind(
            name="crops", prefix="crops-", layout="views", read_by=("region_cosine",), own_teacher=True
        ),
        "A CLIP's image embedding of the crop of each box (CLIPSelf).",
    ),
    (
        TargetKind(name="gram", prefix="", layout="map", read_by=("context", "spatial")),
        "A vision foundation model's tokens, for their correlations (DeCLIP).",
    ),
    (
        TargetKind(
            name="self", prefix="self-", layout="map", read_by=("spatial", "context"), own_teacher=True
        ),
        "A CLIP's own tokens, for their correlations (SC-CLIPSelf).",
    ),
    (
        TargetKind(name="refined", prefix="refiner-", layout="views", read_by=("spatial",), own_teacher=True),
        "A Refiner's tokens of each box, for their correlations (R-SC-CLIPSelf).",
    ),
):
    KINDS.add(kind.name, kind, help=help)
