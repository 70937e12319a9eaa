"""What a model has been taught to do: prompts, labels, targets, and how its words become an answer.

Tasks are written as YAML (one file each, in `processing/tasks/`) and travel with a checkpoint as `tasks.json`.
"""

import functools
import json
import re
import string
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple


TASKS_NAME = "tasks.json"
NOTHING = "none"  # how an answer says that there are no keywords, or no slots
# What a prompt cannot ask for by `{name}`: these mean something else where a task is asked.
RESERVED = {"audio", "describe", "instruction", "prompt", "sampling_rate", "task", "text", "text_target"}
RESERVED |= {"max_length", "padding", "padding_side", "return_tensors"}
RESERVED |= {"batch_size", "callback", "chunk_length_s", "constrained", "hint_bonus", "hints", "min_score"}
RESERVED |= {"no_speech_threshold", "num_workers", "return_scores", "stride_length_s", "top_k"}


class ParsedAnswer(NamedTuple):
    """A generated text, read.

    Args:
        answer: what the task's kind of answer is; `None` where nothing could be read.
        unread (`list[str]`): the parts of the text that could not be read, as they stand in it.
    """

    answer: object
    unread: list[str]


@dataclass(frozen=True)
class Task:
    """One kind of instruction.

    Args:
        id (`str`): short name, such as `asr`.
        name (`str`): long name, such as `speech-recognition`; accepted wherever the id is.
        tag (`str`): heading of this task's part in a joint answer, such as `ASR`.
        prompts (`list[str]`): wordings of the instruction, one drawn for each training sample. The first is the one
            used when a pipeline is given the task alone. `{labels}` stands for the list of classes, any other
            `{name}` for something that the sample brings, such as the keyword that is searched for.
        labels (`dict[str, str]`, *optional*): every label with a one-line description, which may be empty.
        answer_type (`str`, *optional*): `text`; `label`, one of the labels; `keywords`, a list of texts; `slots`, a
            list of `{"label", "value"}`. By default `label` where there are labels, or a prompt lists `{labels}` that
            whoever asks has to give; `text` elsewhere.
        held_out_prompts (`list[str]`, *optional*): wordings that are never trained on.
        metric (`str`, *optional*): what the answers are scored by, such as `wer`.
        temperature (`float`, *optional*, defaults to 1): what the log-probabilities of scored labels are divided by, so that
            their shares of certainty are right as often as they say; `evaluation/calibrate.py` finds it.

    Raises:
        ValueError: if it has no prompts, one that cannot be filled in, or labels that cannot be told apart.
    """

    id: str
    name: str
    tag: str
    prompts: list[str]
    labels: dict[str, str] = field(default_factory=dict)
    answer_type: str | None = None
    held_out_prompts: list[str] = field(default_factory=list)
    metric: str | None = None
    temperature: float = 1.0

    def __post_init__(self):
        if (
            isinstance(self.temperature, bool)
            or not isinstance(self.temperature, (int, float))
            or self.temperature <= 0
        ):
            raise ValueError(f"Task {self.id!r} has the temperature {self.temperature!r}; it is a number above 0.")
        asked = self._asked  # which looks at every prompt
        chosen_from = self.labels or "labels" in asked
        if self.answer_type is None:
            object.__setattr__(self, "answer_type", "label" if chosen_from else "text")
        if self.answer_type not in ANSWER_TYPES:
            raise ValueError(
                f"Task {self.id!r} has answer_type {self.answer_type!r}; it is one of {', '.join(ANSWER_TYPES)}."
            )
        if not self.prompts:
            raise ValueError(f"Task {self.id!r} has no prompts; it needs at least one.")
        if self.answer_type == "label" and not chosen_from:
            raise ValueError(
                f"Task {self.id!r} answers with a label, but has no labels and no prompt with {{labels}}."
            )
        if self.labels:
            _refuse_alike(self.labels, self.id)

    @property
    def fields(self) -> list[str]:
        """What a sample has to bring for the prompts, beside labels: `["keyword"]` for keyword search."""
        return sorted(self._asked - {"labels"})

    @property
    def _asked(self) -> set[str]:
        return {name for prompt in self.prompts + self.held_out_prompts for name in _fields_of(prompt, self.id)}

    def instruction(
        self, prompt: str | None = None, /, *, labels=None, describe: bool | None = None, **values: str
    ) -> str:
        """Fills in a prompt.

        Args:
            prompt (`str`, *optional*): one of the prompts, or another; by default the first.
            labels (`dict[str, str]` or `list[str]`, *optional*): classes in place of the task's own.
            describe (`bool`, *optional*): whether the classes are listed with their descriptions. By default those of
                `labels` are, and the task's own are not.
            **values: what else the prompt asks for; what it does not ask for is passed over.

        Raises:
            ValueError: if the prompt asks for something that is not given, or has no place for `labels`.
        """
        prompt = self.prompts[0] if prompt is None else prompt
        asked = set(_fields_of(prompt, self.id))
        if labels is not None and "labels" not in asked:
            raise ValueError(f"Task {self.id!r} takes no other labels: {prompt!r} does not list them by {{labels}}.")
        if missing := sorted(name for name in asked - {"labels"} if not _is_text(values.get(name))):
            raise ValueError(f"Task {self.id!r} needs {', '.join(missing)}, as text: {prompt!r} asks for it.")
        if "labels" in asked:
            describe = labels is not None if describe is None else describe
            labels = self.classes(labels)
            if not labels:
                raise ValueError(f"Task {self.id!r} has no labels of its own: give the classes to choose from.")
            values["labels"] = list_labels(labels, describe)
        return prompt.format(**{name: values[name] for name in asked})

    def format(self, answer, labels=None) -> str:
        """The text that a model should write for an answer; [`~Task.parse`] reads it back.

        Args:
            answer: of the task's type.
            labels (`dict[str, str]` or `list[str]`, *optional*): classes in place of the task's own.

        Raises:
            ValueError: if it is not such an answer, or could not be read back.
        """
        try:
            text = ANSWER_TYPES[self.answer_type].format(answer)
            survives = self.parse(text, labels) == ParsedAnswer(answer, [])
        except (AttributeError, KeyError, TypeError):  # not even of the right kind
            survives = False
        if not survives:
            raise ValueError(f"Task {self.id!r}: {answer!r} is no {self.answer_type} answer that can be written down.")
        return text

    def parse(self, text: str, labels=None) -> ParsedAnswer:
        """The typed answer in a generated text, and what of it could not be read.

        Args:
            text (`str`): what the model wrote.
            labels (`dict[str, str]` or `list[str]`, *optional*): classes in place of the task's own.
        """
        return ANSWER_TYPES[self.answer_type].parse(text.strip(), _labels_by_key(tuple(self.classes(labels))))

    def has_form(self, labels=None) -> bool:
        """Whether answers can be held to a form: one of several labels, or slots of them."""
        return self.answer_type in ("label", "slots") and bool(self.classes(labels))

    def assemble(self, pieces: list[tuple[str, str | None, str | None]]) -> ParsedAnswer:
        """The typed answer of the pieces that an answer which was held to a form is made of.

        Args:
            pieces (`list[tuple[str, str | None, str | None]]`): each the id of the task that it belongs to, the label that was
                chosen, and the text that was written: a label; or labels and their values by turns, or neither where there
                are no slots; or text.
        """
        own = [(label, text) for task_id, label, text in pieces if task_id == self.id]
        return ANSWER_TYPES[self.answer_type].assemble(own)

    def classes(self, labels=None) -> dict[str, str] | list[str]:
        """The classes to choose from: `labels`, or else the task's own; none for a task whose answers are free.

        Raises:
            ValueError: if `labels` are no labels, or cannot be told apart.
        """
        if labels is None:
            return self.labels
        listed = isinstance(labels, (dict, list, tuple)) and all(isinstance(label, str) for label in labels)
        if not listed or not labels:
            raise ValueError(
                f"Task {self.id!r}: labels are {labels!r}, not a list of texts or a dict with descriptions."
            )
        _refuse_alike(labels, self.id)
        return labels


