"""On a GPU the host waits once for a batch: counted on fake tensors, and on a teacher that takes notes.

No number here was measured on a GPU.
"""

import math
from collections import Counter

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from densecli.core.stage_timer import StageTimer
from densecli.pipeline import batcher
from densecli.pipeline.batcher import Batcher, Run
from densecli.pipeline.teachers import Photo, base, crops, gram, labels, refiner
from densecli.pipeline.teachers.crops import CropsConfig
from densecli.pipeline.teachers.gram import SelfConfig
from densecli.pipeline.teachers.labels import LabelsConfig
from densecli.pipeline.teachers.refiner import BOXES_PER_BATCH, RefinedConfig
from densecli.shards.geometry import Canvas
from densecli.shards.region_plans import region_plan

CUDA = torch.device("cuda")
KERNELS = ("roi_align", "mm", "addmm", "bmm", "_softmax", "convolution")


class Waits(TorchDispatchMode):
    """Counts what makes the host wait for a GPU: values that it reads, and copies that block."""

    def __init__(self):
        super().__init__()
        self.found = Counter()
        self.calls = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        name = func.overloadpacket.__name__
        self.calls[name] += 1
        if name in ("_local_scalar_dense", "nonzero", "equal", "is_nonzero"):
            self.found[name] += 1
        if name in ("_to_copy", "copy_"):
            devices = {
                getattr(x, "device", CUDA).type for x in (result, *args) if isinstance(x, torch.Tensor)
            }
            if len(devices) > 1 and not kwargs.get("non_blocking"):
                self.found[name] += 1
        return result


def photos(count):
    plan = region_plan("grid-clipself")
    image = np.zeros((96, 96, 3), np.uint8)
    regions = plan.boxes([0, 0, 1, 1])
    return [Photo(key=f"p{i}", image=image, canvas=Canvas(96), regions=regions) for i in range(count)]


def on_fake_gpu(rows, device):
    """`to_device` without pinned memory, which needs a GPU: the copy itself is that of a GPU."""
    dtype = torch.from_numpy(np.empty(0, rows[0].dtype)).dtype
    return torch.empty((len(rows), *rows[0].shape), dtype=dtype).to(device, non_blocking=True)


def noting(networks, load):
    """A function that loads a network and notes it in a list."""

    def loaded(*args):
        found = load(*args)
        networks.append(found[0] if isinstance(found, tuple) else found)
        return found

    return loaded


def to_fake_gpu(network):
    """Gives a network fake parameters and buffers on a GPU."""
    for module in network.modules():
        for tensors in (module._parameters, module._buffers):
            for name, tensor in tensors.items():
                if tensor is not None:
                    fake = torch.empty(tensor.shape, dtype=tensor.dtype, device=CUDA)
                    tensors[name] = torch.nn.Parameter(fake) if tensors is module._parameters else fake


TEACHERS = {
    "labels": LabelsConfig(name="scenes-s", weights="random:0", categories="scenes"),
    "crops": CropsConfig(model="scenes-s", weights="random:0", views=2),
    "self": SelfConfig(model="scenes-s", weights="random:0"),
    "refined": RefinedConfig(model="scenes-s", weights="random:0", refiner="random:0", views=2),
}


@pytest.mark.parametrize("kind", TEACHERS)
def test_targets_of_a_batch__make_the_host_wait_for_nothing(kind, monkeypatch):
    monkeypatch.setattr(base, "to_device", on_fake_gpu)
    networks = []
    for module, name in ((labels, "load_model"), (crops, "load_model"), (gram, "load_model")):
        monkeypatch.setattr(module, name, noting(networks, getattr(module, name)))
    monkeypatch.setattr(refiner, "load_refiner", noting(networks, refiner.load_refiner))
    teacher = TEACHERS[kind].load("cpu")
    passes = {}
    for count in (1, 4):
        with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad():
            to_fake_gpu(networks[0])
            teacher.device = CUDA
            if kind == "labels":
                teacher.text = torch.empty(20, 64, device=CUDA)
            batch = photos(count)
            inputs = np.concatenate([teacher.inputs(photo) for photo in batch])
            with Waits() as waits:
                outputs = teacher.forward(on_fake_gpu(list(inputs), CUDA).permute(0, 3, 1, 2))
                targets = teacher.targets(batch, outputs.split(len(inputs) // count))
        assert not waits.found
        assert {target.device.type for target in targets} == {"cuda"}
        passes[count] = {name: calls for name, calls in waits.calls.items() if name in KERNELS}
        boxes = sum(len(target) for target in targets)
    if kind == "refined":
        # Full batches of boxes over all photos, each pooled twice: its tokens and its [CLS].
        assert passes[4]["roi_align"] == 2 * math.ceil(boxes / BOXES_PER_BATCH)
    else:
        assert passes[4] == passes[1]


def test_batcher__on_a_gpu_waits_for_a_batch_after_it_has_launched_the_next(monkeypatch):
    happened = []

    class Noting:
        name, device = "noting", CUDA

        def inputs(self, photo):
            return photo.padded()[None]

        def forward(self, pictures):
            happened.append("launch")
            return pictures.float().mean((2, 3))

        def targets(self, photos, outputs):
            return [of_photo[0] for of_photo in outputs]

    class Arrival:
        def __init__(self, tensors, device):
            self.tensors = tensors

        def wait(self):
            happened.append("wait")
            return [tensor.numpy() for tensor in self.tensors]

        def seconds_since(self, start):
            return 0.5

    class Event:
        def __init__(self, **_):
            pass

        def record(self, stream):
            pass

    monkeypatch.setattr(batcher, "Arrival", Arrival)
    monkeypatch.setattr(batcher, "to_device", lambda rows, device: torch.from_numpy(np.stack(rows)))
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: None)
    timer = StageTimer()
    asked = Batcher(Run.of(Noting()), 4, timer)
    done = [pair for photo in photos(14) for pair in asked.add(photo, Noting().inputs(photo))]
    assert happened == ["launch", "launch", "wait", "launch", "wait"]
    done += asked.finish()
    assert happened[5:] == ["launch", "wait", "wait"]
    assert [photo.key for photo, _ in done] == [f"p{i}" for i in range(14)]
    assert timer.seconds["teacher"] == 2.0
