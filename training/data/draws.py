"""Which samples an optimizer step takes: a function of seed, step, and of what was decided at evaluations."""

import numpy as np

from ..curriculum import Curriculum
from ..mixture import Mixture


class ShuffledPasses:
    """An endless series of samples: pass after pass over a dataset, each in another order.

    Args:
        samples (`Sequence[int]`): the dataset's indices.
        seed (`Sequence[int]`): of its orders.
    """

    def __init__(self, samples, seed):
        self._samples = np.asarray(samples)
        self._seed = list(seed)
        self._num_passes = 0
        self._rest = np.empty(0, dtype=self._samples.dtype)  # of the current pass

    def __len__(self) -> int:
        return len(self._samples)

    def take(self, count: int) -> np.ndarray:
        """The next so many, at most as many as there are: none comes twice, also where a pass ends among them."""
        first, self._rest = self._rest[:count], self._rest[count:]
        if len(first) == count:
            return first
        order = np.random.default_rng([*self._seed, self._num_passes]).permutation(self._samples)
        self._num_passes += 1
        repeated = np.isin(order, first)
        order = np.concatenate([order[~repeated], order[repeated]])
        rest = count - len(first)
        self._rest = order[rest:]
        return np.concatenate([first, order[:rest]])


class StepDraws:
    """The samples of every optimizer step.

    How many of a step's samples come from which dataset is drawn from the mixture's shares, by a generator of seed and step. Each
    dataset gives its samples pass after pass, so that which they are follows from all steps before; these are gone through
    again where a run is resumed, without touching any data.

    Args:
        curriculum ([`Curriculum`]): the stages.
        mixture ([`Mixture`]): the datasets and their shares.
        batch_size (`int`): samples of an optimizer step, on all ranks together.
        seed (`int`, *optional*, defaults to 0): of all draws.
    """

    def __init__(self, curriculum: Curriculum, mixture: Mixture, batch_size: int, seed: int = 0):
        self.curriculum = curriculum
        self.mixture = mixture
        self.batch_size = batch_size
        self.seed = seed
        self._rewind()

    def _rewind(self) -> None:
        self._next_step = 0
        self._passes = [
            ShuffledPasses(d.samples, (self.seed, number)) for number, d in enumerate(self.mixture.datasets)
        ]

    def __getitem__(self, step: int) -> list[int]:
        """Indices of a step's samples, none twice, `batch_size` of them."""
        if step < self._next_step:
            self._rewind()
        while self._next_step < step:
            self._draw()
        return self._draw()

    def _draw(self) -> list[int]:
        step = self._next_step
        self._next_step += 1
        shares = self.mixture.shares(self.curriculum.stages[self.curriculum.index_at(step)], step)
        counts = self._counts(shares, np.random.default_rng([self.seed, len(self._passes), step]))
        taken = [passes.take(count) for passes, count in zip(self._passes, counts.tolist(), strict=True) if count]
        return np.concatenate(taken).tolist()

    def _counts(self, shares: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        """How many samples each dataset gives; what one cannot give without repeating itself falls to the others."""
        sizes = np.array([len(passes) for passes in self._passes])
        counts = np.zeros(len(sizes), dtype=int)
        while (missing := self.batch_size - counts.sum()) > 0:
            open_shares = np.where(counts < sizes, shares, 0.0)
            counts = np.minimum(counts + generator.multinomial(missing, open_shares / open_shares.sum()), sizes)
        return counts