def list_labels(labels, describe: bool = False) -> str:
    """Classes as a prompt lists them: `a, b or c`, or with their descriptions, `a (...); b (...); or c (...)`."""
    *others, last = labels
    if not (describe and isinstance(labels, dict) and any(labels.values())):
        return f"{', '.join(others)} or {last}" if others else last
    described = [f"{label} ({text})" if text else label for label, text in labels.items()]
    return "; ".join([*described[:-1], f"or {described[-1]}" if others else described[-1]])


# The kinds of answers. Each reads a text with the labels to choose from, found by their keys.


class TextAnswer:
    """Free text: a transcript, a translation, an answer in words."""

    @staticmethod
    def format(answer: str) -> str:
        return answer

    @staticmethod
    def assemble(pieces: list[tuple[str | None, str | None]]) -> ParsedAnswer:
        return TextAnswer.parse("".join(text for _, text in pieces), {})

    @staticmethod
    def parse(text: str, labels) -> ParsedAnswer:
        return ParsedAnswer(text, [])


class LabelAnswer:
    """One of the labels, forgiving case, punctuation and spacing."""

    @staticmethod
    def format(answer: str) -> str:
        return answer

    @staticmethod
    def assemble(pieces: list[tuple[str | None, str | None]]) -> ParsedAnswer:
        return ParsedAnswer(pieces[0][0] if pieces else None, [])

    @staticmethod
    def parse(text: str, labels) -> ParsedAnswer:
        label = labels.get(_key(text))
        return ParsedAnswer(label, [text] if label is None and text else [])


