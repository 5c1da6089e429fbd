"""Run folders of small untrained networks, as training leaves them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch

from spoco_zoo.bundle.load import load_model
from spoco_zoo.config import ClusteringConfig, ModelRecipe, NetConfig, TrainConfig
from spoco_zoo.nets.model import save_run_model
from spoco_zoo.nets.registry import build_network

POOLING = {2: ((2, 2), (2, 2)), 3: ((1, 2, 2), (2, 2, 2))}
SHAPE = {2: (117, 90), 3: (13, 45, 50)}
PATCH = {2: (64, 64), 3: (16, 32, 32)}


def zscored(image: np.ndarray) -> torch.Tensor:
    return torch.from_numpy((image - image.mean()) / image.std())[None]


def randomised_state(net: NetConfig, seed: int) -> dict[str, torch.Tensor]:
    """State of a fresh network whose BatchNorm statistics are those of the sample image.

    Arbitrary statistics would leave most units of a deep network dead, and
    every comparison of its constant output would pass.
    """
    torch.manual_seed(seed)
    network = build_network(net)
    for module in network.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.momentum = 1.0
    with torch.inference_mode():
        output = network.train()(zscored(disks(net.ndim, channels=net.in_channels)[0]))
    assert float(output.std()) > 0.01
    return {name: value.clone() for name, value in network.state_dict().items()}


def disks(ndim: int, seed: int = 0, channels: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """A noisy image of bright balls, uint16-like values, and their labels."""
    rng = np.random.default_rng(seed)
    shape = SHAPE[ndim]
    grid = np.indices(shape)
    labels = np.zeros(shape, np.int32)
    for i in range(1, 13):
        centre = [rng.integers(0, n) for n in shape]
        distance = sum((g - c) ** 2 for g, c in zip(grid, centre, strict=True))
        labels[(distance < 8**2) & (labels == 0)] = i
    image = 200 + 800 * (labels > 0) + 30 * rng.standard_normal(shape)
    return image[None].astype(np.float32).repeat(channels, axis=0), labels


def separation(net: NetConfig, ndim: int) -> dict[str, object]:
    """Background and radii with which even an untrained network gives many objects."""
    image, labels = disks(ndim, channels=net.in_channels)
    network = build_network(net).eval()
    network.load_state_dict(randomised_state(net, 0))
    with torch.inference_mode():
        field = network(zscored(image))[0].numpy()
    background = field[:, labels == 0].mean(axis=1)
    background[: net.turning] = 0
    distance = np.linalg.norm(field - background.reshape(-1, *[1] * ndim), axis=0)
    radius = float(np.quantile(distance, 0.9)) / 2
    return {
        "background": tuple(round(float(b), 4) for b in background),
        "clustering": ClusteringConfig(
            bandwidth=radius / 4, foreground=radius, smoothness=radius / 2, min_size=5
        ),
    }


def make_run(
    folder: Path,
    ndim: int,
    *,
    momentum: bool = False,
    channels: int = 1,
    rotary: tuple[tuple[float, ...], ...] = (),
    **recipe: object,
) -> Path:
    """A complete run folder, as training leaves it."""
    folder.mkdir(parents=True)
    net = NetConfig(
        ndim=ndim,
        in_channels=channels,
        embedding_dim=4 + 2 * ndim * len(rotary),
        features=(4, 6, 8),
        pooling=POOLING[ndim],
        rotary=rotary,
    )
    values = {
        "net": net,
        "delta_var": 0.5,
        "delta_dist": 2.0,
        "kernel_threshold": 0.5,
        **separation(net, ndim),
        "channel_names": ("DAPI", "actin", "tubulin")[:channels],
        "voxel_size": (0.5,) * ndim,
        "object_size": (50.0, 180.0, 200.0),
        "patch": PATCH[ndim],
    }
    states = {"network": randomised_state(net, 0)}
    if momentum:
        states["momentum"] = randomised_state(net, 1)
    save_run_model(folder, ModelRecipe(**{**values, **recipe}), states)
    (folder / "metrics.json").write_text(
        json.dumps(
            {
                "iterations": 10,
                "n_train": 40,
                "n_objects": 300,
                "validation": {"ap50": 0.8123, "ap75": 0.5, "sbd": 0.83, "n_images": 7},
                "test": {"ap50": 0.7, "sbd": 0.8, "n_images": 3},
            }
        )
    )
    (folder / "config.yaml").write_text(TrainConfig(ndim=ndim).to_yaml())
    image, labels = disks(ndim, channels=channels)
    np.savez(folder / "sample.npz", image=image, labels=labels)
    return folder


def trained_run(folder: Path, momentum: bool = False, **recipe: object) -> Path:
    """A run folder with the weights of a shipped model, which finds the disks."""
    model = load_model("nuclei-fluo-2d")
    folder.mkdir(parents=True)
    states = {"network": model.network.state_dict()}
    if momentum:
        states["momentum"] = states["network"]
    save_run_model(folder, model.recipe.model_copy(update=recipe), states)
    (folder / "config.yaml").write_text(TrainConfig(annotation="sparse").to_yaml())
    return folder
