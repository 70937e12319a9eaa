"""Which recordings, with which instructions and answers: manifests, and the part of them that a run takes."""

import json
import os
import re
from dataclasses import dataclass, field, fields
from pathlib import Path
from string import Template

from .sample import Sample


FACTS = ("speaker", "transcript")  # of a recording, that a line may know


@dataclass(frozen=True)
class ManifestSource:
    """A JSONL manifest and what to take from it.

    A line may also have `speaker`, who talks, over whom intervals are then taken; `transcript`, the words of the recording,
    which a text LLM is given in its place; and `snr`, that of speech to noise, dB.

    Args:
        manifest (`str`): path; `$NAME` stands for an environment variable. Recordings lie relative to its folder.
        where (`dict[str, str]`, *optional*): keeps the lines whose fields match these regular expressions in full.
        task (`str`, *optional*): task of every line; by default the line's own `task`.
        instruction (`str` or `list[str]`, *optional*): wordings for every line; by default the line's `instruction`, or
            the prompts of its task.
        target (`str`, *optional*, defaults to `"$target"`): the answer; `$name` stands for a field of the line.
        weight (`float`, *optional*, defaults to 1): sample weight in the mixture.
    """

    manifest: str
    where: dict[str, str] = field(default_factory=dict)
    task: str | None = None
    instruction: str | list[str] | None = None
    target: str = "$target"
    weight: float = 1.0

    @property
    def name(self) -> str:
        """How logs call it."""
        return Path(self.manifest).stem

    @classmethod
    def from_fields(cls, values: dict, where: str) -> "ManifestSource":
        """Builds a source from a configuration's entry.

        Raises:
            ValueError: if it is no mapping, has an unknown field, or no `manifest`.
        """
        if not isinstance(values, dict):
            raise ValueError(f"{where} is {type(values).__name__}, not a mapping with a manifest.")
        if unknown := set(values) - {f.name for f in fields(cls)}:
            known = ", ".join(f.name for f in fields(cls))
            raise ValueError(f"{where}: unknown key {', '.join(sorted(unknown))}; a source has {known}.")
        if "manifest" not in values:
            raise ValueError(f"{where}: key manifest is missing.")
        source = cls(**values)
        if not isinstance(source.where, dict):
            raise ValueError(f"{where}: key where is {source.where!r}; it maps fields to regular expressions.")
        for name, pattern in source.where.items():
            try:
                re.compile(str(pattern))
            except re.error as error:
                raise ValueError(f"{where}: key where.{name} is no regular expression ({error}).") from error
        wordings = [source.instruction] if isinstance(source.instruction, str) else source.instruction or []
        if not isinstance(wordings, list) or not all(isinstance(wording, str) for wording in wordings):
            raise ValueError(f"{where}: key instruction is {source.instruction!r}; it is a text or a list of texts.")
        if not isinstance(source.target, str) or not _is_template(source.target):
            raise ValueError(
                f"{where}: key target is {source.target!r}; it is a text with fields as $name, and $$ for $."
            )
        if not isinstance(source.weight, (int, float)) or isinstance(source.weight, bool) or source.weight < 0:
            raise ValueError(f"{where}: key weight is {source.weight!r}; it is a number, at least 0.")
        return source


def load_samples(source: ManifestSource, tasks) -> list[Sample]:
    """Reads the samples of a source, in the manifest's order.

    Args:
        source ([`ManifestSource`]): what to read.
        tasks ([`TaskBank`]): the tasks whose prompts stand in for missing instructions.

    Raises:
        FileNotFoundError: if the manifest is not there.
        ValueError: if a line is not JSON, lacks a field, or nothing is left; file, line and field are named.
    """
    file = Path(expand_variables(source.manifest))
    if not file.is_file():
        raise FileNotFoundError(f"Manifest {file} is not there.")
    samples = []
    with file.open(encoding="utf-8") as stream:  # splitlines() would also end a line at a text's U+2028
        lines = stream.readlines()
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        place = f"{file}, line {number}"
        record = _parse(line, place)
        if not all(re.fullmatch(str(pattern), str(record.get(name, ""))) for name, pattern in source.where.items()):
            continue
        samples.append(_sample_of(record, source, tasks, file.parent, place))
    if not samples:
        raise ValueError(f"{file}: no sample is left of {len(lines)} lines; where is {source.where or 'empty'}.")
    return samples


def _is_template(text: str) -> bool:
    return not any(match["invalid"] is not None for match in Template.pattern.finditer(text))


def expand_variables(path: str) -> str:
    """Puts environment variables into a path.

    Raises:
        ValueError: if one of them is not set.
    """
    expanded = os.path.expandvars(path)
    if "$" in expanded:
        raise ValueError(f"{path}: an environment variable in this path is not set.")
    return expanded


def _parse(line: str, place: str) -> dict:
    try:
        record = json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(f"{place} is not JSON: {error}.") from error
    if not isinstance(record, dict):
        raise ValueError(f"{place} is {type(record).__name__}, not an object with fields.")
    return record


def _sample_of(record: dict, source: ManifestSource, tasks, folder: Path, place: str) -> Sample:
    if not record.get("audio"):
        raise ValueError(f"{place}: field audio is missing or empty.")
    task = source.task or record.get("task")
    if task in tasks:
        task = tasks[task].id  # it may have been given by its name
    instructions = source.instruction or record.get("instruction")
    filled = {}
    if not instructions:
        if task is None:
            raise ValueError(f"{place}: neither instruction nor task is given.")
        if task not in tasks:
            raise ValueError(f"{place}: field task is {task!r}; known are {', '.join(t.id for t in tasks) or 'none'}.")
        instructions = tasks[task].prompts
        filled = _prompt_fields(record, tasks[task], place)
    try:
        target = Template(source.target).substitute({k: v for k, v in record.items() if v is not None})
    except KeyError as error:
        raise ValueError(f"{place}: field {error.args[0]} is missing; the target is made of it.") from error
    if not target.strip():
        raise ValueError(f"{place}: the target is empty.")
    instructions = (instructions,) if isinstance(instructions, str) else tuple(instructions)
    if task in tasks and tasks[task].answer_type in ("keywords", "slots"):
        filled["answer"] = tasks[task].parse(target, filled.get("labels") or None).answer
    facts = {name: str(record[name]) for name in FACTS if record.get(name) not in (None, "")}
    snr = record.get("snr")
    if not isinstance(snr, (int, float, type(None))):
        raise ValueError(f"{place}: field snr is {snr!r}; it is a number of dB, or null.")
    return Sample(str(folder / record["audio"]), instructions, target, task, snr=snr, **filled, **facts)


def _prompt_fields(record: dict, task, place: str) -> dict:
    """What a task's prompts ask for, out of the line: its fields of those names, and `labels`, if it has classes of its
    own."""
    if missing := [name for name in task.fields if not record.get(name)]:
        raise ValueError(f"{place}: field {missing[0]} is missing; the prompts of {task.id} ask for it.")
    labels = record.get("labels") or task.labels
    if not labels and any("{labels}" in prompt for prompt in task.prompts):
        raise ValueError(f"{place}: field labels is missing; the prompts of {task.id} list them.")
    labels = labels if isinstance(labels, dict) else dict.fromkeys(labels, "")
    return {"values": {name: str(record[name]) for name in task.fields}, "labels": labels}
