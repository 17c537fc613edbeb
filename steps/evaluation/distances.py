"""Distances between the features of generated and of real pictures: FID, and kernel distances such as KID.

FID of N pictures exceeds that of infinitely many, by more than models differ where N is no large multiple of the
number of features. `Yardstick.extrapolated` estimates the latter. Kernel distances have no such excess. The real
pictures are the yardstick, the same for every model: intervals speak of other draws of the generated ones.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import Final

import numpy as np
import torch
from torch import Tensor

from steps.evaluation.intervals import Floats

# What an extrapolation takes, in pictures for each feature: below it, its error exceeds what its interval says.
PICTURES_PER_FEATURE: Final = 1.5
BLOCKS: Final = 8
# Rows of the kernel matrix at once: 512 x 30,000 in float64 are 120 MB.
KERNEL_ROWS: Final = 512

# Whose distance is the radius around a picture within which another is alike.
NEIGHBOUR: Final = 3

Kernel = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Measured:
    """A value, and what each picture adds to it."""

    value: float
    parts: Floats
    """(N,), from whose spread the interval follows."""

    def __sub__(self, other: "Measured") -> "Measured":
        return Measured(self.value - other.value, self.parts - other.parts)


def enough_pictures(features: int) -> int:
    """Return how many pictures FID needs to be extrapolated, and so to be compared."""
    return math.ceil(PICTURES_PER_FEATURE * features)


@dataclass(frozen=True)
class _Moments:
    """Sums over pictures, from which those of any union of sets follow."""

    count: int
    total: Tensor
    squares: Tensor

    @classmethod
    def of(cls, rows: Tensor) -> "_Moments":
        return cls(len(rows), rows.sum(0), rows.T @ rows)

    def __add__(self, other: "_Moments") -> "_Moments":
        return _Moments(self.count + other.count, self.total + other.total, self.squares + other.squares)

    @property
    def mean(self) -> Tensor:
        return self.total / self.count

    @property
    def covariance(self) -> Tensor:
        return (self.squares - self.count * torch.outer(self.mean, self.mean)) / (self.count - 1)


class Yardstick:
    """Real pictures' features, (N, D), as a normal distribution: what FIDs are measured from (arXiv:1706.08500)."""

    def __init__(self, real: Floats) -> None:
        rows = torch.from_numpy(real).double()
        # Sums of squares are taken about it, or they would lose digits.
        self._origin = rows.mean(0)
        self._covariance = _Moments.of(rows - self._origin).covariance
        values, vectors = torch.linalg.eigh(self._covariance)
        self._root = (vectors * values.clamp(min=0).sqrt()) @ vectors.T

    def distance(self, generated: Floats) -> float:
        """Return the FID of features, (N, D)."""
        return self._distance(_Moments.of(self._centred(generated)))

    def measure(self, generated: Floats) -> Measured:
        """Return the FID of features, (N, D), with its influences.

        Its gradient by the covariance S2 is 1 - S1^1/2 (S1^1/2 S2 S1^1/2)^-1/2 S1^1/2, by the mean 2 (m2 - m1).
        """
        rows = self._centred(generated)
        moments = _Moments.of(rows)
        values, vectors = torch.linalg.eigh(self._root @ moments.covariance @ self._root)
        # Directions that no picture varies in, of which there are some below D + 1 pictures, have no gradient.
        inverse = torch.where(values > 1e-10 * values[-1], values.abs().rsqrt(), 0.0)
        transport = self._root @ ((vectors * inverse) @ vectors.T) @ self._root
        offsets = rows - moments.mean
        influences = 2 * offsets @ moments.mean + offsets.square().sum(1) - ((offsets @ transport) * offsets).sum(1)
        return Measured(self._distance(moments), (influences - influences.mean()).numpy())

    def extrapolated(self, generated: Floats) -> float:
        """Return the FID of infinitely many pictures (Chong and Forsyth 2020, arXiv:1911.07023).

        FID is a polynomial in 1/N. It is measured on all pictures, all but an eighth of them, and halves, each picture
        counting as often as any other, so that the points share their chance errors. The line through the first two
        points comes out low and the parabola through all three high, by about as much: the value is their mean.
        """
        blocks = [_Moments.of(rows) for rows in self._centred(generated).tensor_split(BLOCKS)]
        whole, half = _sum(blocks), BLOCKS // 2
        without = [_sum(blocks[:place] + blocks[place + 1 :]) for place in range(BLOCKS)]
        sets = [[whole], without, [_sum(blocks[:half]), _sum(blocks[half:])]]
        # 1/N of each point, as a multiple of that of all pictures.
        inverse = [float(np.mean([whole.count / one.count for one in subsets])) for subsets in sets]
        values = [float(np.mean([self._distance(one) for one in subsets])) for subsets in sets]
        at_zero = [np.polynomial.Polynomial.fit(inverse[:many], values[:many], many - 1)(0.0) for many in (2, 3)]
        return float(np.mean(at_zero))

    def _centred(self, features: Floats) -> Tensor:
        return torch.from_numpy(features).double() - self._origin

    def _distance(self, moments: _Moments) -> float:
        """Return |m1 - m2|^2 + tr(S1 + S2) - 2 tr((S1^1/2 S2 S1^1/2)^1/2)."""
        covariance = moments.covariance
        product = torch.linalg.eigvalsh(self._root @ covariance @ self._root)
        traces = self._covariance.trace() + covariance.trace() - 2 * product.clamp(min=0).sqrt().sum()
        return float(moments.mean.square().sum() + traces)


