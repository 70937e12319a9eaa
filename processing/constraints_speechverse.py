"""What a model may write, token by token: label sets, slots and joint answers as automata over token ids."""

import functools
from collections import deque
from collections.abc import Callable, Iterable

from .tasks_speechverse import NOTHING, JointTask, Task


START = 0  # state in which an answer begins
END = 1  # state in which it is complete
NOWHERE = -1  # where a forbidden token leads
MAX_BUILT = 32  # constraints that are kept, for every input asks for one
PROBE = "a"  # stands for free text where the tokens that follow it are looked up


class TokenConstraint:
    """A deterministic automaton over token ids; a path from `START` to `END` is an answer that may be given.

    It is data for the model, which knows nothing of tasks: [`~SpeechVerseForConditionalGeneration.generate`] takes it as
    `constraint=`. Made by [`~SpeechVerseProcessor.constraint`].

    Attributes:
        edges (`list[dict[int, int]]`): for each state, which state a token leads to; `NOWHERE` forbids the token.
        otherwise (`list[int]`): for each state, where all other tokens lead: itself where text is free, else `NOWHERE`.
        vocab_size (`int`): number of tokens; higher ids, which an LLM may have, stand for nothing and are forbidden.
        num_answers (`int`, *optional*): how many answers there are; `None` where text is free.
        longest (`int`, *optional*): tokens of the longest answer; `None` where text is free.
    """

    def __init__(self, vocab_size: int):
        self.vocab_size = vocab_size
        self.edges: list[dict[int, int]] = [{}, {}]
        self.otherwise = [NOWHERE, NOWHERE]
        self.num_answers: int | None = None
        self.longest: int | None = None
        self._choices: dict[tuple[int, int], tuple[str, str | None]] = {}
        self._free: dict[int, str] = {}

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

    def trace(self, tokens: Iterable[int]) -> list[tuple[str, str | list[int] | None]]:
        """What was chosen on a path, in order: `(task id, label)`, or `(task id, token ids)` where text was free.

        The label is `None` where the answer is that there is nothing. A path that ends early gives what was complete.
        """
        state, pieces = START, []
        for token in tokens:
            following = self.next_state(state, token)
            if following in self._free:
                if state not in self._free or not pieces:
                    pieces.append((self._free[following], []))
                pieces[-1][1].append(token)
            if (state, token) in self._choices:
                pieces.append(self._choices[state, token])
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

    def add_free_text(self, state: int, task_id: str, forbidden: set[int], blank: set[int], exits: dict[int, int]):
        """Adds text, which begins in a state and is more than `blank`.

        Args:
            state (`int`): where it begins; nothing else does.
            task_id (`str`): whose text it is.
            forbidden (`set[int]`): tokens that must not stand in it.
            blank (`set[int]`): tokens of space, which alone are no text.
            exits (`dict[int, int]`): tokens that end it, with the states that they lead to.
        """
        rest = self.new_state()
        self.edges[state] = dict.fromkeys(blank, state) | dict.fromkeys([*forbidden, *exits], NOWHERE)
        self.edges[rest] = dict.fromkeys(forbidden, NOWHERE) | exits
        self.otherwise[state] = self.otherwise[rest] = rest
        self._free[rest] = task_id


