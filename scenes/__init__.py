"""The generated world: small scenes with exact annotations and captions, and models trained on them.

A plug-in: everything is registered here by name, and imported only when it is used.
"""

from densecli.core.registry import registry

registry("datasets").add_lazy(
    "scenes", "densecli.scenes.dataset:SCENES", help="Generated scenes of 96 px; needs no --data."
)
registry("commands").add_lazy(
    "demo", "densecli.scenes.demo:demo", help="The whole chain on generated scenes, on a CPU."
)
