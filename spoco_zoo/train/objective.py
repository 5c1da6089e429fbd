"""The weighted sum of all loss terms for one batch, and what each contributed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from spoco_zoo.train import instance, loss
from spoco_zoo.train.data import BACKGROUND, UNKNOWN
from spoco_zoo.train.objects import (
    dilated,
    find_objects,
    flatten_embeddings,
    in_contact,
    neighbours,
    scatter_mean,
)
from spoco_zoo.train.pairs import pairs_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from spoco_zoo.config import LossConfig
    from spoco_zoo.train.pairs import Pairs

__all__ = ["Objective"]


AROUND = 3  # voxels of the finest axis around annotated objects where their border is learned


@dataclass(frozen=True)
class Objective:
    """The SPOCO objective (paper, equation 6) with a background prototype.

    Attributes
    ----------
    config : LossConfig
        Margins and weights.
    anisotropy : tuple of float
        Voxel size per axis relative to the finest, for windows of equal physical reach.
    with_background : bool
        Whether a background class exists: it is pulled to the origin, and
        every object is pushed from it.
    """

    config: LossConfig
    anisotropy: Sequence[float]
    with_background: bool

    @property
    def margin(self) -> list[int] | None:
        """Reach of the local terms per axis in voxels; None for the global form."""
        if self.config.push_scope == "global":
            return None
        return [max(1, round(self.config.window / a)) for a in self.anisotropy]

    def __call__(
        self,
        embeddings: Tensor,
        labels: Tensor,
        *,
        momentum: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss of a batch.

        Parameters
        ----------
        embeddings : Tensor
            float (N, E, [Z,] Y, X) of the first view.
        labels : Tensor
            int64 (N, [Z,] Y, X): objects > 0, 0 not annotated, -1 background.
        momentum : Tensor, optional
            Embeddings of the second view under the momentum network; the
            consistency term is computed if it is given.
        generator : torch.Generator, optional
            Source of all that is drawn; needed with `momentum`.

        Returns
        -------
        tuple
            Total, and the unweighted terms by the names of their weights.
        """
        rows = flatten_embeddings(embeddings)
        terms = self._object_terms(rows, labels, generator)
        if self.with_background:
            terms["background_border"] = self._border(rows, labels)
        unlabeled = labels == UNKNOWN
        if momentum is not None and generator is not None and bool(unlabeled.any()):
            config, count = self.config, labels.shape[0]
            terms["consistency"] = loss.consistency(
                rows.reshape(count, -1, rows.shape[1]),
                flatten_embeddings(momentum).reshape(count, -1, rows.shape[1]),
                unlabeled.reshape(count, -1),
                delta_var=config.delta_var,
                two_sigma=loss.kernel_width(config.delta_var, config.kernel_threshold),
                max_anchors=config.max_anchors,
                volume_threshold=config.volume_threshold,
                generator=generator,
            )
        total = rows.sum() * 0
        for name, value in terms.items():
            total = total + getattr(self.config, name) * value
        return total, terms

    def _object_terms(
        self, rows: Tensor, labels: Tensor, generator: torch.Generator | None
    ) -> dict[str, Tensor]:
        """Everything about annotated objects: pull, push, regulariser, instance, unlabeled push."""
        config = self.config
        objects = find_objects(labels)
        if objects.count == 0:
            return {}
        means = scatter_mean(rows[objects.voxel], objects.owner, objects.size)
        margin, contacts = self.margin, None
        if config.push_scope == "contact" and margin is not None:
            contacts = in_contact(objects, margin)
        near = neighbours(objects, margin) if contacts is None else contacts
        terms = {
            "pull": loss.pull(rows, means, objects, config.delta_var),
            "push": loss.push(means, near, config.delta_dist),
            "regulariser": loss.regulariser(means),
        }
        if self.with_background:
            terms["background_push"] = loss.background_push(means, config.delta_dist)
        unlabeled = labels.reshape(-1) == UNKNOWN
        anchors = means
        if config.instance > 0 and config.anchor == "voxel":
            anchors = rows[instance.sample_voxels(objects, generator)]
        per_object: dict[str, list[Tensor]] = {}
        for pairs in pairs_of(objects, margin, contacts):
            sizes = objects.size[pairs.objects]
            found = self._paired_terms(rows, means, anchors, pairs, sizes, unlabeled)
            for name, values in found.items():
                per_object.setdefault(name, []).append(values)
        terms |= {name: torch.cat(values).mean() for name, values in per_object.items()}
        if config.instance > 0 and config.instance_term == "affinity":
            offsets = instance.draw_offsets(labels.shape[1:], self.anisotropy, generator)
            terms["instance"] = instance.affinity_dice(rows, labels, offsets, config.delta_dist)
        return terms

    def _paired_terms(
        self,
        rows: Tensor,
        means: Tensor,
        anchors: Tensor,
        pairs: Pairs,
        sizes: Tensor,
        unlabeled: Tensor,
    ) -> dict[str, Tensor]:
        """Terms that compare objects with the voxels around them, float (k,) each."""
        config = self.config
        terms: dict[str, Tensor] = {}
        width = loss.kernel_width(config.delta_var, config.kernel_threshold)
        squared = pairs.squared(rows, means)
        if config.instance > 0 and config.instance_term != "affinity":
            around = squared if anchors is means else pairs.squared(rows, anchors)
            terms["instance"] = (
                loss.instance_dice(around, pairs, sizes, width)
                if config.instance_term == "dice"
                else instance.instance_bce(around, pairs, width)
            )
        if config.unlabeled_push > 0 and bool(unlabeled.any()):
            terms["unlabeled_push"] = loss.unlabeled_push(
                squared, pairs, unlabeled, config.delta_dist
            )
        return terms

    def _border(self, rows: Tensor, labels: Tensor) -> Tensor:
        """Background at the origin, and the border of objects at delta_dist from it."""
        flat = labels.reshape(-1)
        unknown, known = flat == UNKNOWN, flat == BACKGROUND
        delta_var, delta_dist = self.config.delta_var, self.config.delta_dist
        if not bool(unknown.any()):
            pulled = loss.background_pull(rows, known, delta_var)
            return pulled + loss.foreground(rows, flat > 0, known, delta_dist)
        # What the network already holds for background is taken at its word, and pulled together.
        believed = unknown & (rows.detach().norm(dim=1) < delta_dist)
        pulled = loss.background_pull(rows, known | believed, delta_var)
        around = dilated(labels > 0, [max(0, round(AROUND / a)) for a in self.anisotropy])
        return pulled + loss.positive_unlabeled(
            rows, flat > 0, known, unknown, around.reshape(-1), delta_dist
        )
