"""The README's Python, run as it stands there."""

import re
from pathlib import Path

import pytest

from densecli.models.checkpoints import load_model
from densecli.scenes.coco import write_coco
from densecli.train.averaging import export_student

README = Path(__file__).parents[1] / "README.md"


def test_readme__python_runs_and_names_what_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    monkeypatch.chdir(tmp_path)
    write_coco(Path("runs/demo/data"), seed=0, split="test", count=1)
    clip = load_model("scenes-pvlm")[0].clip
    export_student(
        clip,
        clip.state_dict(),
        alpha=1.0,
        folder="runs/demo/train-0-480/export",
        card={"student": "scenes-pvlm", "image_size": 96, "mode": "value"},
    )
    exec(code, {})
    assert capsys.readouterr().out.split() == ["bus", "sky"]
