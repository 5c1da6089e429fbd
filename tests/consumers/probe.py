"""Load a bundle with one other program, and say what comes out, as one JSON line.

Runs in that program's own environment, so nothing of spoco_zoo is imported:
``python probe.py CONSUMER BUNDLE.zip``. Each function below is what a user of
that program would write; ``docs/consumers.md`` shows it.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import sys
import tempfile
import warnings
import zipfile
from pathlib import Path

import numpy as np


def zscore(image):
    """Normalisation by hand, for programs that do not read the description."""
    return ((image - image.mean()) / (image.std() + 1e-6)).astype("float32")


def core(bundle, image):
    from bioimageio.core import Sample, Tensor, create_prediction_pipeline
    from bioimageio.spec import load_description

    model = load_description(bundle, perform_io_checks=False)
    dims = (
        ("batch", "channel", "z", "y", "x") if image.ndim == 5 else ("batch", "channel", "y", "x")
    )
    sample = Sample(members={"input": Tensor.from_numpy(image, dims=dims)}, stat={}, id=None)
    with create_prediction_pipeline(model) as pipeline:
        result = predict_as_is(pipeline, sample)
    names = [name for name in ("embeddings", "labels") if name in result.members]
    return [np.asarray(result.members[name].data) for name in names]


def predict_as_is(pipeline, sample):
    """Without the padding that newer versions add by default, where they do."""
    try:
        return pipeline.predict_sample_without_blocking(
            sample, skip_input_padding=True, skip_output_cropping=True
        )
    except TypeError:
        return pipeline.predict_sample_without_blocking(sample)


def torch_em(bundle, image):
    import torch
    from torch_em.util.modelzoo import import_bioimageio_model

    network, normalise = import_bioimageio_model(str(bundle))
    with torch.no_grad():
        return network.eval()(torch.from_numpy(normalise(image).astype("float32")))


def biapy(bundle, image):
    import torch
    from biapy.config.config import Config
    from biapy.models import build_bmz_model
    from bioimageio.spec import load_description

    settings = Config(str(bundle.parent), "job").get_cfg_defaults()
    settings.PROBLEM.NDIM = "3D" if image.ndim == 5 else "2D"
    settings.DATA.PATCH_SIZE = (*image.shape[2:], 1)
    model = load_description(bundle, perform_io_checks=False)
    network = build_bmz_model(settings, model, torch.device("cpu")).eval()
    with torch.no_grad():
        return network(torch.from_numpy(zscore(image)))


def torchscript(bundle, image):
    import torch

    with zipfile.ZipFile(bundle) as files, files.open("weights_torchscript.pt") as content:
        network = torch.jit.load(content, map_location="cpu").eval()
    with torch.no_grad():
        return network(torch.from_numpy(zscore(image)))


def onnxruntime(bundle, image):
    import onnxruntime

    with zipfile.ZipFile(bundle) as files:
        network = onnxruntime.InferenceSession(files.read("weights.onnx"))
    return network.run(None, {"input": zscore(image)})


def official(bundle):
    """Status of the official test of that version, or None where it has none."""
    from bioimageio.core import load_description_and_test

    summary = load_description_and_test(bundle).validation_summary
    formats = {d.loc[1] for d in summary.details if d.loc[:1] == ("weights",)}
    return f"{summary.status}: {', '.join(sorted(formats))}"


CONSUMERS = {
    "core": (core, "bioimageio.core"),
    "torch-em": (torch_em, "torch-em"),
    "biapy": (biapy, "biapy"),
    "torchscript": (torchscript, "torch"),
    "onnxruntime": (onnxruntime, "onnxruntime"),
}


def stand_in_for_torchvision():
    """Define the operators that a torchvision built for another torch fails to register.

    torch-em and BiaPy import torchvision and do not use it for our bundle. The
    result of a probe says when this was needed.
    """
    import torch

    library = torch.library.Library("torchvision", "DEF")
    library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    return library


def probe(name, bundle):
    """Run one consumer on the bundle's test input and compare with what the bundle promises."""
    run, package = CONSUMERS[name]
    row = {"consumer": name, "version": importlib.metadata.version(package), "bundle": bundle.name}
    library = stand_in_for_torchvision() if os.environ.get("TORCHVISION_STAND_IN") else None
    row["torchvision"] = "stand-in" if library is not None else "as installed"
    with tempfile.TemporaryDirectory() as folder:
        with zipfile.ZipFile(bundle) as files:
            files.extractall(folder)
        try:
            if name == "core":
                row["official test"] = official(bundle)
            image = np.load(Path(folder, "test_input.npy"))
            embeddings, *labels = arrays(run(bundle, image))
            expected = np.load(Path(folder, "test_output.npy"))
            row["difference"] = float(np.abs(embeddings - expected).max())
            row["largest"] = float(np.abs(expected).max())
            row["labels equal"] = labels_equal(folder, embeddings)
            for own in labels:
                wanted = np.load(Path(folder, "test_labels.npy"))
                row["own labels differ"] = int((own[0, 0] != wanted).sum())
        except Exception as error:
            row["error"] = f"{type(error).__name__}: {error}"[:300]
    return row


def arrays(result):
    """Outputs of a network as arrays: embeddings, and labels where the bundle gives them."""
    several = isinstance(result, list | tuple)
    return [np.asarray(item) for item in (result if several else [result])]


def labels_equal(folder, embeddings):
    """Whether the script in the bundle makes the expected labels of these embeddings."""
    import yaml

    sys.path.insert(0, folder)
    from spoco_cluster import cluster

    with open(Path(folder, "rdf.yaml")) as file:
        parameters = yaml.safe_load(file)["config"]["spoco"]["cluster_script"]["parameters"]
    labels = cluster(embeddings[0], **parameters)
    return bool(np.array_equal(labels, np.load(Path(folder, "test_labels.npy"))))


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    print(json.dumps(probe(sys.argv[1], Path(sys.argv[2]).resolve())))
