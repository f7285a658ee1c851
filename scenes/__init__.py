"""The generated world: scenes with panoptic truth and captions, and how its own CLIPs were trained."""

from densecli.scenes.world import GENERATOR_VERSION, SIZE, SPLITS, Scene, Segment, render

__all__ = ["GENERATOR_VERSION", "SIZE", "SPLITS", "Scene", "Segment", "render"]
