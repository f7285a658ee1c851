"""A method: a preset of weighted loss terms and of settings. A flag of the command line overrides either."""

from densecli.train.methods import METHODS, Method

METHODS.add(
    "labels-and-crops",
    Method(losses={"region_kl": 1.0, "region_cosine": 0.5}, settings={"theta": 0.5, "alpha": 0.8}),
    help="DenseVLM's labels and CLIPSelf's crops together.",
)
