"""What a long job says where there is no terminal."""

from contextvars import copy_context

import pytest
from tqdm import tqdm

from densecli.core import progress
from densecli.core.progress import Progress


@pytest.fixture
def clock(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_progress__lines_with_rate_and_eta(clock, capsys):
    job = Progress(70, "images")
    for second in (2, 4, 6, 8, 10, 12, 14):
        clock[0] = second
        job.advance(10)
    job.close()
    assert capsys.readouterr().err.splitlines() == [
        "10/70 images, 5.0 images/s, ETA 00:12",
        "60/70 images, 5.0 images/s, ETA 00:02",
        "70/70 images, 5.0 images/s, ETA 00:00",
    ]


def test_progress__what_was_done_before_has_no_part_in_the_rate(clock, capsys):
    job = Progress(100, "steps", done=90)
    clock[0] = 4
    job.advance(2, "loss 0.5")
    assert capsys.readouterr().err == "92/100 steps, 0.5 steps/s, ETA 00:16, loss 0.5\n"


def test_progress__what_is_over_soon_is_not_told(clock, capsys):
    for seconds in (2, 4):
        job = Progress(10, "prompts", silence=3)
        clock[0] += seconds
        job.advance(10)
    assert capsys.readouterr().err == "10/10 prompts, 2.5 prompts/s, ETA 00:00\n"


def test_progress__a_listener_hears_in_place_of_standard_error(clock, capsys):
    heard = []

    def work():
        progress.listener.set(heard.append)
        Progress(1, "images").advance(1)
        Progress(1, "images").say("beside it")

    copy_context().run(work)
    Progress(1, "images").advance(1)
    assert [line.partition(",")[0] for line in heard] == ["1/1 images", "beside it"]
    assert capsys.readouterr().err.startswith("1/1 images, ")


def test_quiet__neither_progress_nor_notes(monkeypatch, clock, capsys):
    monkeypatch.setattr(progress, "_quiet", False)
    progress.set_quiet()
    job = Progress(2, "steps")
    clock[0] = 20
    job.advance(2)
    job.say("a note")
    progress.say("another")
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("columns", [60, 79])
def test_bar__fits_a_narrow_terminal_and_keeps_the_loss(columns):
    line = tqdm.format_meter(
        480, 480, 3725.0, ncols=columns, unit=" steps", bar_format=progress._format(columns),
        postfix="loss 0.1234, 197.3 images/s",
    )  # fmt: skip
    assert len(line) <= 60 and "480/480 steps" in line and line.endswith("loss 0.1234, 197.3 images/s")
    assert progress._format(80) is None
