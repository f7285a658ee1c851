"""densecli demo, every part of it."""

import json
from pathlib import Path

import pytest
from command_line import run
from PIL import Image


@pytest.mark.ray
def test_demo__runs_every_part(tmp_path: Path) -> None:
    few = ("--scenes", 12, "--test-scenes", 6, "--max-steps", 2)
    done = run("demo", "--run", tmp_path / "demo", *few, "--json", "-")
    assert done.exit_code == 0, done.output
    printed = done.stderr
    assert "stuff as thing" in printed
    result = json.loads(done.stdout)
    assert set(result) == {"teacher", "before", "undecoupled", "after"}
    for figures in result.values():
        for name in ("boxes_top1", "masks_thing_top1", "masks_stuff_top1", "stuff_as_thing"):
            assert 0 <= figures[name] <= 100
        assert not figures["random_weights"]
    page = tmp_path / "demo" / "report" / "index.html"
    assert page.resolve().as_uri() in printed and "generated world" in page.read_text()
    with Image.open(tmp_path / "demo" / "preview.png") as picture:
        assert picture.format == "PNG" and min(picture.size) > 400
