"""The tutorials: their commands run one after the other, and print what the page says.

They run as they stand, but with fewer photos and steps (`few`), and with small networks under the names of
EVA-CLIP's. The commands of densecli run in this process, and build-shards without Ray; all others in a shell.
"""

import importlib.util
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from building import without_ray
from command_line import run
from small_models import small_models

from densecli.models.categories import load_categories
from densecli.scenes.coco import write_coco
from densecli.train.terms import TERMS

DOCS = Path(__file__).parents[1] / "docs"
_spec = importlib.util.spec_from_file_location("transcripts", DOCS / "transcripts.py")
assert _spec and _spec.loader
transcripts = importlib.util.module_from_spec(_spec)
sys.modules["transcripts"] = transcripts
_spec.loader.exec_module(transcripts)


FEW = {
    r"(--max-steps|\bstep) \d+": r"\1 2",
    r"--batch-size \d+": "--batch-size 4",
    r"(--limit |count=)\d+": r"\g<1>4",
    r"built, \d+ photos": "built, 4 photos",
}


def few(text: str) -> str:
    """A command, or a line that it prints, with small numbers."""
    for pattern, small in FEW.items():
        text = re.sub(pattern, small, text)
    return text


def executed(command: str) -> str:
    """What a command prints. Raises AssertionError if it fails."""
    if command.startswith("densecli "):
        result = run(*shlex.split(command.replace("\\\n", " "))[1:])
        assert result.exit_code == 0, f"{command}\n{result.output}"
        return result.output
    scripts = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-c", command],
        env={**os.environ, "PATH": scripts},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{command}\n{done.stderr}"
    return done.stdout


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What a tutorial registers is forgotten after the test, and builds are without Ray."""
    TERMS.load()
    for values in ("_entries", "_values"):
        monkeypatch.setattr(TERMS, values, dict(getattr(TERMS, values)))
    monkeypatch.setenv("DENSECLI_PLUGINS", "")
    with without_ray():
        yield
    sys.modules.pop("my_loss", None)


def write_like_coco(root: Path) -> None:
    """Photos with panoptic annotations, in the files and with names of COCO."""
    names = load_categories("133")
    of_kind = {
        kind: [n for n, thing in zip(names.names, names.thing, strict=True) if thing == kind]
        for kind in (0, 1)
    }
    for split, coco in (("train", "train2017"), ("test", "val2017")):
        write_coco(root, split=split, count=4)
        (root / split).rename(root / coco)
        annotations = root / "annotations"
        (annotations / f"panoptic_{split}").rename(annotations / f"panoptic_{coco}")
        document = json.loads((annotations / f"panoptic_{split}.json").read_text())
        for category in document["categories"]:
            category["name"] = of_kind[category["isthing"]].pop(0)
        (annotations / f"panoptic_{coco}.json").write_text(json.dumps(document))


@pytest.mark.slow
@pytest.mark.usefixtures("registered")
@pytest.mark.parametrize("name", ["photos", "three-papers", "plugin"])
def test_tutorial__its_commands_run_and_print_what_it_says(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    if name == "three-papers":
        small_models(monkeypatch)
        write_like_coco(tmp_path / "data" / "coco")
    steps = transcripts.steps((DOCS / "tutorials" / f"{name}.md").read_text())
    assert len(steps) > 5 and any(step.expected for step in steps)
    for step in steps:
        small = replace(step, command=few(step.command), expected=list(map(few, step.expected)))
        printed = executed(small.command)
        assert small.missing(printed) is None, f"{small.command}\n{printed}"


PAGE = """# Title
```sh
# A comment.
one \\
    two
cat > file <<'END'
```
END
```
## Below
```
not run
```
```text
wr...en
50 %
```
"""


def test_steps__are_the_commands_of_the_blocks_with_what_they_print() -> None:
    page = PAGE.replace("```\nEND", "text\nEND")
    first, second = transcripts.steps(page)
    assert (first.heading, first.command, first.expected) == ("Title", "one \\\n    two", [])
    assert second.command == "cat > file <<'END'\ntext\nEND"
    assert second.missing("written\nmore\n50 %") is None
    assert second.missing("50 %\nwritten") == "50 %"


def test_transcript__is_what_really_ran(tmp_path: Path) -> None:
    tutorial = tmp_path / "short.md"
    tutorial.write_text("# Short\n## Count\n```sh\nseq 40\n```\n```text\n40\n```\n")
    for folder in ("home", "work"):
        (tmp_path / folder).mkdir()
    page = transcripts.transcript(tutorial, about="", folder=tmp_path)
    assert "## Count\n\n```\n$ seq 40\n1\n2\n" in page
    assert "16\n[... 12 lines left out]\n29\n" in page
    tutorial.write_text("# Short\n```sh\necho 1\n```\n```text\n2\n```\n")
    with pytest.raises(SystemExit, match="did not print '2'"):
        transcripts.transcript(tutorial, about="", folder=tmp_path)
