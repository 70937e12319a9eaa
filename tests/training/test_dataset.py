"""Samples as the model gets them: drawn wordings."""

from collections import Counter

from speechverse.training.data.dataset import Draw, InstructionDataset
from speechverse.training.data.filters import CheckedSample
from speechverse.training.data.sample import Sample


WORDINGS = ("which colour ?", "say it .", "what is said ?")


def drawn_wordings(number=3000, step=0, seed=0):
    checked = [CheckedSample(Sample("a.wav", WORDINGS, "yes"), None)] * number
    dataset = InstructionDataset(checked, None, seed=seed)
    return [dataset.instruction(Draw(index, step)) for index in range(number)]


def chi_square(drawn, outcomes):
    counts, expected = Counter(drawn), len(drawn) / outcomes
    return sum((counts[key] - expected) ** 2 / expected for key in counts) + (outcomes - len(counts)) * expected


def test_wording_is_a_function_of_seed_step_and_index():
    first = drawn_wordings(step=2, seed=5)
    assert drawn_wordings(step=2, seed=5) == first
    assert drawn_wordings(step=3, seed=5) != first
    assert drawn_wordings(step=2, seed=6) != first
    assert drawn_wordings(number=10, step=2, seed=5) == first[:10]  # whatever was drawn before


def test_wordings_are_drawn_uniformly_and_steps_independently():
    first, second = drawn_wordings(step=0), drawn_wordings(step=1)
    assert chi_square(first, 3) < 13.8  # exceeded by chance once in 1,000
    assert chi_square(list(zip(first, second, strict=True)), 9) < 26.1
    assert chi_square(list(zip(first, first[1:], strict=False)), 9) < 26.1
