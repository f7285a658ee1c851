"""Every task gives the same in two processes as in one, and on a GPU as on the CPU.

By torchrun, this file is run itself.
"""

import json
import sys
from pathlib import Path

import pytest
import torch
from torchruns import torchrun

from densecli.core.distributed import Distributed, joined_processes
from densecli.evaluation.classify import ClassifyConfig
from densecli.evaluation.evaluation_request import EvaluationRequest
from densecli.evaluation.model_under_test import ModelUnderTest, evaluate_regions
from densecli.evaluation.tasks import TASKS
from densecli.scenes.coco import write_coco

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")
EVERY = ("regions", *TASKS)
ALIKE = "test"


def measured(task, scenes, processes, neighbours=ALIKE):
    """What a task says of the shipped student, in JSON's values."""
    under_test = ModelUnderTest(model="scenes-s")
    where = {"data": str(scenes), "split": "val", "categories": "scenes"}
    if task == "regions":
        config = ClassifyConfig(canvas=96, batch_size=2)
        found = evaluate_regions(under_test, **where, config=config, processes=processes).to_dict()
    else:
        settings = {"canvas": 96, "batch_size": 2}
        request = EvaluationRequest(under_test=under_test, **where, settings=settings, train_split=neighbours)
        found = TASKS[task](request, processes).values[under_test.title]
    return json.loads(json.dumps(found))


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    """An odd number of photos. Those of ALIKE all look the same and are labelled differently: which of
    them are a patch's nearest is a matter of their order."""
    root = tmp_path_factory.mktemp("scenes")
    for split in ("val", "train", ALIKE):
        write_coco(root, seed=0, split=split, count=7)
    first, *others = sorted((root / ALIKE).iterdir())
    for photo in others:
        photo.write_bytes(first.read_bytes())
    return root


@pytest.fixture
def one_thread():
    """As torchrun gives each process."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def together(scenes):
    """What each of two processes measures."""
    torchrun(__file__, str(scenes))
    return [json.loads((scenes / f"{rank}.json").read_text()) for rank in (0, 1)]


@pytest.mark.parametrize("task", EVERY)
def test_task__two_processes_are_one(scenes, together, one_thread, task):
    one = measured(task, scenes, Distributed(device=CPU))
    assert [each[task] for each in together] == [one, one]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
@pytest.mark.parametrize("task", EVERY)
def test_task__a_gpu_is_as_the_cpu(scenes, monkeypatch, task):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    one, other = (measured(task, scenes, Distributed(device=d), "train") for d in (CPU, torch.device("cuda")))
    shares = {name: value for name, value in one.items() if isinstance(value, float)}
    assert {name: other[name] for name in shares} == pytest.approx(shares, abs=0.5)


if __name__ == "__main__":
    with joined_processes("cpu") as processes:
        found = {task: measured(task, sys.argv[1], processes) for task in EVERY}
        Path(sys.argv[1], f"{processes.rank}.json").write_text(json.dumps(found))
