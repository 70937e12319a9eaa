"""Log-probabilities of many given answers at once: what they begin with alike is run through the decoder once."""

import copy
from typing import NamedTuple

import torch
from transformers import Cache, EncoderDecoderCache, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput


class _Answer(NamedTuple):
    row: int  # of the batch
    tokens: tuple[int, ...]
    column: int  # among the row's answers


def score_sequences(
    language_model: PreTrainedModel,
    inputs_embeds: torch.FloatTensor,
    attention_mask: torch.LongTensor,
    sequences: list[list[list[int]]],
    max_rows: int,
) -> torch.FloatTensor:
    """Log-probabilities of token sequences as answers to an input.

    The answers are a tree of tokens. It is gone down level by level with one decoder step for all branches of a level;
    what is left of an answer that shares no more is scored in one pass.

    Args:
        language_model ([`~transformers.PreTrainedModel`]): an encoder-decoder or a decoder-only LLM.
        inputs_embeds (`torch.FloatTensor` of shape `(batch, length, hidden_size)`): the input, padded on the left for a
            decoder-only LLM.
        attention_mask (`torch.LongTensor` of shape `(batch, length)`): 1 on its real positions.
        sequences (`list[list[list[int]]]`): for each row its answers.
        max_rows (`int`): answers that are scored at once.

    Returns:
        `torch.FloatTensor` of shape `(batch, answers)`, fp32 or higher: sums over the answers' tokens, nats; minus infinity
        where a row has fewer answers than another.
    """
    answers = sorted(
        _Answer(row, tuple(tokens), column)
        for row, choices in enumerate(sequences)
        for column, tokens in enumerate(choices)
    )
    decoder = _Decoder(language_model, inputs_embeds, attention_mask)
    log_probabilities, cache = decoder.read_input()
    scores = log_probabilities.new_full((len(sequences), max(map(len, sequences))), float("-inf"))
    for start in range(0, len(answers), max_rows):
        chunk = answers[start : start + max_rows]
        rows, columns = [answer.row for answer in chunk], [answer.column for answer in chunk]
        scores[rows, columns] = _score(decoder, chunk, log_probabilities, cache)
    return scores


def _score(decoder: "_Decoder", answers: list[_Answer], log_probabilities: torch.Tensor, cache: Cache) -> torch.Tensor:
    """Scores of some answers, `(answers,)`.

    Args:
        decoder (`_Decoder`): the LLM's.
        answers (`list[_Answer]`): the answers.
        log_probabilities (`torch.FloatTensor` of shape `(batch, vocabulary)`): of every answer's first token.
        cache ([`~transformers.Cache`]): of the batch's inputs.
    """
    totals = log_probabilities.new_zeros(len(answers))
    # Which row of `log_probabilities` and `cache` an answer goes on from, for those that are not scored to their end.
    branch_of = {index: answer.row for index, answer in enumerate(answers)}
    depth = 0
    while branch_of:
        tokens = [answers[index].tokens[depth] for index in branch_of]
        totals[list(branch_of)] += log_probabilities[list(branch_of.values()), tokens]
        depth += 1
        members: dict[tuple, list[int]] = {}  # the answers of every branch that goes on
        for index in branch_of:
            row, tokens, _ = answers[index]
            if len(tokens) > depth:
                members.setdefault((row, tokens[:depth]), []).append(index)
        alone = [indices[0] for indices in members.values() if len(indices) == 1]
        if alone:
            parents = _selected(cache, [branch_of[index] for index in alone])
            totals[alone] += decoder.score_rests([answers[index] for index in alone], depth, parents)
        shared = [indices for indices in members.values() if len(indices) > 1]
        if shared:
            cache = _selected(cache, [branch_of[indices[0]] for indices in shared])
            firsts = [answers[indices[0]] for indices in shared]
            last_tokens = [answer.tokens[depth - 1 : depth] for answer in firsts]
            logits = decoder.step(last_tokens, [answer.row for answer in firsts], depth, cache)
            log_probabilities = _log_softmax(logits[:, -1])
        branch_of = {index: branch for branch, indices in enumerate(shared) for index in indices}
    return totals


def _selected(cache: Cache, rows: list[int]) -> Cache:
    """A cache of some rows of another, which stays as it is."""
    if isinstance(cache, EncoderDecoderCache):
        return EncoderDecoderCache(
            _selected(cache.self_attention_cache, rows), _selected(cache.cross_attention_cache, rows)
        )
    if not hasattr(cache, "layers"):
        raise ValueError(
            "This LLM gave no cache to go on from, so that its labels cannot be scored: put the model into eval mode, and "
            "switch gradient checkpointing off; or hold the answer to its labels."
        )
    selected = copy.copy(cache)
    selected.layers = [copy.copy(layer) for layer in cache.layers]
    for layer in selected.layers:
        for name, value in vars(layer).items():
            if isinstance(value, (dict, list)):  # in which some kinds keep their tensors
                setattr(layer, name, copy.copy(value))
        layer.reorder_cache(torch.tensor(rows))  # makes tensors anew; other than its name says, it takes any rows
    return selected


