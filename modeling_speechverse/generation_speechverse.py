"""Generation: its configuration, and answers that are held to a form."""

import copy

import torch
from transformers import GenerationConfig, LogitsProcessor

from .hint_biasing import HintLogitsProcessor


DEFAULT_MAX_NEW_TOKENS = 256  # transformers' own default would end an answer after 20 tokens, without a word
# What forbids or enforces tokens, or ends an answer, as well: together with a constraint it could leave no whole answer.
CONFLICTING_OPTIONS = (
    "bad_words_ids",
    "begin_suppress_tokens",
    "forced_bos_token_id",
    "forced_eos_token_id",
    "max_length",
    "max_time",
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
        hints ([`HintLogitsProcessor`], *optional*): biases free text, and nothing else: not the choice of a label.
    """

    def __init__(
        self, constraints: list, prompt_length: int, max_new_tokens: int, hints: HintLogitsProcessor | None = None
    ):
        self.constraints = constraints
        self.prompt_length = prompt_length
        self.max_new_tokens = max_new_tokens
        self.hints = hints
        self._chosen: dict[tuple, torch.Tensor] = {}

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        """Forbids by a score of minus infinity; `input_ids` `(rows, length)`, `scores` `(rows, vocabulary)`."""
        held = torch.full_like(scores, float("-inf"))
        biased = scores if self.hints is None else self.hints(input_ids, scores)
        rows_each = len(input_ids) // len(self.constraints)
        remaining = self.max_new_tokens - (input_ids.shape[1] - self.prompt_length)
        for row, tokens in enumerate(input_ids[:, self.prompt_length :].tolist()):
            constraint = self.constraints[row // rows_each]
            state = constraint.state_after(tokens)
            if state < 0 or not constraint.edges[state] and constraint.otherwise[state] < 0:
                held[row, constraint.end_token] = 0.0  # complete, or a beam that has no chance
                continue
            of_row = scores[row] if constraint.otherwise[state] < 0 else biased[row]
            remaining_here = min(remaining, constraint.furthest + 1)  # more makes no difference
            if constraint.may_go_on(state, remaining):
                held[row] = of_row
                held[row, constraint.vocab_size :] = float("-inf")
                held[row, self._tokens(constraint, state, remaining_here, scores, allowed=False)] = float("-inf")
            else:
                allowed = self._tokens(constraint, state, remaining_here, scores, allowed=True)
                held[row, allowed] = of_row[allowed]
        return held

    def _tokens(self, constraint, state: int, remaining: int, scores, allowed: bool) -> torch.Tensor:
        """The tokens of a state's edges that are allowed, or those that are not, and that the LLM has scores for."""
        width = scores.shape[-1]  # which may be less than the tokenizer's tokens: one was added to it for recordings
        key = (id(constraint), state, remaining, width, allowed)
        if key not in self._chosen:
            chosen = [
                token
                for token, target in constraint.edges[state].items()
                if token < width and (target >= 0 and constraint.tokens_to_end[target] < remaining) == allowed
            ]
            self._chosen[key] = torch.tensor(chosen, dtype=torch.long, device=scores.device)
        return self._chosen[key]


def merge_generation_config(model_config: GenerationConfig, options: dict) -> tuple[GenerationConfig, dict]:
    """One configuration of the model's own, the one that a call was given, and the call's options, the later before the earlier.

    Returns:
        The configuration, in which the length of an answer is bounded, and the options that are no part of it.
    """
    config, own = copy.deepcopy(model_config), options.get("generation_config")
    given = {} if own is None else {name: value for name, value in vars(own).items() if value is not None}
    given |= {name: value for name, value in options.items() if name != "generation_config"}
    rest = config.update(**{name: value for name, value in given.items() if not name.startswith("_")})
    if given.get("max_new_tokens") is None and given.get("max_length") is not None:
        config.max_new_tokens = None  # the model's own must not go before the call's
    elif config.max_new_tokens is not None:
        config.max_length = None
    elif config.max_length in (None, 20):
        config.max_length, config.max_new_tokens = None, DEFAULT_MAX_NEW_TOKENS
    return config, rest


def constrain_generation_config(
    config: GenerationConfig, constraint, batch_size: int, model_config: GenerationConfig, options: dict
) -> list:
    """Makes a merged configuration one that is held to constraints.

    Args:
        config ([`~transformers.GenerationConfig`]): what [`merge_generation_config`] made; it is changed.
        constraint: one for all rows, or a list of them.
        batch_size (`int`): number of rows.
        model_config ([`~transformers.GenerationConfig`]): the model's own; what conflicts in it is passed over.
        options (`dict`): what the call was given; what conflicts in it is refused.

    Returns:
        `list`: the constraint of each row.

    Raises:
        ValueError: if the options conflict with a constraint, or leave it too few tokens or answers.
    """
    constraints = list(constraint) if isinstance(constraint, (list, tuple)) else [constraint] * batch_size
    if len(constraints) != batch_size:
        raise ValueError(
            f"There are {len(constraints)} constraints for {batch_size} inputs; give one, or one for each."
        )
    own = options.get("generation_config")

    def given(name: str):
        value = options.get(name)
        if value is None and own is not None and getattr(own, name, None) != getattr(model_config, name, None):
            value = getattr(own, name, None)
        return value

    conflicting = [name for name in (*CONFLICTING_OPTIONS, "stopping_criteria") if given(name)]
    if conflicting:
        raise ValueError(f"A constraint decides by itself what may be written: leave out {', '.join(conflicting)}.")
    for name in CONFLICTING_OPTIONS:
        setattr(config, name, None)

    finite = all(constraint.longest is not None for constraint in constraints)
    needed = max(constraint.longest or constraint.tokens_to_end[0] for constraint in constraints)
    limit = given("max_new_tokens")
    if limit is None:
        limit = needed if finite else max(config.max_new_tokens or DEFAULT_MAX_NEW_TOKENS, needed)
    if limit < needed:
        raise ValueError(f"max_new_tokens={limit} is too few: answers of the constraint take {needed} tokens.")
    config.max_new_tokens = limit

    fewest = min((c.num_answers for c in constraints if c.num_answers is not None), default=None)
    asked, beams = config.num_return_sequences or 1, config.num_beams or 1
    if fewest is not None and asked > fewest and (beams > 1 or not config.do_sample):
        raise ValueError(f"num_return_sequences={asked} asks for more answers than the constraint has, {fewest}.")
    if finite and beams > 1 and config.length_penalty is None:
        config.length_penalty = 0.0  # by transformers' default of 1, beams would prefer long labels to likely ones
    return constraints
