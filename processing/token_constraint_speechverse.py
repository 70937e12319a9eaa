"""An automaton over token ids: the answers that may be given, and what was chosen on the way through it."""

import functools
from collections import deque
from collections.abc import Iterable
from typing import NamedTuple


START = 0  # state in which an answer begins
END = 1  # state in which it is complete
NOWHERE = -1  # where a forbidden token leads


class Piece(NamedTuple):
    """A part of an answer that was held to a form.

    Args:
        task_id (`str`): the task that it answers.
        label (`str`, *optional*): the label that was chosen; `None` for free text, and where the answer is that there is nothing.
        tokens (`list[int]`, *optional*): free text, with the sign that ends it; `None` where there was a choice.
        sign (`str`, *optional*): that sign; `None` where the text ends with the answer.
    """

    task_id: str
    label: str | None = None
    tokens: list[int] | None = None
    sign: str | None = None


class TokenConstraint:
    """A deterministic automaton over token ids; a path from `START` to `END` is an answer that may be given.

    It is data for the model, which knows nothing of tasks: [`~SpeechVerseForConditionalGeneration.generate`] takes it as
    `constraint=`. Made by [`~SpeechVerseProcessor.constraint`].

    Args:
        vocab_size (`int`): number of tokens; higher ids, which an LLM may have, stand for nothing and are forbidden.
        end_token (`int`): id of the token that ends every answer.

    Attributes:
        edges (`list[dict[int, int]]`): for each state, which state a token leads to; `NOWHERE` forbids the token.
        otherwise (`list[int]`): for each state, where all other tokens lead: on where text is free, else `NOWHERE`.
    """

    def __init__(self, vocab_size: int, end_token: int):
        self.vocab_size = vocab_size
        self.end_token = end_token
        self.edges: list[dict[int, int]] = [{}, {}]
        self.otherwise = [NOWHERE, NOWHERE]
        self._choices: dict[tuple[int, int], tuple[str, str | None]] = {}
        self._free: dict[int, str] = {}  # the task whose text goes on in a state
        self._signs: dict[tuple[int, int], str] = {}  # (state, token) -> the sign that ends the text there

    def next_state(self, state: int, token: int) -> int:
        """Where a token leads; `NOWHERE` if it is forbidden."""
        return self.edges[state].get(token, self.otherwise[state] if token < self.vocab_size else NOWHERE)

    def state_after(self, tokens: Iterable[int]) -> int:
        """The state after some tokens; `NOWHERE` if they are not the beginning of an answer."""
        state = START
        for token in tokens:
            if state in (NOWHERE, END):
                return NOWHERE
            state = self.next_state(state, token)
        return state

    @functools.cached_property
    def tokens_to_end(self) -> list[float]:
        """For each state, the fewest tokens with which the answer can still be completed."""
        before = [[] for _ in self.edges]
        for state, edges in enumerate(self.edges):
            for target in (*edges.values(), self.otherwise[state]):
                if target != NOWHERE:
                    before[target].append(state)
        distances = [float("inf")] * len(self.edges)
        distances[END] = 0
        waiting = deque([END])
        while waiting:
            state = waiting.popleft()
            for earlier in before[state]:
                if distances[earlier] == float("inf"):
                    distances[earlier] = distances[state] + 1
                    waiting.append(earlier)
        return distances

    @functools.cached_property
    def furthest(self) -> int:
        """The most tokens that any state is from its nearest end."""
        return max(distance for distance in self.tokens_to_end if distance != float("inf"))

    def may_go_on(self, state: int, remaining: int) -> bool:
        """Whether text that is free in a state may go on, with `remaining` tokens left for all that has to follow."""
        following = self.otherwise[state]
        return following != NOWHERE and self.tokens_to_end[following] < remaining

    def cuts(self, tokens: list[int], max_new_tokens: int) -> bool:
        """Whether free text in an answer had to end where it does, for it would not have been done in `max_new_tokens`."""
        state = START
        for position, token in enumerate(tokens):
            if self.otherwise[state] != NOWHERE and not self.may_go_on(state, max_new_tokens - position):
                return True
            state = self.next_state(state, token)
            if state in (NOWHERE, END):
                break
        return False

    @functools.cached_property
    def _counts(self) -> tuple[int, int] | None:
        """How many answers there are and how many tokens the longest has; `None` where text is free."""
        if any(target != NOWHERE for target in self.otherwise):
            return None
        counted, waiting = {END: (1, 0)}, [START]
        while waiting:  # a state is counted when all that it leads to are
            state = waiting[-1]
            if unknown := [target for target in self.edges[state].values() if target not in counted]:
                waiting.extend(unknown)
                continue
            following = [counted[target] for target in self.edges[state].values()]
            counted[state] = (sum(n for n, _ in following), 1 + max(length for _, length in following))
            waiting.pop()
        return counted[START]

    @property
    def num_answers(self) -> int | None:
        """How many answers there are; `None` where text is free."""
        return self._counts and self._counts[0]

    @property
    def longest(self) -> int | None:
        """Tokens of the longest answer, its end included; `None` where text is free."""
        return self._counts and self._counts[1]

    def trace(self, tokens: Iterable[int]) -> list["Piece"]:
        """What was chosen or freely written on a path, in order. A path that ends early gives what was complete."""
        state, pieces, text = START, [], None
        for token in tokens:
            following = self.next_state(state, token)
            sign = self._signs.get((state, token))
            if following in self._free or sign is not None:
                text = [] if text is None else text
                text.append(token)
            if text is not None and following not in self._free:
                pieces.append(Piece(self._free[state], tokens=text, sign=sign))
                text = None
            if (state, token) in self._choices:
                pieces.append(Piece(*self._choices[state, token]))
            state = following
            if state in (NOWHERE, END):
                break
        return pieces

    def new_state(self) -> int:
        self.edges.append({})
        self.otherwise.append(NOWHERE)
        return len(self.edges) - 1

    def add_path(self, state: int, tokens: list[int], target: int, choice: tuple[str, str | None] | None = None):
        """Adds a path of tokens from one state to another, sharing its beginning with the paths that are there.

        Raises:
            ValueError: if it is another path's whole, or beginning, or goes on where another ends.
        """
        *beginning, last = tokens
        for token in beginning:
            if (state, token) in self._choices:
                raise ValueError(f"{choice and choice[1]!r} from {self._choices[state, token][1]!r}")
            if token not in self.edges[state]:
                self.edges[state][token] = self.new_state()
            state = self.edges[state][token]
        if last in self.edges[state]:
            raise ValueError(f"{choice and choice[1]!r} from another, which begins with it or is the same")
        self.edges[state][last] = target
        if choice is not None:
            self._choices[state, last] = choice

    def add_free_text(
        self,
        state: int,
        task_id: str,
        forbidden: set[int],
        blank: set[int],
        exits: dict[int, int],
        signs: dict[int, str],
    ):
        """Adds text, which begins in a state and is more than `blank`.

        Args:
            state (`int`): where it begins; nothing else does.
            task_id (`str`): whose text it is.
            forbidden (`set[int]`): tokens that must not stand in it.
            blank (`set[int]`): tokens of space, which alone are no text.
            exits (`dict[int, int]`): tokens that end it, with the states that they lead to.
            signs (`dict[int, str]`): those of them that show a sign, which may have text before it, with that sign.
        """
        rest = self.new_state()
        self._signs |= {(rest, token): sign for token, sign in signs.items()}
        self.edges[state] = dict.fromkeys(blank, state) | dict.fromkeys([*forbidden, *exits], NOWHERE)
        self.edges[rest] = dict.fromkeys(forbidden, NOWHERE) | exits
        self.otherwise[state] = self.otherwise[rest] = rest
        self._free[rest] = task_id
