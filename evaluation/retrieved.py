"""What a labels column says about the first photos of a store, ready to be drawn."""

from evaluation.preview import View
from shards.codecs import codec_from_spec
from shards.reader import decode_image, decode_npz, read_joined
from shards.regions import Regions
from shards.store import Column, Store


def retrieved_views(store: Store, labels: Column, *, view: int, limit: int) -> list[View]:
    """The cells of one view of the first `limit` photos, with the label retrieved for each of them.

    labels: a column of retrieval targets. `view` counts the views of its region plan.
    """
    regions = store.regions_of(labels)
    codec = codec_from_spec(labels.spec["codec"])
    names, things = labels.spec["target"]["categories"], labels.spec["codec"]["things"]
    views: list[View] = []
    for shard in store.shard_names:
        for record in read_joined([store.images, regions, labels], shard):
            if len(views) == limit:
                return views
            cells = Regions(**decode_npz(record.parts["regions"]["npz"]))
            rows = cells.view(view)
            p = codec.decode(decode_npz(record.parts[labels.part]["npz"]), rows)
            best = p.argmax(1)
            views.append(
                View(
                    image=decode_image(record.parts["images"]["jpg"]),
                    boxes=cells.boxes[rows],
                    labels=[names[i] for i in best],
                    thing=[things[i] for i in best],
                    confidence=p.max(1).tolist(),
                    title=record.key,
                )
            )
    return views
