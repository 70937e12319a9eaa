"""Cutting the samples of an optimizer step into micro-batches of like length and like cost."""

from dataclasses import dataclass

import numpy as np
from torch import nn


@dataclass(frozen=True)
class TokenCosts:
    """What a position of a padded batch costs, in FLOPs (relative: a common factor does not matter).

    Args:
        audio (`float`): a projected frame, with the encoder's frames behind it.
        input (`float`): a token of the LLM's input, audio tokens among them.
        label (`float`): a token of the answer.
    """

    audio: float
    input: float
    label: float

    @classmethod
    def of(cls, model, processor, cached: bool = False) -> "TokenCosts":
        """Those of a model in training, 2 FLOPs a weight and position: the frozen encoder forward, the LLM forward and backward
        without gradients of its weights, attention left out.

        Args:
            model ([`SpeechVerseForConditionalGeneration`]): the model.
            processor ([`SpeechVerseProcessor`]): the model's, which knows the convolutions' strides.
            cached (`bool`, *optional*, defaults to `False`): the encoder's output is there already.
        """
        llm = model.language_model
        projected = np.prod([stride for _, stride, _ in processor.projector_convolutions])
        passes = 1 if model.config.freeze_audio_tower else 3
        encoder = 0.0 if cached else passes * projected * _num_weights(model.audio_tower)
        projector = 3 * _num_weights(model.multi_modal_projector)
        if model.config.text_config.is_encoder_decoder:
            head = _num_weights(llm.get_output_embeddings())
            return cls(
                encoder + projector, 2 * _num_weights(llm.get_encoder()), 2 * (_num_weights(llm.get_decoder()) + head)
            )
        return cls(encoder + projector, 2 * _num_weights(llm), 0.0)  # answers are among the inputs

    def of_lengths(self, lengths: np.ndarray) -> np.ndarray:
        """Cost of samples by their lengths `(..., 3)`: audio, input and label tokens."""
        return lengths @ np.array([self.audio, self.input, self.label])


def _num_weights(module: nn.Module) -> int:
    """Weights of the matrices that every position is multiplied with: an embedding only looks up."""
    embeddings = {id(m.weight) for m in module.modules() if isinstance(m, nn.Embedding)}
    return sum(p.numel() for p in module.parameters() if p.ndim > 1 and id(p) not in embeddings)


def cut_into_micro_batches(lengths: np.ndarray, number: int, costs: TokenCosts) -> list[list[int]]:
    """Cuts a step's samples into exactly so many micro-batches, sorted by cost, so that the dearest is as cheap as possible.

    Each is padded to its longest recording, input and answer. Where recordings are long it therefore has fewer samples.

    Args:
        lengths (`np.ndarray` of shape `(num_samples, 3)`): audio tokens, input tokens and label tokens of each.
        number (`int`): micro-batches, at most as many as there are samples.
        costs ([`TokenCosts`]): of a padded position.

    Returns:
        the places of the samples, by micro-batch, the dearest samples first.
    """
    order = np.argsort(-costs.of_lengths(lengths), kind="stable")
    lengths = lengths[order]
    low, high = float(costs.of_lengths(lengths).max()), float(len(lengths) * (costs.of_lengths(lengths.max(0))))
    while high - low > 1e-3 * high:  # the least bound on a micro-batch's cost that the number suffices for
        middle = (low + high) / 2
        low, high = (low, middle) if len(_cut_below(lengths, middle, costs)) <= number else (middle, high)
    sizes = _cut_below(lengths, high, costs)
    while len(sizes) < number:  # halving never makes one dearer
        largest = int(np.argmax(sizes))
        sizes[largest : largest + 1] = [sizes[largest] - sizes[largest] // 2, sizes[largest] // 2]
    ends = np.cumsum(sizes)
    return [order[end - size : end].tolist() for size, end in zip(sizes, ends, strict=True)]


def _cut_below(lengths: np.ndarray, bound: float, costs: TokenCosts) -> list[int]:
    """Sizes of micro-batches, each as large as the bound on its cost allows."""
    sizes, start = [], 0
    while start < len(lengths):
        padded = np.maximum.accumulate(lengths[start:], axis=0)
        affordable = costs.of_lengths(padded) * np.arange(1, len(padded) + 1) <= bound
        sizes.append(max(1, int(affordable.sum())))
        start += sizes[-1]
    return sizes


def padding_share(lengths: np.ndarray, micro_batches: list[list[int]], costs: TokenCosts) -> float:
    """The share of the cost of a step that goes into padding, 0 to 1."""
    padded = sum(len(places) * float(costs.of_lengths(lengths[places].max(0))) for places in micro_batches)
    return 1 - float(costs.of_lengths(lengths).sum()) / padded
