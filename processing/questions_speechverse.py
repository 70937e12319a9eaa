"""One question about a recording: the words in which it is put, and what may be answered."""

from collections.abc import Mapping
from dataclasses import dataclass

from .constraints_speechverse import TokenConstraint


SPEECH_TASK = "sns"  # asked first where recordings without speech are not to be answered
NO_SPEECH = "not speech"  # that task's label of them


@dataclass
class Question:
    """A question, and how its answer is decoded.

    Args:
        instruction (`str`): the words.
        task (`str` or `list[str]`, *optional*): the task, or the tasks, whose words these are.
        labels (*optional*): classes in place of the task's own.
        constraint ([`TokenConstraint`], *optional*): what the answer is held to.
        label_ids (`list[list[int]]`, *optional*): tokens of the labels that are scored in place of an answer being written.
        hint_ids (`list[list[int]]`, *optional*): tokens of the hints.
    """

    instruction: str
    task: str | list[str] | None = None
    labels: dict | list | None = None
    constraint: TokenConstraint | None = None
    label_ids: list[list[int]] | None = None
    hint_ids: list[list[int]] | None = None

    @property
    def decoding(self) -> str:
        """Questions of one kind are answered together: the kinds are generated with other options."""
        if self.label_ids is not None:
            return "scored"
        if self.constraint is None:
            return "free"
        return "held to a form" if self.constraint.longest is None else "held to labels"


def make_question(
    processor,
    asked: Mapping,
    *,
    constrained: bool | None = None,
    scored: bool = False,
    hints: list[str] | None = None,
) -> Question:
    """A question, of what a user asks.

    Args:
        processor ([`SpeechVerseProcessor`]): the model's.
        asked (`Mapping`): `instruction`; or `task`, and with it `labels`, `prompt` (the task's words, in place of its first
            prompt), `describe` (see [`~Task.instruction`]) and what else the task asks for.
        constrained (`bool`, *optional*): whether the answer is held to the task's form; by default where it has one.
        scored (`bool`, *optional*, defaults to `False`): whether the task's labels are scored.
        hints (`list[str]`, *optional*): words that the answer may hold.

    Raises:
        KeyError: if the model's bank has no such task.
        ValueError: if it is not one question, or cannot be decoded in this way.
    """
    instruction, task, labels = asked.get("instruction"), asked.get("task"), asked.get("labels")
    if instruction is not None and not isinstance(instruction, str):
        raise ValueError(f"An input's instruction is {instruction!r}; it must be one piece of text.")
    if (instruction is None) == (task is None):
        raise ValueError("An input needs an instruction or a task, and not both.")
    if task is None:
        if any(name in asked for name in names_of_options(processor)):
            raise ValueError(
                "labels, and what else a task asks for, need a task; an input has an instruction instead."
            )
        if scored or constrained:
            raise ValueError("Scores, and answers that are held to a form, need a task; an input has an instruction.")
        return Question(instruction, hint_ids=hints and processor.hint_ids(hints))
    known = processor.tasks.find(task)
    values = {name: asked[name] for name in known.fields if asked.get(name) is not None}
    prompt = asked.get("prompt")
    if prompt is not None and (not isinstance(task, str) or not isinstance(prompt, str)):
        raise ValueError(f"The prompt is {prompt!r} for task {task!r}; it is one text, for one task.")
    words = known.instruction(prompt, labels=labels, describe=asked.get("describe"), **values)
    question = Question(words, task, labels)
    if scored:
        if hints:
            raise ValueError("Hints are for answers that are written: leave them out where labels are scored.")
        question.label_ids = processor.label_ids(task, labels)
        return question
    question.hint_ids = hints and processor.hint_ids(hints)
    if constrained or (constrained is None and known.has_form(labels)):
        try:
            question.constraint = processor.constraint(task, labels)
        except ValueError as error:
            raise ValueError(f"{error} constrained=False lets the model write freely.") from error
    return question


def names_of_options(processor) -> set[str]:
    """What may be asked for beside a task."""
    return {"labels", "prompt", "describe", *(name for task in processor.tasks for name in task.fields)}
