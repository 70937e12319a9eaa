"""One question about a recording: the words in which it is put, and what may be answered."""

from collections.abc import Mapping
from dataclasses import dataclass

from .token_constraint_speechverse import TokenConstraint


SPEECH_TASK = "sns"  # asked first where recordings without speech are not to be answered
NO_SPEECH = "not speech"  # that task's label of them
OPTIONS = ("constrained", "return_scores", "hints")  # how any question is decoded


@dataclass
class Question:
    """A question, and how its answer is decoded.

    Args:
        instruction (`str`): the words.
        task (`str` or `list[str]`, *optional*): the task, or the tasks, whose words these are.
        labels (*optional*): classes in place of the task's own.
        constraint ([`TokenConstraint`], *optional*): what the answer is held to.
        label_ids (`list[list[int]]`, *optional*): tokens of the labels that are scored in place of an answer being written.
        return_scores (`bool`, *optional*, defaults to `False`): whether all their scores are wanted.
        hint_ids (`list[list[int]]`, *optional*): tokens of the hints.
    """

    instruction: str
    task: str | list[str] | None = None
    labels: dict | list | None = None
    constraint: TokenConstraint | None = None
    label_ids: list[list[int]] | None = None
    return_scores: bool = False
    hint_ids: list[list[int]] | None = None

    @property
    def decoding(self) -> str:
        """Questions of one kind are answered together: the kinds are generated with other options."""
        if self.label_ids is not None:
            return "scored"
        if self.constraint is None:
            return "free"
        return "held to a form" if self.constraint.longest is None else "held to labels"


def make_question(processor, asked: Mapping, scored: bool = False) -> Question:
    """A question, of what a user asks.

    Args:
        processor ([`SpeechVerseProcessor`]): the model's.
        asked (`Mapping`): `instruction`, or `task` and what of [`options_of_tasks`] it is asked with; and of
            `OPTIONS`: `constrained` (`bool`), whether the answer is held to the task's form, by default where it has one;
            `return_scores` (`bool`), whether the task's labels are scored; `hints` (`list[str]`), words that the answer may
            hold.
        scored (`bool`, *optional*, defaults to `False`): whether labels are scored where `return_scores` does not say.

    Raises:
        KeyError: if the model's bank has no such task.
        ValueError: if it is not one question, or cannot be decoded in this way.
    """
    instruction, task, labels = asked.get("instruction"), asked.get("task"), asked.get("labels")
    constrained, hints = asked.get("constrained"), asked.get("hints")
    scored = asked.get("return_scores", scored)
    if instruction is not None and not isinstance(instruction, str):
        raise ValueError(f"An input's instruction is {instruction!r}; it must be one piece of text.")
    if (instruction is None) == (task is None):
        raise ValueError("An input needs an instruction or a task, and not both.")
    if task is None:
        if any(name in asked for name in options_of_tasks(processor)):
            raise ValueError(
                "labels, and what else a task asks for, need a task; an input has an instruction instead."
            )
        if scored or constrained:
            raise ValueError("Scores, and answers that are held to a form, need a task; an input has an instruction.")
        return Question(instruction, hint_ids=hints and processor.hint_ids(hints))
    known = processor.tasks.find(task)
    values = {name: asked[name] for name in known.fields if asked.get(name) is not None}
    prompt, options = asked.get("prompt"), {"labels": labels, "describe": asked.get("describe"), **values}
    if isinstance(task, str):
        if not isinstance(prompt, (str, type(None))):
            raise ValueError(f"The prompt is {prompt!r}; for one task it is one text.")
        words = known.instruction(prompt, **options)
    else:
        if prompt is not None and not (isinstance(prompt, list) and all(isinstance(one, str) for one in prompt)):
            raise ValueError(f"The prompt is {prompt!r}; for several tasks it is a list of texts, one for each.")
        words = known.instruction(prompts=prompt, **options)
    question = Question(words, task, labels)
    if hints and (scored or known.answer_type == "label"):
        raise ValueError("Hints are for free text: leave them out where the answer is one of several labels.")
    if scored:
        question.label_ids = processor.label_ids(task, labels)
        question.return_scores = bool(asked.get("return_scores"))
        return question
    question.hint_ids = hints and processor.hint_ids(hints)
    if constrained or (constrained is None and known.has_form(labels)):
        try:
            question.constraint = processor.constraint(task, labels)
        except ValueError as error:
            raise ValueError(f"{error} constrained=False lets the model write freely.") from error
    return question


def options_of_tasks(processor) -> set[str]:
    """What a question with a task may bring, and one in words may not."""
    return {"labels", "prompt", "describe", *(name for task in processor.tasks for name in task.fields)}