class KeywordsAnswer:
    """`rain, umbrella`: texts between commas, each once; `none` where there are none."""

    @staticmethod
    def format(answer: list[str]) -> str:
        return ", ".join(answer) if answer else NOTHING

    @staticmethod
    def assemble(pieces: list[tuple[str | None, str | None]]) -> ParsedAnswer:
        return KeywordsAnswer.parse("".join(text for _, text in pieces), {})

    @staticmethod
    def parse(text: str, labels) -> ParsedAnswer:
        if _key(text) == NOTHING:
            return ParsedAnswer([], [])
        once = {}
        for keyword in (" ".join(keyword.split()) for keyword in _without_full_stop(text).split(",")):
            once.setdefault(keyword.casefold(), keyword)
        once.pop("", None)
        return ParsedAnswer(list(once.values()) or None, [text] if text and not once else [])


class SlotsAnswer:
    """`date = today; person = Ann`: labels with values, in order; `none` where there are none."""

    @staticmethod
    def format(answer: list[dict]) -> str:
        return "; ".join(f"{slot['label']} = {slot['value']}" for slot in answer) if answer else NOTHING

    @staticmethod
    def assemble(pieces: list[tuple[str | None, str | None]]) -> ParsedAnswer:
        if pieces == [(None, None)]:
            return ParsedAnswer([], [])
        if pieces and pieces[0][0] is None:  # a task without classes of slots, whose answer is free text
            return SlotsAnswer.parse(pieces[0][1], {})
        labels, values = [label for label, _ in pieces[::2]], [text for _, text in pieces[1::2]]
        if values:
            values[-1] = _without_full_stop(values[-1])
        slots = [{"label": label, "value": value} for label, value in zip(labels, values, strict=False)]
        return ParsedAnswer(slots or None, [])

    @staticmethod
    def parse(text: str, labels) -> ParsedAnswer:
        if _key(text) == NOTHING:
            return ParsedAnswer([], [])
        slots, unread = [], []
        for part in filter(None, (part.strip() for part in _without_full_stop(text).split(";"))):
            name, _, value = part.partition("=")
            label, value = labels.get(_key(name), None if labels else name.strip()), value.strip()
            if label and value and not {"=", "|"} & set(value):  # the start of another slot, which lacks its semicolon
                slots.append({"label": label, "value": value})
            else:
                unread.append(part)
        return ParsedAnswer(slots or None, unread)


ANSWER_TYPES = {"text": TextAnswer, "label": LabelAnswer, "keywords": KeywordsAnswer, "slots": SlotsAnswer}


