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
        return lengths @ np.array([self.audio, self.input, self.label], dtype=np.float64)


def _num_weights(module: nn.Module) -> int:
    """Weights of the matrices that every position is multiplied with: an embedding only looks up."""
    embeddings = {id(m.weight) for m in module.modules() if isinstance(m, nn.Embedding)}
    return sum(p.numel() for p in module.parameters() if p.ndim > 1 and id(p) not in embeddings)


def cut_into_micro_batches(lengths: np.ndarray, number: int, costs: TokenCosts) -> list[list[int]]:
    """Cuts a step's samples into exactly so many micro-batches of like lengths and like cost.

    Each is padded to its longest recording, input and answer, which go together loosely: a short recording may have a long
    instruction. So the samples are cut in two again and again, each time sorted by that one of the three, or by their sum's cost,
    that leaves the dearer part cheapest for the micro-batches it still becomes. Where samples are long there are fewer in a
    micro-batch.

    Args:
        lengths (`np.ndarray` of shape `(num_samples, 3)`): audio tokens, input tokens and label tokens of each.
        number (`int`): micro-batches, at most as many as there are samples.
        costs ([`TokenCosts`]): of a padded position.

    Returns:
        the places of the samples, by micro-batch, the dearest micro-batches first.
    """
    places = _cut(np.arange(len(lengths)), lengths, number, costs)
    places.sort(key=lambda batch: -_padded_cost(lengths[batch], costs))
    return [batch.tolist() for batch in places]


def _cut(places: np.ndarray, lengths: np.ndarray, number: int, costs: TokenCosts) -> list[np.ndarray]:
    if number == 1:
        return [places]
    first = number // 2
    best_cost, best = np.inf, None
    for keys in (costs.of_lengths(lengths[places]), *lengths[places].T):
        order = places[np.lexsort((places, -keys))]
        sizes = np.arange(
            first, len(order) - (number - first) + 1
        )  # of the first part: every micro-batch has a sample
        before, behind = (_costs_up_to(lengths[part], costs) for part in (order, order[::-1]))
        dearer = np.maximum(before[sizes - 1] / first, behind[len(order) - sizes - 1] / (number - first))
        cut = int(np.argmin(dearer))
        if dearer[cut] < best_cost:
            best_cost, best = dearer[cut], (order[: sizes[cut]], order[sizes[cut] :])
    return _cut(best[0], lengths, first, costs) + _cut(best[1], lengths, number - first, costs)


def _costs_up_to(lengths: np.ndarray, costs: TokenCosts) -> np.ndarray:
    """Padded cost of the first sample, of the first two, and so on."""
    return costs.of_lengths(np.maximum.accumulate(lengths)) * np.arange(1, len(lengths) + 1)


def _padded_cost(lengths: np.ndarray, costs: TokenCosts) -> float:
    return len(lengths) * float(costs.of_lengths(lengths.max(0)))


def padding_share(lengths: np.ndarray, micro_batches: list[list[int]], costs: TokenCosts) -> float:
    """The share of the cost of a step that goes into padding, 0 to 1."""
    padded = sum(_padded_cost(lengths[places], costs) for places in micro_batches)
    return 1 - float(costs.of_lengths(lengths).sum()) / padded
