"""Names of pixels and regions: of scenes that are drawn here, by maps that are made here."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from densecli.core.errors import DenseCLIError
from densecli.models.checkpoints import load_model
from densecli.models.encoder import Encoder
from densecli.models.prediction import Names, connected_parts, nearest_names, predict
from densecli.scenes.vocabulary import NAMES
from densecli.scenes.world import Scene, render
from densecli.shards.geometry import Canvas

CANVAS = Canvas(64)
# Three names whose embeddings are the axes.
TEXT = torch.eye(3)


def names(**facts) -> Names:
    return Names(**{"names": ("a", "b", "c"), "text": TEXT, **facts})


def halves() -> torch.Tensor:
    """(3, 8, 8): `a` in the left half of the canvas, `b` in the right half."""
    dense = torch.zeros(3, 8, 8)
    dense[0, :, :4] = dense[1, :, 4:] = 1
    return dense


def test_predict__parts_and_boxes_in_pixels_of_the_photo() -> None:
    image = np.zeros((32, 64, 3), np.uint8)
    found = predict(halves(), image, (640, 320), None, CANVAS, names())
    assert found.labels.shape == (32, 64) and set(found.labels.ravel()) == {0, 1}
    assert found.shares() == {"a": 0.5, "b": 0.5}
    assert found.full_labels().shape == (320, 640)
    left, right = found.regions
    assert (left.name, right.name) == ("a", "b")
    assert left.box == (0, 0, 320, 320) and right.box == (320, 0, 640, 320)
    assert left.share == 0.5 and 0.9 < left.probability <= 1 and 0.9 < left.cosine <= 1


def test_predict__given_boxes_keep_their_order() -> None:
    boxes = np.array([[400, 0, 640, 320], [0, 0, 240, 320]], float)
    found = predict(halves(), np.zeros((32, 64, 3), np.uint8), (640, 320), boxes, CANVAS, names())
    assert [(each.name, each.box) for each in found.regions] == [
        ("b", (400, 0, 640, 320)),
        ("a", (0, 0, 240, 320)),
    ]
    assert all(each.share is None for each in found.regions)


def test_predict__small_parts_stuff_and_the_unsure_are_no_regions() -> None:
    image = np.zeros((64, 64, 3), np.uint8)
    dense = halves()
    assert len(predict(dense, image, (64, 64), None, CANVAS, names(min_share=0.6)).regions) == 0
    things = names(thing=np.array([False, True, True]))
    assert [each.name for each in predict(dense, image, (64, 64), None, CANVAS, things).regions] == ["b"]
    # Equally near to all three names.
    unsure = torch.full((3, 8, 8), 1.0)
    found = predict(unsure, image, (64, 64), None, CANVAS, names(threshold=0.5))
    assert (found.labels == -1).all() and found.regions == () and found.shares() == {}


def test_predict__features_that_are_not_finite_are_refused() -> None:
    with pytest.raises(DenseCLIError, match="not finite"):
        predict(halves() * torch.nan, np.zeros((64, 64, 3), np.uint8), (64, 64), None, CANVAS, names())


def test_heat__is_the_cosine_of_one_name() -> None:
    found = predict(halves(), np.zeros((32, 64, 3), np.uint8), (640, 320), None, CANVAS, names())
    heat = found.heat("b")
    assert heat.shape == (32, 64) and heat[:, :24].max() == 0 and heat[:, -24:].min() == 1
    with pytest.raises(DenseCLIError, match="not among the names"):
        found.heat("d")


def test_nearest_names__in_chunks_are_those_of_all_at_once() -> None:
    cosines = torch.rand(70, 8, 8, generator=torch.Generator().manual_seed(0))
    best, probability = nearest_names(cosines, (40, 64), CANVAS, 20.0)
    large = torch.nn.functional.interpolate(cosines[None], size=(64, 64), mode="bilinear")[0, :, :40]
    expected = (20 * large).softmax(0)
    assert torch.equal(best, expected.argmax(0))
    torch.testing.assert_close(probability, expected.amax(0))


@settings(deadline=None)
@given(arrays(np.int8, st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=st.integers(0, 2)))
def test_connected_parts__are_those_of_a_flood_fill(labels: np.ndarray) -> None:
    found = connected_parts(labels)
    expected = np.full(labels.shape, -1)
    for start in np.ndindex(labels.shape):
        left = [start] if expected[start] < 0 else []
        while left:
            y, x = left.pop()
            if expected[y, x] >= 0:
                continue
            expected[y, x] = start[0] * labels.shape[1] + start[1]
            for v, u in ((y + 1, x), (y - 1, x), (y, x + 1), (y, x - 1)):
                if 0 <= v < labels.shape[0] and 0 <= u < labels.shape[1] and labels[v, u] == labels[y, x]:
                    left.append((v, u))
    assert np.array_equal(found, expected)


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return Encoder(load_model("scenes-pvlm")[0], canvas=96)


def labels_of(scene: Scene) -> np.ndarray:
    """(96, 96) the true category of each pixel, -1 for none."""
    found = np.full(scene.panoptic.shape, -1)
    for segment in scene.segments:
        found[scene.panoptic == segment.id] = segment.category
    return found


def test_encoder__names_most_pixels_of_a_scene(encoder: Encoder) -> None:
    scenes = [render(0, "test", i) for i in range(6)]
    found = encoder.segment([scene.image for scene in scenes], NAMES)
    right = [np.mean(labels == labels_of(scene)) for scene, labels in zip(scenes, found, strict=True)]
    # A random name would be right for one pixel in twenty.
    assert np.mean(right) > 0.4


def test_encoder__many_photos_are_each_as_alone(encoder: Encoder) -> None:
    photos = [Image.fromarray(render(0, "test", i).image).crop((0, 0, 96, 40 + 10 * i)) for i in range(3)]
    boxes = [[[0, 0, 40, 40]]] * 3
    together = encoder.predict(photos, ["sky", "road"], boxes=boxes)
    for photo, each, of in zip(photos, together, boxes, strict=True):
        alone = encoder.predict(photo, ["sky", "road"], boxes=of)
        assert np.array_equal(alone.labels, each.labels) and alone.regions[0].name == each.regions[0].name
        assert each.to_dict()["height"] == photo.height
    with pytest.raises(DenseCLIError, match="no name"):
        encoder.predict(photos[0], [])
