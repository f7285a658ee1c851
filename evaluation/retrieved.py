"""What a labels column says about photos of a store, ready to be drawn."""

from evaluation.preview import View
from shards.codecs import codec_from_spec
from shards.reader import Record, decode_image, decode_npz, read_joined
from shards.regions import Regions
from shards.store import Column, Store


def retrieved_views(store: Store, labels: Column, *, view: int, limit: int) -> list[View]:
    """The cells of one view of the first `limit` photos, with the label retrieved for each of them.

    labels: a column of retrieval targets. `view` counts the views of its region plan.
    """
    views: list[View] = []
    for shard in store.shard_names:
        for record in read_joined([store.images, store.regions_of(labels), labels], shard):
            if len(views) == limit:
                return views
            views.append(retrieved_view(record, labels, view=view, title=record.key))
    return views


def retrieved_view(record: Record, labels: Column, *, view: int, title: str) -> View:
    """The cells of one view of a photo, out of its images, regions and labels."""
    names, things = labels.spec["target"]["categories"], labels.spec["codec"]["things"]
    cells = Regions(**decode_npz(record.parts["regions"]["npz"]))
    rows = cells.view(view)
    p = codec_from_spec(labels.spec["codec"]).decode(decode_npz(record.parts[labels.part]["npz"]), rows)
    best = p.argmax(1)
    return View(
        image=decode_image(record.parts["images"]["jpg"]),
        boxes=cells.boxes[rows],
        labels=[names[i] for i in best],
        thing=[things[i] for i in best],
        confidence=p.max(1).tolist(),
        title=title,
    )
