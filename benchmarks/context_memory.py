"""Peak memory of a training step without and with the `context` loss, as a markdown table.

    python benchmarks/context_memory.py
    python benchmarks/context_memory.py --student scenes-s --tokens 1024 4096 --device cuda

Without a GPU nothing is computed: the step runs on fake tensors, and the storages alive at a time are
added up. With one it runs, and torch.cuda.max_memory_allocated is read. A column is what a step has at its
peak beyond what was there before it: weights and images are not in it, activations and gradients are.
`plain` is the loss with the whole matrices.
"""

import argparse
from collections.abc import Callable

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from densecli.models.dense import DenseCLIP
from densecli.models.registry import build, resolve
from densecli.train.correlation import context_loss
from densecli.train.memory import LiveBytes
from densecli.train.terms import StudentOutput
from densecli.train.terms.context import context_tokens

Loss = Callable[[Tensor, Tensor], Tensor]


def plain(student: Tensor, teacher: Tensor) -> Tensor:
    distances = teacher @ teacher.mT - student @ student.mT
    norms: Tensor = torch.linalg.vector_norm(distances, dim=-1)
    return norms.mean()


def step(model: DenseCLIP, images: Tensor, teacher: Tensor, mode: str, loss: Loss | None, bf16: bool) -> None:
    with torch.autocast(images.device.type, dtype=torch.bfloat16, enabled=bf16):
        dense, context = model(images, mode, context=True)
    total = dense.float().square().mean()
    if loss:
        total = total + loss(context_tokens(StudentOutput(dense.float(), dense, context)), teacher)
    total.backward()


def peak_bytes(args: argparse.Namespace, tokens: int, loss: Loss | None) -> int:
    """What a step holds at its peak beyond weights, images and targets (gradients are in it)."""
    model = build(resolve(args.student))
    frozen = model.frozen_names(args.mode)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name not in frozen)
    side = round(tokens**0.5) * model.patch_size
    images, teacher = (
        torch.zeros(args.batch_size, 3, side, side),
        torch.rand(args.batch_size, tokens, args.rank),
    )
    if args.device == "cuda":
        model, images, teacher = model.cuda(), images.cuda(), teacher.cuda()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step(model, images, teacher, args.mode, loss, args.bf16)
        return int(torch.cuda.max_memory_allocated() - before)
    with FakeTensorMode() as fake:
        for module in model.modules():
            for name, parameter in list(module.named_parameters(recurse=False)):
                setattr(module, name, fake.from_tensor(parameter))
            for name, buffer in list(module.named_buffers(recurse=False)):
                setattr(module, name, fake.from_tensor(buffer))
        images, teacher = fake.from_tensor(images), fake.from_tensor(teacher)
        with LiveBytes() as live:
            step(model, images, teacher, args.mode, loss, args.bf16)
        found: int = live.peak
        return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--student", default="eva02-b16")
    parser.add_argument("--mode", default="qq+scale")
    parser.add_argument("--tokens", type=int, nargs="+", default=[1024, 4096], help="square numbers")
    parser.add_argument("--batch-size", type=int, default=1)
    parser.add_argument("--rank", type=int, default=64)
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()
    print(f"{args.student}, batch {args.batch_size}, {'bf16' if args.bf16 else 'fp32'}, {args.device}\n")
    print("| tokens | student, MiB | with context | ratio | with plain | ratio |\n|---|---|---|---|---|---|")
    for tokens in args.tokens:
        alone, blocks, whole = (
            peak_bytes(args, tokens, loss) / 2**20 for loss in (None, context_loss, plain)
        )
        ratios = f"{blocks / alone:.2f} | {whole:.0f} | {whole / alone:.2f}"
        print(f"| {tokens} | {alone:.0f} | {blocks:.0f} | {ratios} |", flush=True)


if __name__ == "__main__":
    main()