class ConstraintBuilder:
    """Makes the constraints of a tokenizer's answers.

    Args:
        tokenizer: the LLM's own.
        answer_ids (`Callable[[list[str]], list[list[int]]]`): the tokens that a model writes for answers, their ends included.
    """

    def __init__(self, tokenizer, answer_ids: Callable[[list[str]], list[list[int]]]):
        self.tokenizer = tokenizer
        self.answer_ids = answer_ids
        self.end = tokenizer.eos_token_id
        self._built: dict[tuple, TokenConstraint] = {}

    def build(self, task: Task | JointTask, labels=None) -> TokenConstraint:
        """The constraint of a task's answers.

        Args:
            task ([`Task`] or [`JointTask`]): a task whose answers are labels or slots, or a joint one.
            labels (*optional*): classes in place of the task's own; for a joint task a dict of them by task id.

        Raises:
            ValueError: if every text is an answer to the task, or the tokenizer cannot tell its answers apart.
        """
        key = _key(task, labels)
        if key not in self._built:
            if len(self._built) == MAX_BUILT:
                self._built.pop(next(iter(self._built)))
            self._built[key] = self._build(task, labels)
        return self._built[key]

    def _build(self, task, labels) -> TokenConstraint:
        constraint = TokenConstraint(len(self.tokenizer))
        if isinstance(task, JointTask):
            self._add_joint(constraint, task, labels)
        elif task.answer_type == "label":
            self._add_labels(constraint, task, task.classes(labels))
        elif task.has_form(labels):
            self._add_slots(constraint, START, task, task.classes(labels))
        else:
            raise ValueError(f"Task {task.id!r} answers with free text: there is nothing to hold it to.")
        return constraint

    def label_ids(self, task: Task, labels=None) -> list[list[int]]:
        """The tokens of every label, its end included, in the labels' order.

        Raises:
            ValueError: if the task's answers are not labels, or the tokenizer cannot tell them apart.
        """
        if isinstance(task, JointTask) or task.answer_type != "label":
            raise ValueError(f"Task {task.id!r} has no labels to score: its answers are not one of several classes.")
        sequences = {}
        classes = list(task.classes(labels))
        for label, ids in zip(classes, map(tuple, self.answer_ids(classes)), strict=True):
            if ids in sequences:
                written = self.tokenizer.decode(ids, skip_special_tokens=True)
                raise ValueError(
                    f"Task {task.id!r}: labels {sequences[ids]!r} and {label!r} are the same to this tokenizer, "
                    f"{written!r}: give one of them another name."
                )
            sequences[ids] = label
        return [list(ids) for ids in sequences]

    def anywhere(self, text: str) -> list[list[int]]:
        """The tokens of a text within another and, where they differ there, at the beginning."""
        within, at_start = self._continuation(PROBE, f" {text}"), self._continuation("", text)
        return [within] if within == at_start else [within, at_start]

    def _add_labels(self, constraint: TokenConstraint, task: Task, labels):
        sequences = self.label_ids(task, labels)
        for label, ids in zip(task.classes(labels), sequences, strict=True):
            self._add_choice(constraint, START, ids, END, task, label)
        constraint.num_answers = len(sequences)
        constraint.longest = max(map(len, sequences))

    def _add_joint(self, constraint: TokenConstraint, joint: JointTask, labels):
        """`ASR: play some jazz | IC: play_music |`"""
        others = joint.classes(labels)
        state, heading = constraint.new_state(), f"{joint.tasks[0].tag}:"
        constraint.add_path(START, self._continuation("", heading), state)
        for task, following in zip(joint.tasks, [*joint.tasks[1:], None], strict=True):
            ending = f" | {following.tag}:" if following else " |"
            target = constraint.new_state() if following else END
            classes = task.classes(others.get(task.id))
            if task.answer_type == "label":
                texts = [f" {label}{ending}" for label in classes]
                self._add_choices(constraint, state, heading, texts, target, task, classes)
            elif task.has_form(classes or None):
                self._add_slots(constraint, state, task, classes, heading, ending, target)
            else:
                tokens = self._continuation(f"{heading} {PROBE}", ending, closes=target == END)
                self._add_free_text(constraint, state, task, {"|": (tokens, target)}, "|\n")
            state, heading = target, ending.removeprefix(" | ")

    def _add_slots(self, constraint, state, task, labels, heading="", ending="", target=END):
        """`date = today; person = Ann`, or `none`, behind a heading and before an ending, where there are such."""
        space = " " if heading else ""
        closes = target == END
        one_slot = f"{heading}{space}{PROBE} = {PROBE}"
        nothing = self._continuation(heading, f"{space}{NOTHING}{ending}", closes)
        constraint.add_path(state, nothing, target, (task.id, None))
        value, next_slot = constraint.new_state(), constraint.new_state()
        self._add_choices(constraint, state, heading, [f"{space}{label} =" for label in labels], value, task, labels)
        self._add_choices(
            constraint, next_slot, f"{one_slot};", [f" {label} =" for label in labels], value, task, labels
        )
        endings = {";": (self._continuation(one_slot, ";"), next_slot)}
        if ending:
            endings["|"] = (self._continuation(one_slot, ending, closes), target)
        self._add_free_text(constraint, value, task, endings, ";=|\n", may_end=not ending)

    def _add_choices(self, constraint, state, before: str, texts: list[str], target, task, labels):
        """Labels, each written as a text that follows another."""
        sequences = self._continuations(before, texts, closes=target == END)
        for label, tokens in zip(labels, sequences, strict=True):
            self._add_choice(constraint, state, tokens, target, task, label)

    def _add_choice(self, constraint, state, tokens, target, task, label):
        try:
            constraint.add_path(state, tokens, target, (task.id, label))
        except ValueError as error:
            raise ValueError(
                f"Task {task.id!r}: this tokenizer cannot tell the label {error}: give one of them another name."
            ) from error

    def _add_free_text(self, constraint, state, task, endings, signs: str, may_end: bool = False):
        """Text between what is fixed.

        Args:
            endings (`dict[str, tuple[list[int], int]]`): by the sign that tells it, the tokens of what ends the text, and
                the state that these lead to.
            signs (`str`): signs that may not stand in the text.
            may_end (`bool`, *optional*, defaults to `False`): whether the whole answer may end with it.
        """
        exits = {self.end: END} if may_end else {}
        for sign, (tokens, target) in endings.items():
            at = next((index for index, token in enumerate(tokens) if token in self._tokens_with[sign]), None)
            if at is None:
                raise ValueError(
                    f"Task {task.id!r}: this tokenizer has no {sign!r}, so its answers cannot be held to a form."
                )
            # What stands before the sign is space, which the text may hold as well: the sign decides.
            exit_token, *rest = tokens[at:]
            exits[exit_token] = constraint.new_state() if rest else target
            if rest:
                constraint.add_path(exits[exit_token], rest, target)
        forbidden = self._special.union(*(self._tokens_with[sign] for sign in signs))
        constraint.add_free_text(state, task.id, forbidden - exits.keys(), self._blank, exits)

    def _continuation(self, before: str, text: str, closes: bool = False) -> list[int]:
        return self._continuations(before, [text], closes)[0]

    def _continuations(self, before: str, texts: list[str], closes: bool = False) -> list[list[int]]:
        """The tokens of texts that follow another, with the answer's end where they close it.

        Raises:
            ValueError: if what comes before would be other tokens with one of them behind it.
        """
        earlier, *wholes = self.tokenizer(
            [before, *(before + text for text in texts)], add_special_tokens=False
        ).input_ids
        for text, whole in zip(texts, wholes, strict=True):
            if whole[: len(earlier)] != earlier:
                raise ValueError(
                    f"This tokenizer joins the end of {before!r} with what follows in {before + text!r}, so answers cannot "
                    "be held to this form."
                )
        return [whole[len(earlier) :] + [self.end] * closes for whole in wholes]

    @functools.cached_property
    def _tokens_with(self) -> dict[str, set[int]]:
        """By sign, the tokens that it occurs in."""
        spellings = {sign: {sign, f"<0x{ord(sign):02X}>"} for sign in ";=|"}
        spellings["\n"] = {"\n", "<0x0A>", "\u010a"}  # the last as byte-level BPE writes it
        vocabulary = self.tokenizer.get_vocab().items()
        return {
            sign: {token_id for token, token_id in vocabulary if any(spelling in token for spelling in ways)}
            for sign, ways in spellings.items()
        }

    @functools.cached_property
    def _special(self) -> set[int]:
        """Tokens that no text is made of, such as the end, or the audio token."""
        added = self.tokenizer.added_tokens_decoder.items()
        return {index for index, token in added if token.special}.union(self.tokenizer.all_special_ids)

    @functools.cached_property
    def _blank(self) -> set[int]:
        """Tokens that hold nothing but space, as SentencePiece or byte-level BPE write it."""
        return {index for token, index in self.tokenizer.get_vocab().items() if not token.strip("\u2581\u0120 \t\r")}


def _key(task: Task | JointTask, labels) -> tuple:
    """What the constraint of a task's answers depends on."""
    if isinstance(task, JointTask):
        others = task.classes(labels)
        return tuple((part.tag, *_key(part, others.get(part.id))) for part in task.tasks)
    return task.id, task.answer_type, *task.classes(labels)
