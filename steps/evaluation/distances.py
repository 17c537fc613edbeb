"""Distances between the features of generated and of real pictures: FID and KID.

The reported values are torchmetrics' own. `Yardstick.distance` is a second way to the same FID, by symmetric
eigenvalues, fast enough for the hundreds of resamples of a confidence interval.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from torch import Tensor, nn
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.kid import KernelInceptionDistance

from steps.evaluation.intervals import Floats
from steps.progress import Progress

FID_REPLICATES: Final = 200
KID_REPLICATES: Final = 200
# Binkowski et al. 2018, arXiv:1801.01401: 100 subsets of 1,000.
KID_SUBSETS: Final = 100
KID_SUBSET_SIZE: Final = 1000
# Rows of the kernel matrix at once: 512 x 30,000 in float64 are 120 MB.
KERNEL_ROWS: Final = 512


def fid(real: Floats, generated: Floats) -> float:
    """Return the Frechet distance between two sets of features, each (N, D), by torchmetrics in float64.

    Heusel et al. 2017, arXiv:1706.08500.
    """
    metric = FrechetInceptionDistance(feature=_GivenFeatures(real.shape[1]))
    metric.update(torch.from_numpy(real).double(), real=True)
    metric.update(torch.from_numpy(generated).double(), real=False)
    return float(metric.compute())


def kid(real: Floats, generated: Floats, seed: int) -> tuple[float, float]:
    """Return the kernel distance's mean and standard deviation over subsets, by torchmetrics.

    A subset holds at most half of the smaller set: subsets of all of it would be one and the same.
    """
    subset_size = min(KID_SUBSET_SIZE, len(real) // 2, len(generated) // 2)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Metric `Kernel Inception Distance` will save all", UserWarning)
        metric = KernelInceptionDistance(_GivenFeatures(real.shape[1]), KID_SUBSETS, max(subset_size, 2))
    metric.update(torch.from_numpy(real).double(), real=True)
    metric.update(torch.from_numpy(generated).double(), real=False)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        mean, deviation = metric.compute()
    return float(mean), float(deviation)


def fid_replicates(real: Floats, generated: Floats, seed: int, count: int = FID_REPLICATES) -> Floats:
    """Return the FID of `count` resamples of the generated pictures, (count,).

    The real pictures stay as they are: they are the yardstick, the same for every model.
    """
    yardstick = Yardstick.of(real)
    draws = np.random.default_rng(seed)
    progress = Progress("resample", count, "resamples")
    replicates = np.empty(count)
    for number in range(count):
        sample = generated[draws.integers(len(generated), size=len(generated))]
        replicates[number] = yardstick.distance(sample)
        progress.advance()
    return replicates


def kid_replicates(real: Floats, generated: Floats, seed: int, count: int = KID_REPLICATES) -> Floats:
    """Return the kernel distance of `count` resamples of the generated pictures, (count,).

    Of all pictures at once, not of subsets; the kernel between the real ones is left out, as it is the same in every
    replicate. A picture drawn twice is not compared with itself. The same seed and count of pictures draw the same
    resamples as `fid_replicates`.
    """
    rows, pictures = torch.from_numpy(generated).double(), len(generated)
    reals = torch.from_numpy(real).double()
    draws = np.random.default_rng(seed)
    times = np.stack([np.bincount(draws.integers(pictures, size=pictures), minlength=pictures) for _ in range(count)])
    weights = torch.from_numpy(times.T.astype(np.float64))
    within, across = torch.zeros(count, dtype=torch.double), torch.zeros(count, dtype=torch.double)
    for start in range(0, pictures, KERNEL_ROWS):
        some = slice(start, start + KERNEL_ROWS)
        kernel = _kernel(rows[some], rows)
        kernel[torch.arange(len(kernel)), torch.arange(start, start + len(kernel))] = 0.0
        within += (weights[some] * (kernel @ weights)).sum(0)
        across += weights[some].T @ _kernel(rows[some], reals).mean(1)
    replicates: Floats = (within / (pictures * (pictures - 1)) - 2 * across / pictures).numpy()
    return replicates


def _kernel(first: Tensor, second: Tensor) -> Tensor:
    """Return the polynomial kernel of Binkowski et al., as torchmetrics' defaults have it, (N, M)."""
    return (first @ second.T / first.shape[1] + 1.0) ** 3


@dataclass(frozen=True)
class Yardstick:
    """The normal distribution fitted to the real pictures' features."""

    mean: Tensor
    """(D,), float64."""
    covariance: Tensor
    """(D, D), float64, unbiased."""
    root: Tensor
    """Symmetric square root of the covariance, (D, D)."""

    @classmethod
    def of(cls, real: Floats) -> Yardstick:
        """Fit to features, (N, D)."""
        mean, covariance = _moments(real)
        values, vectors = torch.linalg.eigh(covariance)
        return cls(mean, covariance, (vectors * values.clamp(min=0).sqrt()) @ vectors.T)

    def distance(self, generated: Floats) -> float:
        """Return |m1 - m2|^2 + tr(S1 + S2) - 2 tr((S1^1/2 S2 S1^1/2)^1/2) to features, (N, D)."""
        mean, covariance = _moments(generated)
        product = torch.linalg.eigvalsh(self.root @ covariance @ self.root)
        traces = self.covariance.trace() + covariance.trace() - 2 * product.clamp(min=0).sqrt().sum()
        return float((self.mean - mean).square().sum() + traces)


def _moments(features: Floats) -> tuple[Tensor, Tensor]:
    rows = torch.from_numpy(features).double()
    return rows.mean(0), torch.cov(rows.T)


class _GivenFeatures(nn.Module):
    """Stands where torchmetrics expects the network: the features are there already."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features

    def forward(self, features: Tensor) -> Tensor:
        return features
