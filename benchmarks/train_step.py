"""One loss step against a per-object loop of the published formulas: time, peak memory, value.

The loop (`loop_loss`) goes over images, objects and anchors one at a time, as the formulas of
Wolny et al. (CVPR 2022) read: pull, push, regulariser, Dice of every object's soft mask over the
whole image, unlabeled push, and consistency. The package's losses are given the same embeddings,
labels and anchors, with the paper's global scope. A step is the loss and its gradient with
respect to the embeddings. Prints one JSON line; timings are ratios of one run.

    python -m benchmarks.train_step --device cpu
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from spoco_zoo.config import LossConfig
from spoco_zoo.train.loss import kernel_width
from spoco_zoo.train.objective import Objective

EPS = 1e-6
PAPER = LossConfig(push_scope="global", background_push=0.0, background_border=0.0)
Step = Callable[[Tensor, Tensor, Tensor, int], Tensor]


def scene(batch: int, side: int, objects: int, dim: int, device: str) -> tuple[Tensor, ...]:
    """Embeddings of two networks (N, E, Y, X) and labels (N, Y, X): discs on a jittered grid."""
    rng = np.random.default_rng(0)
    labels = np.zeros((batch, side, side), np.int64)
    rows = int(np.ceil(np.sqrt(objects)))
    pitch = side / rows
    y, x = np.mgrid[:side, :side]
    for n in range(batch):
        for k in range(objects):
            middle = (np.array(divmod(k, rows)) + 0.5 + rng.uniform(-0.1, 0.1, 2)) * pitch
            radius = pitch * rng.uniform(0.2, 0.35)
            labels[n][(y - middle[0]) ** 2 + (x - middle[1]) ** 2 < radius**2] = k + 1
    # Embeddings as late in a training: means about 2 delta_dist apart, noise of about delta_var.
    codes = rng.normal(0, 2.9 / np.sqrt(dim), (batch, objects + 1, dim))
    clean = np.stack([codes[n][labels[n]] for n in range(batch)])
    views = [clean + rng.normal(0, 0.12, clean.shape) for _ in range(2)]
    fields = [torch.tensor(v, dtype=torch.float32).movedim(-1, 1).contiguous() for v in views]
    return (*(f.to(device) for f in fields), torch.from_numpy(labels).to(device))


def loop_loss(embeddings: Tensor, labels: Tensor, momentum: Tensor, seed: int) -> Tensor:
    """The published objective, one object and one anchor at a time."""
    c = PAPER
    width = kernel_width(c.delta_var, c.kernel_threshold)
    images = []
    for field, label in zip(embeddings, labels, strict=True):
        ids = [int(k) for k in label.unique() if k > 0]
        means = [field[:, label == k].mean(1) for k in ids]
        pull, dice, unlabeled = [], [], []
        for k, mean in zip(ids, means, strict=True):
            own = label == k
            distance = (field - mean[:, None, None]).norm(dim=0)
            pull.append((distance[own] - c.delta_var).clamp(min=0).square().mean())
            mask, truth = torch.exp(-distance.square() / width), own.float()
            both = mask.square().sum() + truth.square().sum()
            dice.append(1 - 2 * (mask * truth).sum() / (both + EPS))
            unlabeled.append((c.delta_dist - distance[label == 0]).clamp(min=0).square().mean())
        push = [
            (2 * c.delta_dist - (means[a] - means[b]).norm()).clamp(min=0).square()
            for a in range(len(ids))
            for b in range(len(ids))
            if a != b
        ]
        norms = [mean.norm() for mean in means]
        images.append(
            c.pull * _mean(pull)
            + c.push * _mean(push)
            + c.regulariser * _mean(norms)
            + c.instance * _mean(dice)
            + c.unlabeled_push * _mean(unlabeled)
        )
    return _mean(images) + c.consistency * loop_consistency(embeddings, labels, momentum, seed)


def loop_consistency(embeddings: Tensor, labels: Tensor, momentum: Tensor, seed: int) -> Tensor:
    """Consistency with anchors drawn in rounds, one per image that is not yet covered."""
    width = kernel_width(PAPER.delta_var, PAPER.kernel_threshold)
    generator = torch.Generator(labels.device).manual_seed(seed)
    uncovered = labels == 0
    budget = uncovered.flatten(1).sum(1) * PAPER.volume_threshold
    losses = []
    for _ in range(PAPER.max_anchors):
        active = (uncovered.flatten(1).sum(1) > budget).nonzero().flatten()
        if len(active) == 0:
            break
        chance = uncovered[active].flatten(1).float()
        anchors = torch.multinomial(chance, 1, generator=generator).flatten()
        for n, anchor in zip(active.tolist(), anchors.tolist(), strict=True):
            masks = []
            for field in (embeddings[n], momentum[n].detach()):
                squared = (field - field.flatten(1)[:, anchor, None, None]).square().sum(0)
                uncovered[n] &= squared.detach() >= PAPER.delta_var**2
                masks.append(torch.exp(-squared / width))
            f, g = masks
            both = f.square().sum() + g.square().sum()
            losses.append(1 - 2 * (f * g).sum() / (both + EPS))
    return _mean(losses)


def _mean(values: list[Tensor]) -> Tensor:
    return torch.stack(values).mean()


def package_loss(embeddings: Tensor, labels: Tensor, momentum: Tensor, seed: int) -> Tensor:
    """The package's objective with the paper's terms."""
    generator = torch.Generator(labels.device).manual_seed(seed)
    objective = Objective(PAPER, (1.0, 1.0), with_background=False)
    return objective(embeddings, labels, momentum=momentum, generator=generator)[0]


def run_step(step: Step, data: tuple[Tensor, ...]) -> tuple[float, Tensor]:
    """Loss and gradient."""
    embeddings, momentum, labels = data
    leaf = embeddings.clone().requires_grad_()
    value = step(leaf, labels, momentum, 0)
    value.backward()
    assert leaf.grad is not None
    return float(value.detach()), leaf.grad


def peak_bytes(step: Step, data: tuple[Tensor, ...]) -> int:
    """Most memory held by tensors during a step, beyond what was held before."""
    if data[0].is_cuda:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run_step(step, data)
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True
    ) as profile:
        run_step(step, data)
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder) / "trace.json"
        profile.export_chrome_trace(str(trace))
        events = json.loads(trace.read_text())["traceEvents"]
    changes = [(e["ts"], e["args"]["Bytes"]) for e in events if e.get("name") == "[memory]"]
    held = np.cumsum([size for _, size in sorted(changes, key=lambda change: change[0])])
    return int(held.max())


def seconds(step: Step, data: tuple[Tensor, ...], repeats: int) -> float:
    """Shortest of several steps: processor time of one thread on CPU, elapsed time on CUDA."""
    # Other programs on the machine change elapsed time, and hardly the processor's.
    clock = time.perf_counter if data[0].is_cuda else time.process_time
    best = float("inf")
    for _ in range(repeats):
        began = clock()
        run_step(step, data)
        if data[0].is_cuda:
            torch.cuda.synchronize()
        best = min(best, clock() - began)
    return best


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--side", type=int, default=256)
    parser.add_argument("--objects", type=int, default=30, help="per crop")
    parser.add_argument("--dim", type=int, default=16, help="of the embeddings")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    data = scene(options.batch, options.side, options.objects, options.dim, options.device)
    steps = {"loop": loop_loss, "package": package_loss}
    (a, grad_a), (b, grad_b) = (run_step(step, data) for step in steps.values())
    time_ = {name: seconds(step, data, options.repeats) for name, step in steps.items()}
    memory = {name: peak_bytes(step, data) for name, step in steps.items()}
    result = {
        **vars(options),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "loss": round(a, 6),
        "relative_difference": abs(a - b) / abs(a),
        "gradient_difference": float((grad_a - grad_b).norm() / grad_a.norm()),
        "seconds": {name: round(value, 4) for name, value in time_.items()},
        "megabytes": {name: round(value / 2**20, 1) for name, value in memory.items()},
        "times_faster": round(time_["loop"] / time_["package"], 2),
        "memory_share": round(memory["package"] / memory["loop"], 3),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
