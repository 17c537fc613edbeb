"""Models whose distance to real pictures is known: features drawn from normal distributions, as in issue 18's cases."""

from dataclasses import dataclass

import numpy as np

from steps.evaluation.distances import Yardstick
from steps.evaluation.intervals import Floats

# Shift and scale of the features of two models, of which neither draws as well as the other.
ONE, OTHER = (0.05, 1.03), (0.06, 1.02)


@dataclass
class World:
    """Real pictures of `width` features, whose variances fall off, and models that draw like them."""

    width: int
    seed: int = 0

    def __post_init__(self) -> None:
        self.numbers = np.random.default_rng(self.seed)
        falling = 1 / np.arange(1, self.width + 1) ** 0.5
        self._mix = np.random.default_rng(5).normal(size=(self.width,) * 2) / self.width**0.5 * falling[:, None] * 3
        self._real = self.noise(30 * self.width)
        self.yardstick = Yardstick(self._real)

    def noise(self, pictures: int) -> Floats:
        """Return what pictures start from: the features of a perfect model's."""
        return self.numbers.normal(size=(pictures, self.width)) @ self._mix

    def draw(self, noise: Floats, model: tuple[float, float]) -> Floats:
        """Return a model's features."""
        shift, scale = model
        return np.asarray((noise + shift) * scale)

    def truth(self, model: tuple[float, float]) -> float:
        """Return a model's FID against the real pictures, by the formula, of its own mean and covariance."""
        shift, scale = model
        covariance = np.cov(self._real, rowvar=False)
        values, vectors = np.linalg.eigh(covariance)
        root = (vectors * np.sqrt(values)) @ vectors.T
        its = self._mix.T @ self._mix * scale**2
        both = np.linalg.eigvalsh(root @ its @ root)
        offset = self._real.mean(0) - shift * scale
        return float(offset @ offset + np.trace(covariance + its) - 2 * np.sqrt(both.clip(0)).sum())
