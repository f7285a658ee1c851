"""The defaults of naming pixels and regions. Imported by settings, which load no torch."""

SCALE = 100.0
"""Factor of the cosines before their softmax, as in detection."""
MIN_SHARE = 0.01
"""Share of the photo that a part must cover to be a region."""