class JointTask:
    """Several tasks in one answer: `ASR: play some jazz | IC: play_music |` (section 3.5 and Table 9 of the paper).

    Args:
        tasks (`list[Task]`): two or more, in the order in which they are answered.
        other_tags (`Iterable[str]`, *optional*): headings of tasks that are not asked for: a part so headed is none of
            theirs.

    Raises:
        ValueError: if there are fewer than two, or two of one tag.
    """

    answer_type = "joint"

    def __init__(self, tasks: list[Task], other_tags: Iterable[str] = ()):
        self.tasks = list(tasks)
        self.id = "+".join(task.id for task in self.tasks)
        if len(self.tasks) < 2:
            raise ValueError(f"A joint task is made of two tasks or more, not of {self.id or 'none'}.")
        if len({task.tag.casefold() for task in self.tasks}) < len(self.tasks):
            raise ValueError(f"The joint task {self.id} holds a task twice, or two of one tag.")
        own = "|".join(f"({re.escape(task.tag)})" for task in self.tasks)  # one group a task, to know whose it is
        tags = "|".join([own, *map(re.escape, other_tags)])  # of two alike, the task's own comes first
        self._heading = re.compile(rf"(?:^|[|\n])\s*(?:{tags})\s*:", flags=re.IGNORECASE)

    @property
    def fields(self) -> list[str]:
        """What a sample has to bring for the prompts of any of the tasks, beside labels."""
        return sorted({name for task in self.tasks for name in task.fields})

    def instruction(
        self,
        instructions: list[str] | None = None,
        /,
        *,
        prompts: list[str] | None = None,
        labels=None,
        describe: bool | None = None,
        **values: str,
    ) -> str:
        """The compound instruction.

        Args:
            instructions (`list[str]`, *optional*): of each task, filled in; by default they are made of `prompts`.
            prompts (`list[str]`, *optional*): of each task, to be filled in; by default their first ones.
            labels (`dict`, *optional*): by task id, classes in place of that task's own.
            describe (`bool`, *optional*): see [`~Task.instruction`].
            **values: what the prompts ask for.

        Raises:
            ValueError: if a prompt asks for something that is not given, or there is not one for each task.
        """
        if instructions is None:
            labels = self.classes(labels)
            prompts = [task.prompts[0] for task in self.tasks] if prompts is None else prompts
            if len(prompts) != len(self.tasks):
                raise ValueError(f"There are {len(prompts)} prompts for the {len(self.tasks)} tasks of {self.id}.")
            instructions = [
                task.instruction(prompt, labels=labels.get(task.id), describe=describe, **values)
                for task, prompt in zip(self.tasks, prompts, strict=True)
            ]
        parts = zip(self.tasks, instructions, strict=True)
        steps = " ".join(f"=== Task: {task.tag} === {instruction}" for task, instruction in parts)
        answer_format = " ".join(f"{task.tag}: ... |" for task in self.tasks)
        return f"Do these tasks one after the other. {steps} === Answer in this format: {answer_format}"

    def format(self, answers: dict[str, object], labels=None) -> str:
        """The text that a model should write.

        Args:
            answers (`dict`): the answer of each task, by its id.
            labels (`dict`, *optional*): by task id, classes in place of that task's own.

        Raises:
            ValueError: if an answer is missing, or could not be read back.
        """
        if missing := [task.id for task in self.tasks if task.id not in answers]:
            raise ValueError(f"The joint task {self.id} lacks the answer of {', '.join(missing)}.")
        others = self.classes(labels)
        parts = [f"{task.tag}: {task.format(answers[task.id], others.get(task.id))} |" for task in self.tasks]
        text = " ".join(parts)
        if self.parse(text, labels) != ParsedAnswer({task.id: answers[task.id] for task in self.tasks}, []):
            raise ValueError(
                f"The joint task {self.id} cannot write down {answers!r}: a part holds another's heading."
            )
        return text

    def parse(self, text: str, labels=None) -> ParsedAnswer:
        """The answers by task id, `None` where a part is missing or could not be read.

        The parts may stand in any order, and on lines of their own. `unread` holds what could not be read in a part,
        what stands before the first, every further answer to a task that has one, and the parts of other tasks.
        """
        labels = self.classes(labels)
        answers = dict.fromkeys(task.id for task in self.tasks)
        found = list(self._heading.finditer(text))
        if not any(match.lastindex for match in found):
            return ParsedAnswer(None, [text.strip()] if text.strip() else [])
        unread = [text[: found[0].start()].strip()]
        ends = [following.start() for following in found[1:]] + [len(text)]
        for match, end in zip(found, ends, strict=True):
            if match.lastindex is None:  # another task's
                unread.append(text[match.start() : end].strip().strip("|").strip())
                continue
            task = self.tasks[match.lastindex - 1]
            part = text[match.end() : end].strip().removesuffix("|").strip()
            if answers[task.id] is None:
                answers[task.id], unread_in_part = task.parse(part, labels.get(task.id))
                unread += unread_in_part
            else:
                unread.append(f"{task.tag}: {part}")
        return ParsedAnswer(answers, [part for part in unread if part])

    def has_form(self, labels=None) -> bool:
        """Whether answers can be held to a form: always to that of the headings."""
        return True

    def assemble(self, pieces: list[tuple[str, str | None, str | None]]) -> ParsedAnswer:
        """The answers by task id, of the pieces of all; see [`~Task.assemble`]."""
        parts = {task.id: task.assemble(pieces) for task in self.tasks}
        unread = [text for part in parts.values() for text in part.unread]
        return ParsedAnswer({task_id: part.answer for task_id, part in parts.items()}, unread)

    def classes(self, labels=None) -> dict[str, dict[str, str] | list[str]]:
        """By task id, the classes in place of that task's own.

        Raises:
            ValueError: if `labels` are no dict by task id or name.
        """
        labels = {} if labels is None else labels
        ids = {name: task.id for task in self.tasks for name in (task.id, task.name)}
        if not isinstance(labels, dict) or not labels.keys() <= ids.keys():
            known = ", ".join(task.id for task in self.tasks)
            raise ValueError(f"The joint task {self.id} takes labels as a dict by task id ({known}).")
        if len({ids[name] for name in labels}) < len(labels):
            raise ValueError(f"The joint task {self.id} is given labels of a task twice, by its id and its name.")
        return {ids[name]: classes for name, classes in labels.items()}


