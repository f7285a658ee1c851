"""A plan as text."""

from collections.abc import Mapping
from typing import Any

from densecli.core.passed_over import in_words
from densecli.core.tables import size as as_size
from densecli.core.tables import table
from densecli.pipeline.sources.index import listed_before


def report(planned: dict[str, Any]) -> str:
    """Formats a plan as text."""
    n, student, even, epochs = (planned[name] for name in ("photos", "student", "break_even", "epochs"))
    doubt = f", give or take {planned['uncertainty']:.1%}" if planned["uncertainty"] else ""
    columns = [[c["name"], _range(c), _range(c, n)] for c in planned["columns"]]
    if index := planned["index_bytes"]:
        columns.append(["listing", as_size(index), as_size(index / n)])
    notes = [
        *(
            f"{name}: measured, {factor:.1f} times what a teacher takes that is sure of its boxes."
            for name, factor in planned["measured_bytes"].items()
        ),
        *(
            f"{columns[1][0]}: {masks['masks']:.1f} masks a photo, {masks['masks_left_out']:.1f} left out; "
            f"{masks['on_grids']:.1%} of the photos have none, but grids."
            for masks in [planned.get("masks")]
            if masks
        ),
        *(
            f"{column['name']}: a range, because labels take more the less sure the teacher is. Where its "
            "weights are, plan measures it."
            for column in planned["columns"]
            if "most_bytes" in column
        ),
    ]
    speed = f"measured on {planned['device']}" if planned["measured"] else f"at {planned['tflops']:g} TFLOP/s"
    work = [
        _work(f"{t['name']} in {t['precision']}, once", t["tflop"], t["gpu_hours"])
        for t in planned["teachers"]
    ]
    read = [teacher for teacher in planned["teachers"] if teacher["epoch_tflop"]]
    work += [
        _work(f"{who['name']}{as_what}, an epoch", who["epoch_tflop"], who["epoch_gpu_hours"])
        for who, as_what in [(student, " (student)"), *((teacher, " live") for teacher in read)]
    ]
    lines = [
        f"{n} photos: {_range(planned)}{doubt} (from a sample of {planned['sampled']}, "
        f"{planned['skipped']:.1%} unreadable)",
        *([f"Passed over in the listing: {passed}"] if (passed := in_words(planned["passed_over"])) else []),
        *([listed_before(planned["listed"])] if planned["listed"] else []),
        *([_of_parts(planned)] if "parts" in planned else []),
        "",
        table([["column", "bytes", "a photo"], *columns]),
        "",
        *(notes and [*notes, ""]),
        f"Decoding, resizing, encoding and writing the photos: {planned['cpu_hours']:.2f} core hours.",
        "",
        table([["work", "TFLOP", f"GPU hours {speed}"], *work]),
    ]
    if even:
        alone = student["epoch_gpu_hours"] * epochs
        live = alone + sum(t["epoch_gpu_hours"] for t in read) * epochs
        lines += [
            "",
            f"The store has paid for itself after {even['epochs']:.1f} epochs, "
            f"or {even['trainings']:.2f} trainings of {epochs:.3g} epochs.",
            f"A training takes {alone:.3g} GPU hours with the store and {live:.3g} with live teachers.",
        ]
    return "\n".join(lines)


def _of_parts(planned: Mapping[str, Any]) -> str:
    return (
        f"Listed {planned['parts_listed']} of {planned['parts']} parts: the number of photos is an estimate "
        "from the bytes of the tars."
    )


def _range(planned: Mapping[str, Any], n: int = 1) -> str:
    """Bytes for one of n, or the least and the most of them."""
    sizes = [planned[key] for key in ("bytes", "most_bytes") if key in planned]
    return " to ".join(as_size(size / n) for size in sizes)


def _work(name: str, tflop: float, hours: float) -> list[str]:
    # A small store's are not shown as none.
    return [
        name,
        f"{tflop:,.1f}" if tflop >= 0.05 or not tflop else f"{tflop:.2g}",
        f"{hours:,.3f}" if hours >= 5e-4 or not hours else f"{hours:.2g}",
    ]