def _sum(moments: Sequence[_Moments]) -> _Moments:
    return reduce(add, moments)


class KernelYardstick:
    """Real pictures' features, (N, D), for the unbiased kernel distance (MMD^2; Gretton et al. 2012)."""

    def __init__(self, real: Floats, kernel: Kernel) -> None:
        self._real, self._kernel = torch.from_numpy(real).double(), kernel
        self._among = float(self._within(self._real).mean())

    def measure(self, generated: Floats) -> Measured:
        """Return the distance of features, (N, D), with its influences."""
        rows = torch.from_numpy(generated).double()
        within = self._within(rows)
        across = torch.cat([self._kernel(some, self._real).mean(1) for some in _few(rows)])
        influences = 2 * (within - across)
        value = float(within.mean() - 2 * across.mean()) + self._among
        return Measured(value, (influences - influences.mean()).numpy())

    def _within(self, rows: Tensor) -> Tensor:
        """Return each row's mean kernel with the others, (N,)."""
        sums = []
        for start in range(0, len(rows), KERNEL_ROWS):
            kernel = self._kernel(rows[start : start + KERNEL_ROWS], rows)
            kernel.diagonal(start).zero_()
            sums.append(kernel.sum(1))
        return torch.cat(sums) / (len(rows) - 1)


def precision_recall(real: Floats, generated: Floats) -> tuple[Measured, Measured]:
    """Return the share of generated pictures among real ones, and of real pictures among generated ones.

    Among them means: no further from some than its third neighbour of its own kind. Kynkaanniemi et al. 2019,
    arXiv:1904.06991. The parts of the second are the real pictures.
    """
    return _share_within(generated, real), _share_within(real, generated)


def _share_within(some: Floats, others: Floats) -> Measured:
    rows, centres = torch.from_numpy(some).double(), torch.from_numpy(others).double()
    # The nearest is the picture itself.
    nearest = [torch.cdist(part, centres).kthvalue(min(NEIGHBOUR + 1, len(centres)), 1)[0] for part in _few(centres)]
    reach = torch.cat(nearest)
    within = torch.cat([(torch.cdist(part, centres) <= reach).any(1) for part in _few(rows)]).double().numpy()
    return Measured(float(within.mean()), within)


def _few(rows: Tensor) -> Sequence[Tensor]:
    return torch.split(rows, KERNEL_ROWS)


def cubic(first: Tensor, second: Tensor) -> Tensor:
    """Return KID's kernel, (N, M): Binkowski et al. 2018, arXiv:1801.01401."""
    kernel: Tensor = (first @ second.T / first.shape[1] + 1.0) ** 3
    return kernel


def gaussian(first: Tensor, second: Tensor) -> Tensor:
    """Return CMMD's kernel, (N, M), of width 10 and a thousandfold, as its authors print it."""
    return 1000.0 * torch.exp(-torch.cdist(first, second).square() / (2 * 10.0**2))