class _Decoder:
    """An LLM's decoder behind its input, of either kind."""

    def __init__(self, language_model, inputs_embeds, attention_mask):
        self.language_model = language_model
        self.inputs_embeds = inputs_embeds
        self.attention_mask = attention_mask
        self.encoder_hidden_states = None

    def read_input(self) -> tuple[torch.Tensor, Cache]:
        """Log-probabilities of an answer's first token, `(batch, vocabulary)`, and the cache to go on from."""
        if self.language_model.config.is_encoder_decoder:
            encoder = self.language_model.get_encoder()
            encoded = encoder(inputs_embeds=self.inputs_embeds, attention_mask=self.attention_mask)
            self.encoder_hidden_states = encoded.last_hidden_state
            start = self.language_model.config.decoder_start_token_id
            output = self._decode(
                [[start]] * len(self.inputs_embeds), list(range(len(self.inputs_embeds))), past_key_values=None
            )
        else:
            last_alone = {"logits_to_keep": 1} if self.language_model._supports_logits_to_keep() else {}
            output = self.language_model(
                inputs_embeds=self.inputs_embeds,
                attention_mask=self.attention_mask,
                position_ids=(self.attention_mask.cumsum(-1) - 1).clamp(min=0),
                use_cache=True,
                **last_alone,
            )
        return _log_softmax(output.logits[:, -1]), output.get("past_key_values")

    def step(self, tokens: list[tuple[int, ...]], rows: list[int], depth: int, cache: Cache) -> torch.Tensor:
        """Logits of what follows each of some tokens, `(branches, tokens, vocabulary)`; grows the cache.

        Args:
            tokens (`list[tuple[int, ...]]`): equally many for each branch.
            rows (`list[int]`): of the batch, one for each branch.
            depth (`int`): how many of the answer's tokens there are up to the first of these.
            cache ([`~transformers.Cache`]): of the branches, up to these tokens.
        """
        if self.language_model.config.is_encoder_decoder:
            return self._decode(tokens, rows, past_key_values=cache).logits
        mask = self.attention_mask[rows]
        answer = mask.new_ones(len(rows), depth - 1 + len(tokens[0]))
        output = self.language_model(
            input_ids=torch.tensor(tokens, device=mask.device),
            attention_mask=torch.cat([mask, answer], dim=-1),
            position_ids=mask.sum(-1, keepdim=True) + torch.arange(depth - 1, answer.shape[1], device=mask.device),
            past_key_values=cache,
            use_cache=True,
        )
        return output.logits

    def score_rests(self, answers: list[_Answer], depth: int, cache: Cache) -> torch.Tensor:
        """What the tokens from `depth` on add to the score of each answer, `(answers,)`, in one pass."""
        rests = [answer.tokens[depth:] for answer in answers]
        longest = max(map(len, rests))
        read = [answer.tokens[depth - 1 : -1] for answer in answers]  # each is read to tell the next
        padded = [tokens + (0,) * (longest - len(tokens)) for tokens in read]  # behind the end, where nothing looks
        logits = _in_full(self.step(padded, [answer.row for answer in answers], depth, cache))
        targets = torch.tensor([rest + (0,) * (longest - len(rest)) for rest in rests], device=logits.device)
        real = torch.tensor([[True] * len(rest) + [False] * (longest - len(rest)) for rest in rests])
        # Not by a softmax, which would be a second tensor over the whole vocabulary.
        scores = logits.gather(-1, targets[..., None])[..., 0] - logits.logsumexp(-1)
        return scores.masked_fill(~real.to(scores.device), 0.0).sum(-1)

    def _decode(self, tokens, rows: list[int], past_key_values: Cache | None):
        device = self.encoder_hidden_states.device
        return self.language_model(
            encoder_outputs=BaseModelOutput(last_hidden_state=self.encoder_hidden_states[rows]),
            attention_mask=self.attention_mask[rows],
            decoder_input_ids=torch.tensor(tokens, device=device),
            past_key_values=past_key_values,
            use_cache=True,
        )


def _in_full(logits: torch.Tensor) -> torch.Tensor:
    """In fp32 at least."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def _log_softmax(logits: torch.Tensor) -> torch.Tensor:
    return _in_full(logits).log_softmax(-1)
