"""What we read out of open_clip's and timm's networks is what the libraries' own forward passes give."""

import pytest
from cross_check import NAMES, differences

TOLERANCE = 1e-5
# The libraries resize positions with antialiasing, the released code of the papers without.
RESIZED_BY_LIBRARY = {"laion-vit-l14", "siglip-b16", "sam-l"}


# What has no positions to resize is asked at its own side alone; siglip2-b16 resizes them as siglip-b16.
@pytest.mark.parametrize(
    ("name", "scale"),
    [
        *((name, 1) for name in NAMES),
        *((name, 2) for name in NAMES if name not in ("convnext-l", "siglip2-b16")),
    ],
)
def test_read_out__is_the_librarys(name: str, scale: int) -> None:
    """Of networks with the width, heads and side of the model, but few blocks."""
    found = differences(name, full=False, scale=scale)
    own = found.pop("own positions", None)
    assert set(found) == ({"dense"} if name == "sam-l" else {"image", "text", "dense"})
    assert max(found.values()) < TOLERANCE, found
    assert (own is not None) == (scale > 1 and name in RESIZED_BY_LIBRARY)
    assert own is None or own > 10 * TOLERANCE
