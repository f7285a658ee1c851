"""export --layout onnx: what onnxruntime computes is what the student computes."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from command_line import refused, run

from densecli.models.student import load_student
from densecli.models.weights import find_weights

WORDS = ("export", "--student", "scenes-s", "--layout", "onnx", "--mode", "qq")


@pytest.mark.slow
def test_onnx__is_run_by_onnxruntime_and_equals_the_student(tmp_path: Path) -> None:
    pytest.importorskip("onnxscript", reason="the extra onnx is not installed")
    runtime = pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")
    weights, file = find_weights("scenes-s"), tmp_path / "student.onnx"
    result = run(*WORDS, "--checkpoint", weights, "--out", file)
    assert result.exit_code == 0, result.output
    session = runtime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    model, _ = load_student("scenes-s", str(weights))
    # A graph that PyTorch has traced takes any number of photos.
    for number in (1, 3):
        pixels = torch.randn(number, 3, 96, 96, generator=torch.Generator().manual_seed(number))
        dense, image = session.run(["dense", "image"], {"images": pixels.numpy()})
        with torch.no_grad():
            expected = model.dense(pixels, "qq"), model.encode_image(pixels)
        assert dense.shape == expected[0].shape and image.shape == expected[1].shape
        for ours, theirs in zip(expected, (dense, image), strict=True):
            assert np.abs(ours.numpy() - theirs).max() < 1e-4
    # It says what it is, and holds no path of the machine that made it.
    facts = session.get_modelmeta().custom_metadata_map
    assert json.loads(facts["mode"]) == "qq" and json.loads(facts["image_size"]) == 96
    assert not re.search(rb"/[\w.-]+/[\w.-]+\.py", file.read_bytes())
    card = json.loads(file.with_suffix(".card.json").read_text())
    assert card["load"].startswith("onnxruntime.InferenceSession('student.onnx')")


def test_onnx__without_its_packages_says_how_to_install_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "onnxscript", None)
    monkeypatch.setitem(__import__("sys").modules, "onnx", None)
    said = refused(*WORDS, "--checkpoint", find_weights("scenes-s"), "--out", tmp_path / "a.onnx")
    assert "package onnx," in said and "pip install 'densecli[onnx]'" in said


@pytest.mark.parametrize(
    "words", [("--out", "a.pt"), ("--out", "a.onnx", "--format", "pt"), ("--format", "pt")]
)
def test_onnx__is_no_file_of_weights(words: tuple[str, ...], tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert "onnx" in refused(*WORDS, "--checkpoint", find_weights("scenes-s"), *words)
