"""What of a training differs from that of its method's authors and nobody asked for."""

from densecli.shards.datasets import defaults_for
from densecli.shards.store import Column, Store
from densecli.train.config import TrainConfig
from densecli.train.methods import find_method


def method_notes(config: TrainConfig, store: Store, regions: Column, samples_per_step: int) -> list[str]:
    """Says where the store and the size of a step differ from what the method's authors use.

    Args:
        config: The configuration.
        store: The store.
        regions: Column of the region plan.
        samples_per_step: Photos of a step, of all processes.

    Returns:
        A sentence for each difference; none on a generated data set, and none with losses of one's own.
    """
    if config.losses or defaults_for(store.dataset["name"]).generated:
        return []
    method, wanted = find_method(config.method), config.method_preset
    notes = []
    canvas, plan = wanted.store.get("canvas"), wanted.store.get("regions")
    if canvas and config.image_size is None and canvas != store.canvas:
        notes.append(f"{config.method} trains on a canvas of {canvas} px; this store has {store.canvas} px.")
    if plan and plan != regions.name:
        notes.append(f"{config.method} trains on the regions of {plan}; these are of {regions.name}.")
    batch = wanted.settings.get("batch_size")
    if batch and method.gpus and samples_per_step != batch * method.gpus:
        notes.append(
            f"A step of {config.method} is over {batch * method.gpus} photos ({method.gpus} GPUs with "
            f"--batch-size {batch}), of this training over {samples_per_step}; --accumulate makes it larger."
        )
    return notes
