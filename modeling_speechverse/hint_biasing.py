"""Contextual biasing: hint words gain a bonus while an answer is decoded, and exactly that bonus."""

import math
import numbers
import operator
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
from transformers import LogitsProcessor


DEFAULT_HINT_BONUS = 1.0  # nats a token


class HintPrefix:
    """A token sequence that one or more hints begin with: a node of their trie, which grows only where it is walked.

    Args:
        depth (`int`): length of the prefix, in tokens; 0 at the root.
        hints (`Iterable[tuple[int, ...]]`): the different hints that begin with the prefix.
    """

    __slots__ = ("depth", "is_hint", "suffixes", "_longer", "_children", "_continuations")

    def __init__(self, depth: int, hints: Iterable[tuple[int, ...]]):
        hints = list(hints)
        self.depth = depth
        self._longer = [hint for hint in hints if len(hint) > depth]
        self.is_hint = len(self._longer) < len(hints)
        # The prefixes that a text ends with when this is the longest of them, from this one to the root: the failure
        # links of Aho and Corasick, followed to their end. `follow` fills them in on the first visit.
        self.suffixes: tuple[HintPrefix, ...] | None = None if depth else (self,)
        self._children: dict[int, HintPrefix] | None = None
        self._continuations: tuple[torch.Tensor, torch.Tensor, torch.Tensor] | None = None

    @property
    def children(self) -> dict[int, "HintPrefix"]:
        """The prefixes that are longer by one token, by that token."""
        if self._children is None:
            by_token = {}
            for hint in self._longer:
                by_token.setdefault(hint[self.depth], []).append(hint)
            self._children = {token: HintPrefix(self.depth + 1, hints) for token, hints in by_token.items()}
        return self._children

    @property
    def completed(self) -> int:
        """Tokens of the longest hint that a text at this prefix ends with; 0 if there is none."""
        return next((prefix.depth for prefix in self.suffixes if prefix.is_hint), 0)

    def follow(self, token: int) -> "HintPrefix":
        """The longest prefix that a text ends with, after `token` at this prefix."""
        longer = [prefix.children[token] for prefix in self.suffixes if token in prefix.children]
        root = self.suffixes[-1]
        if not longer:
            return root
        if longer[0].suffixes is None:
            longer[0].suffixes = (*longer, root)
        return longer[0]

    def continuations(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The tokens that carry on more than the root, where they lead, and what they complete.

        Returns:
            `tuple` of three `torch.LongTensor` of shape `(num_tokens,)`: the token ids, the depth of the prefix that
            each leads to, and the length of the longest hint that it completes (0 for none).
        """
        if self._continuations is None:
            *suffixes, root = self.suffixes
            lone_hint = {token: int(child.is_hint) for token, child in root.children.items()} if suffixes else {}
            depths, completed = {}, {}
            for prefix in reversed(suffixes):  # the longest comes last, so that it wins
                for token, child in prefix.children.items():
                    depths[token] = child.depth
                    if child.is_hint:
                        completed[token] = child.depth
                    else:
                        completed.setdefault(token, lone_hint.get(token, 0))
            columns = (list(depths), list(depths.values()), [completed[token] for token in depths])
            self._continuations = tuple(torch.tensor(column, dtype=torch.long) for column in columns)
        return self._continuations


class HintState(NamedTuple):
    """What the future of a hypothesis needs to know about its past.

    Args:
        prefix ([`HintPrefix`]): the longest prefix of a hint that the hypothesis ends with; `None` after its EOS.
        covered (`int`): which tokens of the prefix lie in a completed occurrence; bit 0 is the last token.
    """

    prefix: HintPrefix | None
    covered: int = 0

    def follow(self, token: int) -> "HintState":
        """The state after one more token."""
        prefix = self.prefix.follow(token)
        covered = self.covered << 1 | _ones(prefix.completed)
        return HintState(prefix, covered & _ones(prefix.depth))

    def gains(self) -> list[int]:
        """How many tokens' bonus the next token brings, by the depth of the prefix that it leads to.

        What falls out of the prefix without being covered is lost, for no later occurrence can reach it; all else keeps
        its bonus: what is covered for good, the rest of the prefix as long as a hint may yet cover it.
        """
        covered, length = self.covered << 1, self.prefix.depth + 1
        return [1 - (length - depth) + (covered >> depth).bit_count() for depth in range(length + 1)]

    def last_gains(self) -> list[int]:
        """The same for a token that ends the hypothesis, by the length of the longest hint that it completes."""
        covered, length = self.covered << 1, self.prefix.depth + 1
        given_early = self.prefix.depth - self.covered.bit_count()
        return [size - (covered & _ones(size)).bit_count() - given_early for size in range(length + 1)]


FINISHED = HintState(None)


class HintLogitsProcessor(LogitsProcessor):
    """Gives hypotheses a bonus for the hints in them, in greedy decoding, beam search and sampling.

    A generated token counts if it lies in at least one occurrence of a hint, a run of tokens that equals the hint's; in
    however many occurrences it lies, it counts once. So hints given twice, within one another or overlapping in the
    text never add up, and no token brings more than `bonus`. Over a whole hypothesis this processor adds
    `bonus * (number of tokens that count)` to its score, to rounding and nothing else:

    - while a hint is being spelled, its tokens have their bonus already; a token loses it when no occurrence can cover
      it any more. More precisely, let the hypothesis end with w, the longest run of tokens that some hint begins with:
      the sum so far is `bonus` times the tokens that count or lie in w.
    - the end takes back what is only begun: EOS does, and so does the token that reaches `max_new_tokens`.
    - after EOS, the scores are left alone.

    Beam search adds the bonus to log-probabilities, so that with `length_penalty=0` a hypothesis's score is its
    log-probability plus its bonus. Sampling takes softmax(logits + what the next token gains) before temperature, top-k
    and top-p. Nothing depends on which row a hypothesis was in before, so that beams may be reordered, and one
    processor may serve many calls.

    A hint is its tokens: another casing or segmentation of the same word is another hint, and "Ann" is found in "Anna"
    where the tokens of the one begin those of the other.

    Args:
        hint_ids (`list[list[int]]` or `list[list[list[int]] | None]`):
            Token ids of the hints, without special tokens: one list of hints for all rows, or one for each row of the
            batch; beams and returned sequences of a row share its hints. Among the latter `None` or an empty list is a
            row without hints.
        bonus (`float`): nats for each token that counts; a negative one makes hints less likely.
        prompt_length (`int`): how many of the ids that `generate` starts from to skip: 1 for an encoder-decoder LLM (the
            decoder's start token), 0 for a decoder-only one that is given `inputs_embeds`.
        eos_token_id (`int` or `list[int]`, *optional*): what ends a hypothesis; no hint may hold it.
        max_new_tokens (`int`, *optional*): `generate`'s own. Without it, a hypothesis that is cut there keeps the bonus
            of the hint it was in.

    Raises:
        TypeError: if a hint is not a list of integers, or the bonus not a number.
        ValueError: if a hint is empty or holds EOS or a negative id, if the bonus is not finite, or a length negative;
            and, when called, if an id is outside the vocabulary or the rows do not fit the lists of hints.
    """

    def __init__(
        self,
        hint_ids: list[list[int]] | list[list[list[int]] | None],
        bonus: float,
        prompt_length: int,
        *,
        eos_token_id: int | list[int] | None = None,
        max_new_tokens: int | None = None,
    ):
        if isinstance(bonus, bool) or not isinstance(bonus, numbers.Real):
            raise TypeError(f"The bonus of hints must be a number of nats, not {bonus!r}.")
        if not math.isfinite(bonus):
            raise ValueError(f"The bonus of hints must be finite, not {bonus}.")
        if prompt_length < 0:
            raise ValueError(f"prompt_length must be 0 or more, not {prompt_length}.")
        if max_new_tokens is not None and max_new_tokens < 1:
            raise ValueError(f"max_new_tokens must be 1 or more, not {max_new_tokens}.")
        if eos_token_id is None:
            eos_token_id = []
        self.bonus = float(bonus)
        self.prompt_length = prompt_length
        self.max_new_tokens = max_new_tokens
        self.eos_token_ids = frozenset([eos_token_id] if isinstance(eos_token_id, int) else eos_token_id)
        self._roots, self._largest_id = self._plant(_hints_of_rows(hint_ids))
        self._states: dict[tuple[int, tuple[int, ...]], HintState] = {}  # of the hypotheses of the last call
        self._first_tokens: dict[tuple, torch.Tensor] = {}

    def _plant(self, hints_of_rows: list[frozenset[tuple[int, ...]]]) -> tuple[list[HintPrefix], int]:
        """The trie's root for each list of hints, equal lists sharing theirs, and the largest id (-1 without hints)."""
        roots, largest_id = {}, -1
        for hints in hints_of_rows:
            if hints in roots:
                continue
            roots[hints] = HintPrefix(0, hints)
            for hint in hints:
                if not hint:
                    raise ValueError(
                        "A hint has no tokens; leave empty hints out, and give None for a row without any."
                    )
                if min(hint) < 0:
                    raise ValueError(f"Hint {list(hint)} holds a negative token id.")
                if not self.eos_token_ids.isdisjoint(hint):
                    raise ValueError(
                        f"Hint {list(hint)} holds the end-of-sequence token: encode hints with add_special_tokens=False."
                    )
                largest_id = max(largest_id, *hint)
        return [roots[hints] for hints in hints_of_rows], largest_id

    @torch.no_grad()
    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        """Adds to each token's score what the token gains.

        Args:
            input_ids (`torch.LongTensor` of shape `(rows, length)`): the hypotheses so far.
            scores (`torch.FloatTensor` of shape `(rows, vocab_size)`): logits or log-probabilities of the next token.

        Returns:
            `torch.FloatTensor` of shape `(rows, vocab_size)`: the biased scores, a tensor of their own.
        """
        if self._largest_id < 0 or self.bonus == 0:
            return scores
        self._check(input_ids, scores)
        new_tokens = input_ids.shape[1] - self.prompt_length + 1
        is_last = self.max_new_tokens is not None and new_tokens >= self.max_new_tokens
        states = self._states_of(input_ids)

        running = [(row, state) for row, state in enumerate(states) if state is not FINISHED]
        gains = [[0]] * len(states)
        for row, state in running:
            gains[row] = state.last_gains() if is_last else state.gains()
        # Three layers: what every token gains, being at depth 0; one more for what begins a hint anywhere; and the few
        # tokens that carry on longer than that.
        everywhere = self.bonus * torch.tensor([row_gains[0] for row_gains in gains], dtype=scores.dtype)
        biased = scores + everywhere.to(scores.device)[:, None]
        first_tokens = self._first_token_bonus(is_last, scores)
        biased.unflatten(0, (len(self._roots), -1)).add_(first_tokens[:, None])

        rows, tokens, values = [], [], []
        for row, state in running:
            if state.prefix.depth:
                row_tokens, depths, completed = state.prefix.continuations()
                rows.append(torch.full_like(row_tokens, row))
                tokens.append(row_tokens)
                values.append(torch.tensor(gains[row], dtype=scores.dtype)[completed if is_last else depths])
        if rows:
            where = (torch.cat(rows).to(scores.device), torch.cat(tokens).to(scores.device))
            biased[where] = scores[where] + self.bonus * torch.cat(values).to(scores.device)
        if len(running) < len(states):
            finished = [row for row, state in enumerate(states) if state is FINISHED]
            biased[finished] = scores[finished]
        return biased

    def _check(self, input_ids: torch.LongTensor, scores: torch.FloatTensor):
        if self._largest_id >= scores.shape[-1]:
            raise ValueError(
                f"A hint holds token {self._largest_id}, outside the LLM's vocabulary of {scores.shape[-1]} tokens."
            )
        if len(scores) % len(self._roots):
            raise ValueError(
                f"There are hints for {len(self._roots)} rows, which do not fit the {len(scores)} rows being decoded."
            )
        if input_ids.shape[1] < self.prompt_length:
            raise ValueError(
                f"prompt_length is {self.prompt_length}, but the ids being decoded are only {input_ids.shape[1]} long."
            )

    def _states_of(self, input_ids: torch.LongTensor) -> list[HintState]:
        """The state of each row, from that of the same tokens but the last; a row of unknown origin is walked anew."""
        rows_per_root = len(input_ids) // len(self._roots)
        known, self._states = self._states, {}
        states = []
        for row, tokens in enumerate(input_ids[:, self.prompt_length :].tolist()):
            root = row // rows_per_root
            state = known.get((root, tuple(tokens[:-1]))) if tokens else None
            unwalked = tokens[-1:]
            if state is None:
                state, unwalked = HintState(self._roots[root]), tokens
            for token in unwalked:
                if state is FINISHED or token in self.eos_token_ids:
                    state = FINISHED
                    break
                state = state.follow(token)
            self._states[root, tuple(tokens)] = state
            states.append(state)
        return states

    def _first_token_bonus(self, is_last: bool, scores: torch.FloatTensor) -> torch.FloatTensor:
        """`(lists of hints, vocab_size)`: the bonus where a token begins a hint or, as the last one, is a hint."""
        key = (is_last, scores.shape[-1], scores.device, scores.dtype)
        if key not in self._first_tokens:
            bonus = torch.zeros(len(self._roots), scores.shape[-1], dtype=scores.dtype)
            for row, root in enumerate(self._roots):
                tokens = [token for token, child in root.children.items() if child.is_hint or not is_last]
                bonus[row, tokens] = self.bonus
            self._first_tokens[key] = bonus.to(scores.device)
        return self._first_tokens[key]


def _ones(count: int) -> int:
    """An integer whose last `count` bits are set."""
    return (1 << count) - 1


def _hints_of_rows(hint_ids) -> list[frozenset[tuple[int, ...]]]:
    """The different hints of each row, or of all rows in a list of one; see [`HintLogitsProcessor`]."""
    try:
        first = next((entry[0] for entry in hint_ids if entry is not None and len(entry)), None)
        by_row = isinstance(first, Sequence) or any(entry is None for entry in hint_ids)
        rows = [hints or [] for hints in hint_ids] if by_row else [hint_ids]
        return [frozenset(tuple(map(operator.index, hint)) for hint in hints) for hints in rows]
    except TypeError as error:
        raise TypeError(
            "Hints must be a list of lists of token ids, or one such list for each row of the batch: encode each hint "
            "with the tokenizer and add_special_tokens=False."
        ) from error