class TaskBank:
    """The tasks that a model knows, found by id or name."""

    def __init__(self, tasks=()):
        self._tasks = {}
        self._ids = {}
        for task in tasks:
            self.add(task)

    def add(self, task: Task):
        """Adds a task.

        Raises:
            ValueError: if its id or name is taken.
        """
        for name in {task.id, task.name}:
            if name in self._ids:
                raise ValueError(f"Two tasks are called {name!r}: {self._ids[name]!r} and {task.id!r}.")
            self._ids[name] = task.id
        self._tasks[task.id] = task

    def __getitem__(self, name: str) -> Task:
        """The task of that id or name.

        Raises:
            KeyError: if there is none; the message lists what there is.
        """
        if name not in self._ids:
            raise KeyError(f"This model knows no task {name!r}; it knows {', '.join(self._tasks) or 'none'}.")
        return self._tasks[self._ids[name]]

    def __contains__(self, name):
        return name in self._ids

    def __iter__(self):
        return iter(self._tasks.values())

    def __len__(self):
        return len(self._tasks)

    def __eq__(self, other):
        return isinstance(other, TaskBank) and list(self) == list(other)

    def joint(self, names: list[str]) -> JointTask:
        """Several of the tasks, to be answered together."""
        return JointTask([self[name] for name in names], other_tags=[task.tag for task in self])

    def find(self, name: str | list[str]) -> Task | JointTask:
        """One task by its id or name, or several as one joint task.

        Raises:
            KeyError: if there is none of that name.
            ValueError: if it is no name and no list of names.
        """
        if isinstance(name, str):
            return self[name]
        if not isinstance(name, (list, tuple)) or not all(isinstance(one, str) for one in name):
            raise ValueError(f"The task is {name!r}; it is named by a text, or several by a list of texts.")
        return self.joint(name)

    @classmethod
    def from_yaml(cls, *paths: str | Path) -> "TaskBank":
        """Reads tasks from files, and from every `*.yaml` of folders.

        Raises:
            FileNotFoundError: if one of the paths is not there.
            ValueError: if a file is no YAML, lacks a field, has an unknown one, or one of the wrong kind.
        """
        tasks = []
        for path in map(Path, paths):
            if not path.exists():
                raise FileNotFoundError(f"There is no task file or folder {path}.")
            files = sorted(path.glob("*.yaml")) if path.is_dir() else [path]
            tasks += [_task_from_fields(_read_yaml(file), file) for file in files]
        return cls(tasks)

    @classmethod
    def from_json(cls, file: str | Path) -> "TaskBank":
        """Reads a `tasks.json`.

        Raises:
            ValueError: if a task lacks a field, has an unknown one, or one of the wrong kind.
        """
        try:
            tasks = json.loads(Path(file).read_text(encoding="utf-8"))
        except json.JSONDecodeError as error:
            raise ValueError(f"{file} is not JSON: {error}.") from error
        return cls(_task_from_fields(task, f"{file}, task {index}") for index, task in enumerate(tasks))

    def to_json(self, file: str | Path):
        """Writes a `tasks.json`."""
        tasks = [asdict(task) for task in self]
        for task in tasks:
            if task["temperature"] == 1.0:
                del task["temperature"]  # as in files of earlier versions
        Path(file).write_text(json.dumps(tasks, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _read_yaml(file: Path):
    import yaml  # for authors alone: a checkpoint carries JSON

    try:
        return yaml.safe_load(file.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ValueError(f"{file}: this is no YAML: {' '.join(str(error).split())}.") from error


def _task_from_fields(values: dict, where) -> Task:
    known = [f.name for f in fields(Task)]
    if not isinstance(values, dict):
        raise ValueError(f"{where}: it holds no fields; a task has {', '.join(known)}.")
    if unknown := set(values) - set(known):
        raise ValueError(f"{where}: unknown field {', '.join(sorted(unknown))}; a task has {', '.join(known)}.")
    needed = {f.name for f in fields(Task) if f.default is MISSING and f.default_factory is MISSING}
    if missing := needed - set(values):
        raise ValueError(f"{where}: field {', '.join(sorted(missing))} is missing.")
    for name in ("id", "name", "tag"):
        if not _is_text(values[name]):  # YAML reads a bare no as False
            raise ValueError(f"{where}: {name} is {values[name]!r}, which is no text; put it in quotes.")
    for name in ("prompts", "held_out_prompts"):
        prompts = values.get(name, [])
        if not isinstance(prompts, list) or not all(isinstance(prompt, str) for prompt in prompts):
            raise ValueError(f"{where}: {name} must be a list of texts, even of one.")
    if not isinstance(labels := values.get("labels", {}), dict):
        raise ValueError(f"{where}: labels must be a mapping from each label to its description.")
    if wrong := [label for label in labels if not isinstance(label, str)]:  # YAML reads a bare yes as True
        raise ValueError(f"{where}: label {wrong[0]!r} is no text; put it in quotes.")
    if wrong := [label for label, description in labels.items() if not isinstance(description, str)]:
        raise ValueError(f'{where}: the description of label {wrong[0]!r} is no text; "" stands for none.')
    try:
        return Task(**values)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error


def _fields_of(prompt: str, task_id: str) -> list[str]:
    """The `{names}` in a prompt."""
    where = f"Task {task_id!r}: the prompt {prompt!r}"
    try:
        parts = [part for part in string.Formatter().parse(prompt) if part[1] is not None]
    except ValueError as error:
        raise ValueError(f"{where} has a brace without a partner ({error}).") from error
    for _, name, format_spec, conversion in parts:
        if not name.isidentifier() or format_spec or conversion:
            raise ValueError(f"{where} asks for {name!r}; in braces stands a plain name.")
        if name in RESERVED:
            raise ValueError(f"{where} asks for {name!r}, which has a meaning of its own; call it something else.")
    return [name for _, name, _, _ in parts]


def _refuse_alike(labels, task_id: str):
    by_key = _labels_by_key(tuple(labels))
    if "" in by_key or len(by_key) < len(labels):
        raise ValueError(f"Task {task_id!r} has labels that cannot be told apart: {', '.join(labels)}.")


def _is_text(value) -> bool:
    return isinstance(value, str) and bool(value.strip())


@functools.lru_cache(maxsize=1024)
def _labels_by_key(labels: tuple[str, ...]) -> Mapping[str, str]:
    """Labels by what they are compared by; there are few sets, and every sample is read with one."""
    return MappingProxyType({_key(label): label for label in labels})


def _without_full_stop(text: str) -> str:
    """Without the full stop of a sentence at the end; that of an initial, or of an abbreviation like `p.m.`, stays."""
    word = re.search(r"[^\s,;=]*$", text.removesuffix(".")).group()
    initial = len(word) == 1 and word.isalpha()
    return text if initial or "." in word or not any(map(str.isalnum, word)) else text.removesuffix(".")


def _key(text: str) -> str:
    """Label comparison that forgives case, punctuation and spacing, in every script."""
    letters = unicodedata.normalize("NFC", text.casefold())
    return " ".join("".join(" " if unicodedata.category(c)[0] in "CPSZ" else c for c in letters).split())
