"""Photos decoded batch by batch, by torchvision; on a GPU where there is one."""

import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from training import rows, run_settings

from densecli.core.errors import DenseCLIError
from densecli.train.dataloader import Loader
from densecli.train.distillation import TrainConfig, make_trainer, train
from densecli.train.gpu_decode import JpegDecoder
from densecli.train.trainer_config import LoaderConfig

CANVAS = 96
DEVICES = [
    "cpu",
    pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")),
]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("size", [3, 5])
def test_decoder__gives_the_batches_of_pillow(tiny_store, device: str, size: int) -> None:
    """And with 2 x 5 samples a step also that of a process that goes along."""
    tiny, decoder = tiny_store, JpegDecoder(CANVAS, torch.device(device))
    labels, config = {"labels": tiny.labels}, LoaderConfig(batch_size=size)
    pillow, other = (
        Loader(tiny.store, tiny.regions, labels, config, decoder=each, rank=1, world_size=2)
        for each in (None, decoder)
    )
    for expected, batch in zip(pillow.batches(1), other.batches(1), strict=True):
        assert batch.keys == expected.keys and batch.images.device.type == device
        assert batch.images.shape == expected.images.shape and batch.images.dtype == torch.uint8
        assert torch.equal(batch.boxes, expected.boxes)
        assert torch.equal(batch.targets["labels"], expected.targets["labels"])
        difference = (batch.images.cpu().float() - expected.images.float()).abs()
        # Of noise, the worst of photos, where colour is most.
        assert difference.mean() < (1 if device == "cpu" else 20)
        # Black beyond the photos, which are narrower than the canvas.
        beyond = (expected.images == 0).all(dim=1).all(dim=1)
        assert beyond.any() and (batch.images.permute(0, 3, 1, 2)[beyond.to(device)] == 0).all()


def test_decoder__torchcodec_is_preferred(monkeypatch) -> None:
    codec = ModuleType("torchcodec.decoders")
    codec.decode_jpeg = lambda jpegs, *, mode, device: [  # type: ignore[attr-defined]
        torch.full((3, 2, 3), len(jpeg), dtype=torch.uint8, device=device) for jpeg in jpegs if mode == "RGB"
    ]
    monkeypatch.setitem(sys.modules, "torchcodec", ModuleType("torchcodec"))
    monkeypatch.setitem(sys.modules, "torchcodec.decoders", codec)
    decoder = JpegDecoder(4, torch.device("cpu"))
    assert decoder.library == "torchcodec" and not decoder.notes()
    canvases = decoder([b"12345", memoryview(b"1")])
    assert canvases.shape == (2, 3, 4, 4)
    assert (canvases[0, :, :2, :3] == 5).all() and canvases[0].sum() == 5 * 18 and canvases[1].sum() == 18


def test_decoder__says_that_torchvision_stands_in(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "torchcodec.decoders", None)
    decoder = JpegDecoder(4, torch.device("cpu"))
    assert decoder.library == "torchvision"
    assert "pip install torchcodec" in decoder.notes()[0]


def test_train__cannot_decode_on_a_gpu_that_is_not_there(tiny_store, tmp_path) -> None:
    settings = run_settings(tiny_store.store.root, tmp_path / "run", decode="gpu")
    with pytest.raises(DenseCLIError, match="the run uses cpu") as caught:
        make_trainer(TrainConfig(**settings))
    assert "--decode" in caught.value.hint


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_train__decoding_on_the_gpu_follows_pillow(tiny_store, tmp_path: Path) -> None:
    losses = {}
    for decode in ("cpu", "gpu"):
        run = tmp_path / decode
        settings = {"decode": decode, "device": "cuda", "precision": "fp32", "max_steps": 3}
        train(TrainConfig(**run_settings(tiny_store.store.root, run, **settings)))
        losses[decode] = [row["loss"] for row in rows(run)]
    assert losses["gpu"] == pytest.approx(losses["cpu"], rel=0.2)
    with pytest.raises(DenseCLIError, match="decode 'gpu' -> 'cpu'"):
        train(TrainConfig(**run_settings(tiny_store.store.root, run, device="cuda", max_steps=3)))
