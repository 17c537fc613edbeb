"""Distances between the features of generated and of real pictures: FID and KID.

The reported values are torchmetrics' own. `Yardstick.distance` computes the same FID from symmetric
eigenvalues, fast enough for the hundreds of resamples of a confidence interval.
"""

from __future__ import annotations

import warnings
from typing import Any, Final

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
    _update(metric, real, generated)
    return float(metric.compute())


def kid(real: Floats, generated: Floats, seed: int) -> tuple[float, float]:
    """Return the kernel distance's mean and standard deviation over subsets, by torchmetrics.

    A subset holds at most half of the smaller set: subsets of the whole set would all be the same.
    """
    subset_size = min(KID_SUBSET_SIZE, len(real) // 2, len(generated) // 2)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Metric `Kernel Inception Distance` will save all", UserWarning)
        metric = KernelInceptionDistance(_GivenFeatures(real.shape[1]), KID_SUBSETS, max(subset_size, 2))
    _update(metric, real, generated)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        mean, deviation = metric.compute()
    return float(mean), float(deviation)


def _update(metric: Any, real: Floats, generated: Floats) -> None:
    metric.update(torch.from_numpy(real).double(), real=True)
    metric.update(torch.from_numpy(generated).double(), real=False)


def fid_replicates(real: Floats, generated: Floats, seed: int, count: int = FID_REPLICATES) -> Floats:
    """Return the FID of `count` resamples of the generated pictures, (count,).

    The real pictures are not resampled: they are the yardstick, the same for every model.
    """
    yardstick = Yardstick(real)
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

    Each covers all pictures, not subsets, and leaves out the kernel among the real ones, which is the same in every
    replicate. A picture drawn twice is not compared with itself. The same seed and number of pictures give the same
    resamples as in `fid_replicates`.
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


class Yardstick:
    """The normal distribution fitted to the real pictures' features, (N, D)."""

    def __init__(self, real: Floats) -> None:
        self._mean, self._covariance = _moments(real)
        values, vectors = torch.linalg.eigh(self._covariance)
        self._root = (vectors * values.clamp(min=0).sqrt()) @ vectors.T

    def distance(self, generated: Floats) -> float:
        """Return |m1 - m2|^2 + tr(S1 + S2) - 2 tr((S1^1/2 S2 S1^1/2)^1/2) to features, (N, D)."""
        mean, covariance = _moments(generated)
        product = torch.linalg.eigvalsh(self._root @ covariance @ self._root)
        traces = self._covariance.trace() + covariance.trace() - 2 * product.clamp(min=0).sqrt().sum()
        return float((self._mean - mean).square().sum() + traces)


def _moments(features: Floats) -> tuple[Tensor, Tensor]:
    rows = torch.from_numpy(features).double()
    return rows.mean(0), torch.cov(rows.T)


class _GivenFeatures(nn.Module):
    """Replaces the network that torchmetrics expects: the features are already computed."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features

    def forward(self, features: Tensor) -> Tensor:
        return features
