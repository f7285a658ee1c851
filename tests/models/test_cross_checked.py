"""What we read out of open_clip's and timm's networks is what the libraries' own forward passes give."""

import pytest
from cross_check import NAMES, differences

TOLERANCE = 1e-5
# The libraries resize positions with antialiasing, the released code of the papers without.
RESIZED_BY_LIBRARY = {"laion-vit-l14", "siglip-b16", "siglip2-b16", "sam-l"}


@pytest.mark.parametrize("scale", [1, 2])
@pytest.mark.parametrize("name", NAMES)
def test_read_out__is_the_librarys(name: str, scale: int) -> None:
    """Of networks with the width, heads and side of the model, but few blocks."""
    found = differences(name, full=False, scale=scale)
    own = found.pop("own positions", None)
    assert set(found) == ({"dense"} if name == "sam-l" else {"image", "text", "dense"})
    assert max(found.values()) < TOLERANCE, found
    assert (own is not None) == (scale > 1 and name in RESIZED_BY_LIBRARY)
    assert own is None or own > 10 * TOLERANCE
