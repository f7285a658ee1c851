"""A training loop of one's own on a store: a CLIP learns a teacher's labels, in thirty lines of torch.

python examples/training_loop.py stores/scenes-96 scenes-pvlm scenes-s
"""

import sys

import torch
from torch.utils.data import DataLoader

import densecli
from densecli.models.checkpoints import load_model
from densecli.models.text import text_embeddings


def train(store: str, teacher: str, student: str, *, steps: int = 20, workers: int = 2) -> list[float]:
    """Trains the image tower. Returns the loss of each step."""
    labels = densecli.Store.open(store).find("targets", teacher)
    model, _ = load_model(student)
    text = text_embeddings(model, labels.spec["target"]["categories"])
    stream = densecli.SampleStream(store, [teacher])
    loader = DataLoader(stream, batch_size=8, num_workers=workers, collate_fn=densecli.collate)
    optimizer = torch.optim.AdamW(model.clip.visual.parameters(), lr=1e-4)
    losses: list[float] = []
    for epoch in range(steps):
        stream.set_epoch(epoch)
        for batch in loader:
            dense = model.dense(model.prepare(batch.images))
            logits = 100 * batch.pool(dense) @ text.T
            # The last two columns are what the teacher left to other things and other stuff.
            wanted = batch.targets["labels"][:, :-2]
            loss = torch.nn.functional.cross_entropy(logits, wanted)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
            if len(losses) == steps:
                return losses
    return losses


if __name__ == "__main__":
    for number, loss in enumerate(train(*sys.argv[1:4])):
        print(f"step {number}: {loss:.3f}")
