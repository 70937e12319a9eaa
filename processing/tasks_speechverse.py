"""What a model has been taught to do: prompts, labels, and how its words become an answer.

Tasks are written as YAML (one file each, in `processing/tasks/`) and travel with a checkpoint as `tasks.json`.
"""

import json
import re
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path


TASKS_NAME = "tasks.json"


@dataclass(frozen=True)
class Task:
    """One kind of instruction.

    Args:
        id (`str`): short name, such as `asr`.
        name (`str`): long name, such as `speech-recognition`; accepted wherever the id is.
        tag (`str`): heading of this task's part in a joint answer, such as `ASR`.
        prompts (`list[str]`): wordings of the instruction, one drawn for each training sample. The first is the one
            used when a pipeline is given the task alone.
        labels (`dict[str, str]`, *optional*): every possible answer with a one-line description; without labels the
            answer is free text.
    """

    id: str
    name: str
    tag: str
    prompts: list[str]
    labels: dict[str, str] = field(default_factory=dict)

    def parse(self, text: str) -> str | None:
        """The answer in a generated text: the label it names, `None` if it names none; the text itself if it is free."""
        if not self.labels:
            return text.strip()
        by_key = {_key(label): label for label in self.labels}
        return by_key.get(_key(text))


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
            ValueError: if its id or name is taken, it has no prompt, or two of its labels read alike.
        """
        keys = [_key(label) for label in task.labels]
        if "" in keys or len(set(keys)) < len(keys):
            raise ValueError(f"Task {task.id!r} has labels that cannot be told apart: {', '.join(task.labels)}.")
        if not task.prompts:
            raise ValueError(f"Task {task.id!r} has no prompts; it needs at least one.")
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

    @classmethod
    def from_yaml(cls, folder: str | Path) -> "TaskBank":
        """Reads every `*.yaml` of a folder.

        Raises:
            ValueError: if a file lacks a field, has an unknown one, or one of the wrong kind.
        """
        import yaml  # for authors alone: a checkpoint carries JSON

        files = sorted(Path(folder).glob("*.yaml"))
        return cls(_task_from_fields(yaml.safe_load(file.read_text(encoding="utf-8")), file) for file in files)

    @classmethod
    def from_json(cls, file: str | Path) -> "TaskBank":
        """Reads a `tasks.json`.

        Raises:
            ValueError: if a task lacks a field, has an unknown one, or one of the wrong kind.
        """
        tasks = json.loads(Path(file).read_text(encoding="utf-8"))
        return cls(_task_from_fields(task, f"{file}, task {index}") for index, task in enumerate(tasks))

    def to_json(self, file: str | Path):
        """Writes a `tasks.json`."""
        tasks = [asdict(task) for task in self]
        Path(file).write_text(json.dumps(tasks, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _task_from_fields(values: dict, where) -> Task:
    known = [f.name for f in fields(Task)]
    if not isinstance(values, dict):
        raise ValueError(f"{where}: it holds no fields; a task has {', '.join(known)}.")
    if unknown := set(values) - set(known):
        raise ValueError(f"{where}: unknown field {', '.join(sorted(unknown))}; a task has {', '.join(known)}.")
    if missing := {"id", "name", "tag", "prompts"} - set(values):
        raise ValueError(f"{where}: field {', '.join(sorted(missing))} is missing.")
    if not isinstance(values["prompts"], list):
        raise ValueError(f"{where}: prompts must be a list, even of one.")
    if not isinstance(labels := values.get("labels", {}), dict):
        raise ValueError(f"{where}: labels must be a mapping from each label to its description.")
    if wrong := [label for label in labels if not isinstance(label, str)]:  # YAML reads a bare yes as True
        raise ValueError(f"{where}: label {wrong[0]!r} is no text; put it in quotes.")
    return Task(**values)


def _key(text: str) -> str:
    """Label comparison that forgives case, punctuation and spacing."""
    return " ".join(re.findall(r"\w+", text.replace("_", " ").casefold()))
