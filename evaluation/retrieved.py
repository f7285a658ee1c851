"""What a labels column says about photos of a store, ready to be drawn."""

import numpy as np

from densecli.evaluation.preview import View
from densecli.shards.reader import Record, decode_image, decode_npz, read_joined
from densecli.shards.regions import Regions
from densecli.shards.store import Column, Store


def retrieved_views(
    store: Store, labels: Column, *, view: int, limit: int, theta: float | None = None
) -> list[View]:
    """The cells of one view of the first `limit` photos, with the label retrieved for each of them.

    labels: a column of retrieval targets. `view` counts the views of its region plan. theta: see
    `retrieved_view`.
    """
    views: list[View] = []
    for shard in store.shard_names:
        for record in read_joined([store.images, store.regions_of(labels), labels], shard):
            if len(views) == limit:
                return views
            views.append(retrieved_view(record, labels, view=view, theta=theta))
    return views


def retrieved_view(record: Record, labels: Column, *, view: int, theta: float | None = None) -> View:
    """The cells of one view of a photo, out of its images, regions and labels.

    theta: the cells as DenseVLM denoises them: those whose highest probability is above theta, and things
    compared with things alone (its eqs. 3 and 4).
    """
    names, things = labels.spec["target"]["categories"], labels.spec["codec"]["things"]
    cells = Regions(**decode_npz(record.parts["regions"]["npz"]))
    rows = cells.view(view)
    p = labels.codec.decode(decode_npz(record.parts[labels.part]["npz"]), rows)
    best, kept = p.argmax(1), None
    if theta is not None:
        kept = (p.max(1) > theta).tolist()
        # Of a thing's row the things, of any other row all; last stand what is left of things and of stuff.
        kind = np.array([*things, True, False])
        p = p / np.where(kind[best][:, None], p[:, kind].sum(1, keepdims=True), 1)
    return View(
        image=decode_image(record.parts["images"]["jpg"]),
        boxes=cells.boxes[rows],
        labels=[names[i] for i in best],
        thing=[things[i] for i in best],
        confidence=p.max(1).tolist(),
        title=record.key if theta is None else f"{record.key}: kept by theta {theta:g}",
        kept=kept,
    )
