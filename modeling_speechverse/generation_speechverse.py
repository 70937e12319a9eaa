"""Generation that is held to a form: only the answers that a constraint knows can be written."""

import copy

import torch
from transformers import GenerationConfig, LogitsProcessor


DEFAULT_MAX_NEW_TOKENS = 256  # transformers' own default would end an answer after 20 tokens, without a word
# Options of `generate` that forbid or enforce tokens as well: together with a constraint they could leave none.
CONFLICTING_OPTIONS = (
    "bad_words_ids",
    "begin_suppress_tokens",
    "forced_bos_token_id",
    "forced_eos_token_id",
    "max_length",
    "min_length",
    "min_new_tokens",
    "no_repeat_ngram_size",
    "sequence_bias",
    "stop_strings",
    "suppress_tokens",
)


class ConstraintLogitsProcessor(LogitsProcessor):
    """Leaves a token its score where a constraint's automaton has an edge for it, and forbids it elsewhere.

    It also forbids what could no longer be completed within `max_new_tokens`, so that every answer is a whole one. It
    keeps no state between steps, and so it does not matter how beams are reordered.

    Args:
        constraints (`list`): one for each row of the batch; rows of the scores that are its beams or samples stand together.
            A constraint is an automaton over token ids, see [`~SpeechVerseForConditionalGeneration.generate`].
        prompt_length (`int`): tokens that a row begins with before its answer does.
        max_new_tokens (`int`): tokens that an answer may take.
        eos_token_id (`int`): what is left to rows that are complete.
    """

    def __init__(self, constraints: list, prompt_length: int, max_new_tokens: int, eos_token_id: int):
        self.constraints = constraints
        self.prompt_length = prompt_length
        self.max_new_tokens = max_new_tokens
        self.eos_token_id = eos_token_id
        self._chosen: dict[tuple, torch.Tensor] = {}

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        """Forbids by a score of minus infinity; `input_ids` `(rows, length)`, `scores` `(rows, vocabulary)`."""
        held = torch.full_like(scores, float("-inf"))
        rows_each = len(input_ids) // len(self.constraints)
        remaining = self.max_new_tokens - (input_ids.shape[1] - self.prompt_length)
        for row, tokens in enumerate(input_ids[:, self.prompt_length :].tolist()):
            constraint = self.constraints[row // rows_each]
            state = constraint.state_after(tokens)
            if state < 0 or not constraint.edges[state] and constraint.otherwise[state] < 0:
                held[row, self.eos_token_id] = 0.0  # complete, or a beam that has no chance
                continue
            remaining_here = min(remaining, constraint.furthest + 1)  # more makes no difference
            if constraint.otherwise[state] >= 0 and constraint.tokens_to_end[constraint.otherwise[state]] < remaining:
                held[row] = scores[row]
                held[row, constraint.vocab_size :] = float("-inf")
                held[row, self._tokens(constraint, state, remaining_here, allowed=False)] = float("-inf")
            else:
                allowed = self._tokens(constraint, state, remaining_here, allowed=True)
                held[row, allowed] = scores[row, allowed]
        return held

    def _tokens(self, constraint, state: int, remaining: int, allowed: bool) -> torch.Tensor:
        """The tokens of a state's edges that are allowed, or those that are not."""
        key = (id(constraint), state, remaining, allowed)
        if key not in self._chosen:
            self._chosen[key] = torch.tensor(
                [
                    token
                    for token, target in constraint.edges[state].items()
                    if (target >= 0 and constraint.tokens_to_end[target] < remaining) == allowed
                ],
                dtype=torch.long,
            )
        return self._chosen[key]


def constrained_generation(
    constraint, batch_size: int, is_encoder_decoder: bool, generation_config: GenerationConfig, options: dict
) -> tuple[GenerationConfig, dict, ConstraintLogitsProcessor]:
    """The configuration, the other options and the processor of a `generate` that is held to constraints.

    Args:
        constraint: one for all rows, or a list of them.
        batch_size (`int`): number of rows.
        is_encoder_decoder (`bool`): whether the LLM is one; its answers begin with the decoder's start token.
        generation_config ([`~transformers.GenerationConfig`]): the model's own; what conflicts in it is passed over.
        options (`dict`): what the call was given.

    Raises:
        ValueError: if the options conflict with a constraint, or leave it too few tokens or answers.
    """
    constraints = list(constraint) if isinstance(constraint, (list, tuple)) else [constraint] * batch_size
    if len(constraints) != batch_size:
        raise ValueError(
            f"There are {len(constraints)} constraints for {batch_size} inputs; give one, or one for each."
        )
    if given := [name for name in CONFLICTING_OPTIONS if options.get(name) is not None]:
        raise ValueError(f"A constraint decides by itself what may be written: leave out {', '.join(given)}.")
    config, own = copy.deepcopy(generation_config), options.get("generation_config")
    if own is not None:
        config.update(**{name: value for name, value in vars(own).items() if value is not None})
    limit = options.get("max_new_tokens", own and own.max_new_tokens)
    options = config.update(**{name: value for name, value in options.items() if name != "generation_config"})
    for name in CONFLICTING_OPTIONS:
        setattr(config, name, None)

    finite = all(constraint.longest is not None for constraint in constraints)
    needed = max(constraint.longest or constraint.tokens_to_end[0] for constraint in constraints)
    if limit is None:
        limit = needed if finite else max(config.max_new_tokens or DEFAULT_MAX_NEW_TOKENS, needed)
    if limit < needed:
        raise ValueError(f"max_new_tokens={limit} is too few: answers of the constraint take {needed} tokens.")
    config.max_new_tokens = limit

    fewest = min((c.num_answers for c in constraints if c.num_answers is not None), default=None)
    asked = config.num_return_sequences or 1
    if fewest is not None and asked > fewest and not config.do_sample:
        raise ValueError(f"num_return_sequences={asked} asks for more answers than the constraint has, {fewest}.")
    if finite and (config.num_beams or 1) > 1 and config.length_penalty is None:
        config.length_penalty = 0.0  # by transformers' default of 1, beams would prefer long labels to likely ones

    end = config.eos_token_id[0] if isinstance(config.eos_token_id, list) else config.eos_token_id
    return config, options, ConstraintLogitsProcessor(constraints, int(is_encoder_decoder), limit, end)
