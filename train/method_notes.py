"""Notes on where a training differs from that of its method's authors, unless the user asked for it."""

from densecli.shards.datasets import defaults_for
from densecli.shards.store import Column, Store
from densecli.train.config import TrainConfig
from densecli.train.methods import find_method


def method_notes(config: TrainConfig, store: Store, regions: Column, samples_per_step: int) -> list[str]:
    """Describes where the store and the size of a step differ from those of the method's authors.

    Args:
        config: The configuration.
        store: The store.
        regions: Column of the region plan.
        samples_per_step: Photos in a step of all processes.

    Returns:
        A sentence for each difference; none on a generated data set or with the user's own losses.
    """
    if config.losses or defaults_for(store.dataset["name"]).generated:
        return []
    method, wanted = find_method(config.method), config.method_preset
    notes = []
    canvas, plan = wanted.store.get("canvas"), wanted.store.get("regions")
    if canvas and config.image_size is None and canvas != store.canvas:
        notes.append(
            f"{config.method} trains on a canvas of {canvas} px, but this store has {store.canvas} px."
        )
    if plan and plan != regions.name:
        notes.append(
            f"{config.method} trains on regions of the plan {plan}, but these are of {regions.name}."
        )
    batch = wanted.settings.get("batch_size")
    if batch and method.gpus and samples_per_step != batch * method.gpus:
        notes.append(
            f"{config.method} trains with {batch * method.gpus} photos in a step ({method.gpus} GPUs with "
            f"--batch-size {batch}), this training with {samples_per_step}; --accumulate raises this number."
        )
    return notes
