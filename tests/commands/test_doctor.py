"""densecli doctor, and completion in the shell."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import passed, run
from huggingface_hub import constants

from densecli.core import doctor


def test_doctor__says_what_it_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    said = passed("doctor", "--json", tmp_path / "d.json")
    found = json.loads((tmp_path / "d.json").read_text())
    assert found["problems"] == 0 and len(found["checks"]) == 12
    assert all(check["name"] in said and check["found"] in said for check in found["checks"])


def test_doctor__a_problem_is_its_exit_code(monkeypatch: pytest.MonkeyPatch) -> None:
    bad = doctor.Check(name="disk", status="problem", found="none", hint="Buy one.")
    monkeypatch.setattr(doctor, "examine", lambda: [bad])
    result = run("doctor")
    assert result.exit_code == 1 and "PROBLEM  disk  none" in result.output and "Buy one." in result.output


@pytest.mark.parametrize(
    ("words", "expected"), [("densecli pred", "predict"), ("densecli predict --thr", "--threshold")]
)
def test_completion__is_clicks_own(words: str, expected: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", "from densecli.cli import main; main(prog_name='densecli')"],
        env={
            **os.environ,
            "_DENSECLI_COMPLETE": "bash_complete",
            "COMP_WORDS": words,
            "COMP_CWORD": str(words.count(" ")),
        },
        capture_output=True,
        text=True,
        check=True,
    )
    assert f"plain,{expected}" in done.stdout
