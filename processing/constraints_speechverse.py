"""What a model may write in answer to a task: its labels, its slots, or both in a joint answer's form, as token ids."""

import functools
from collections.abc import Callable

from .tasks_speechverse import NOTHING, JointTask, Task
from .token_constraint_speechverse import END, START, TokenConstraint


MAX_REMEMBERED = 32  # constraints, and sets of labels: every input asks for its own, and most are alike
PROBE = "a"  # stands for free text where the tokens that follow it are looked up


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
        self._label_ids: dict[tuple, list[list[int]]] = {}

    def build(self, task: Task | JointTask, labels=None) -> TokenConstraint:
        """The constraint of a task's answers.

        Args:
            task ([`Task`] or [`JointTask`]): a task whose answers are labels or slots, or a joint one.
            labels (*optional*): classes in place of the task's own; for a joint task a dict of them by task id.

        Raises:
            ValueError: if every text is an answer to the task, or the tokenizer cannot tell its answers apart.
        """
        return _remembered(self._built, _key(task, labels), lambda: self._build(task, labels))

    def _build(self, task, labels) -> TokenConstraint:
        constraint = TokenConstraint(len(self.tokenizer), self.end)
        if isinstance(task, JointTask):
            self._add_joint(constraint, task, labels)
        elif task.answer_type == "label":
            for label, ids in zip(task.classes(labels), self.label_ids(task, labels), strict=True):
                self._add_choice(constraint, START, ids, END, task, label)
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
        return _remembered(self._label_ids, _key(task, labels), lambda: self._tokenize_labels(task, labels))

    def _tokenize_labels(self, task: Task, labels) -> list[list[int]]:
        classes, sequences = list(task.classes(labels)), {}
        for label, ids in zip(classes, map(tuple, self.answer_ids(classes)), strict=True):
            if not (self._special - {self.tokenizer.unk_token_id}).isdisjoint(ids[:-1]):
                raise ValueError(f"Task {task.id!r}: the label {label!r} holds a special token of the LLM's.")
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
        exits, exit_signs = {}, {}
        for sign, (tokens, target) in endings.items():
            at = next((index for index, token in enumerate(tokens) if token in self._tokens_with[sign]), None)
            if at is None:
                raise ValueError(
                    f"Task {task.id!r}: this tokenizer has no {sign!r}, so its answers cannot be held to a form."
                )
            # What stands before the sign is space, which the text may hold as well: the sign decides. It may be one token
            # with the end of the text, as in `p.m.;`.
            rest = tokens[at + 1 :]
            after = constraint.new_state() if rest else target
            if rest:
                constraint.add_path(after, rest, target)
            for token in self._tokens_ending_with(sign, signs):
                exits[token], exit_signs[token] = after, sign
        if may_end:
            exits[self.end] = END
        forbidden = self._special.union(*(self._tokens_with[sign] for sign in signs))
        constraint.add_free_text(state, task.id, forbidden - exits.keys(), self._blank, exits, exit_signs)

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

    def _tokens_ending_with(self, sign: str, signs: str) -> set[int]:
        """Tokens that end with a sign, and hold none of the signs before it."""
        texts = {index: self.tokenizer.convert_ids_to_tokens(index) for index in self._tokens_with[sign]}
        byte = f"<0x{ord(sign):02X}>"
        return {
            index
            for index, text in texts.items()
            if text == byte or text[-1] == sign and not set(text[:-1]) & set(signs)
        }

    @functools.cached_property
    def _special(self) -> set[int]:
        """Tokens that no text is made of, such as the end, or the audio token."""
        added = self.tokenizer.added_tokens_decoder.items()
        return {index for index, token in added if token.special}.union(self.tokenizer.all_special_ids)

    @functools.cached_property
    def _blank(self) -> set[int]:
        """Tokens that hold nothing but space, as SentencePiece or byte-level BPE write space, tab and carriage return."""
        spellings = "\u2581\u0120\u0109\u010d \t\r"
        bytes_of_space = {"<0x09>", "<0x0D>", "<0x20>"}
        return {
            index
            for token, index in self.tokenizer.get_vocab().items()
            if not token.strip(spellings) or token in bytes_of_space
        }


def _remembered(known: dict, key, make: Callable):
    """What was made for a key before, or is made now; the oldest of many is forgotten."""
    if key not in known:
        if len(known) >= MAX_REMEMBERED:
            known.pop(next(iter(known)))
        known[key] = make()
    return known[key]


def _key(task: Task | JointTask, labels) -> tuple:
    """What the constraint of a task's answers depends on."""
    if isinstance(task, JointTask):
        others = task.classes(labels)
        return tuple((part.tag, *_key(part, others.get(part.id))) for part in task.tasks)
    return task.id, task.answer_type, *task.classes(labels)
