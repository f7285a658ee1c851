"""A student of the generated world with ten narrow blocks, of which a method may lose the last one cheaply.

    python benchmarks/deep_student.py weights/scenes-deep.safetensors     # trains it
    densecli --plugin benchmarks/deep_student.py train --student scenes-deep ...

It is trained as `scenes-s` is, contrastively on image-caption pairs alone, on half as many of them.
"""

import argparse
from dataclasses import replace
from pathlib import Path

from densecli.models.registry import MODELS
from densecli.scenes.models import STUDENT

NAME = "scenes-deep"
CONFIG = dict(STUDENT.clip_config())
CONFIG["vision_cfg"] = {**CONFIG["vision_cfg"], "width": 72, "layers": 10}
MODELS.add(
    NAME, replace(STUDENT, name=NAME, config=CONFIG, weights=None), help="scenes-s with ten narrow blocks."
)


def main() -> None:
    from densecli.core.progress import Progress
    from densecli.models.checkpoints import load_model
    from densecli.scenes.contrastive import ContrastiveConfig, retrieval_accuracy, train_contrastive
    from densecli.scenes.pretrain import render_pairs, save_weights

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("weights", type=Path)
    parser.add_argument("--scenes", type=int, default=32_000)
    parser.add_argument("--pairs", type=int, default=80_000)
    args = parser.parse_args()
    config = ContrastiveConfig(pairs=args.pairs)
    model, _ = load_model(NAME, "random:0")
    images, captions = render_pairs(0, "pretrain", args.scenes)
    progress = Progress(config.steps, "steps")
    train_contrastive(
        model,
        images,
        captions,
        config=config,
        on_step=lambda loss: progress.advance(1, f"loss {loss:.3f}"),
    )
    progress.close()
    save_weights(model.clip.state_dict(), args.weights)
    print(f"retrieval accuracy {retrieval_accuracy(model, *render_pairs(0, 'val', 500)):.1f} %")


if __name__ == "__main__":
    main()
