"""One thing to learn, or to be asked: a recording, an instruction, an answer."""

import random
from dataclasses import dataclass, field

from ...processing.tasks_speechverse import JointTask, list_labels
from .recordings import Recording


@dataclass(frozen=True)
class Sample:
    """A recording, the wordings of an instruction, and the answer as text.

    Args:
        audio (`str` or [`Recording`]): path of the recording, or where else its bytes are.
        instructions (`tuple[str, ...]`): wordings of the instruction; one is drawn each time the sample is used. Samples
            of one task share the tuple.
        target (`str`): the answer, as the model should write it.
        task (`str`, *optional*): id of the task.
        view (`str`, *optional*): name of the corpus's view that it comes from, such as `st_de`.
        values (`dict[str, str]`, *optional*): what the `{names}` in the wordings stand for; `None`: the wordings are
            literal, braces and all.
        labels (`dict[str, str]`, *optional*): the classes that `{labels}` lists, with their descriptions.
        answer (*optional*): the answer as the task's kind of answer, such as a list of keywords; by default the target.
        key (`str`, *optional*): of the recording, unique in its corpus.
        corpus, split, speaker (`str`, *optional*): where the recording comes from.
        duration (`float`, *optional*): of the recording, s, as its corpus states it.
        transcript (`str`, *optional*): the words of the recording, where its corpus has them.
        snr (`float`, *optional*): of speech to noise in the recording, dB, as its corpus states it.
    """

    audio: str | Recording
    instructions: tuple[str, ...]
    target: str
    task: str | None = None
    values: dict[str, str] | None = None
    labels: dict[str, str] | None = None
    answer: object = None
    key: str | None = None
    corpus: str | None = None
    split: str | None = None
    speaker: str | None = None
    duration: float | None = None
    view: str | None = None
    transcript: str | None = None
    snr: float | None = None

    def __post_init__(self):
        if self.answer is None:
            object.__setattr__(self, "answer", self.target)

    @property
    def name(self) -> str | None:
        """What it is limited, counted and scored under: its view, or else its task."""
        return self.view or self.task

    @property
    def tasks(self) -> tuple[str, ...]:
        """Ids of the tasks that it teaches."""
        return () if self.task is None else (self.task,)

    def instruction(self, wording: str | None = None, describe: bool = False) -> str:
        """A wording, filled in; classes are listed in their own order.

        Args:
            wording (`str`, *optional*): by default the first.
            describe (`bool`, *optional*, defaults to `False`): list the classes with their descriptions.
        """
        wording = self.instructions[0] if wording is None else wording
        return self._fill(wording, self.labels, describe)

    def draw_instruction(self, draw: random.Random) -> str:
        """A wording drawn uniformly; where it lists classes, they are in any order, and described as often as not."""
        wording = draw.choice(self.instructions)
        describe = draw.random() < 0.5
        labels = self.labels
        if labels and "{labels}" in wording:
            labels = dict(draw.sample(list(labels.items()), len(labels)))
        return self._fill(wording, labels, describe)

    def _fill(self, wording: str, labels: dict[str, str] | None, describe: bool) -> str:
        if self.values is None:
            return wording
        listed = {"labels": list_labels(labels, describe)} if labels else {}
        return wording.format(**self.values, **listed)


@dataclass(frozen=True)
class JointSample(Sample):
    """Several tasks about one recording, asked and answered at once. It has no wordings but its parts'.

    Args:
        joint ([`JointTask`]): the tasks. `target` is its text, `answer` and `labels` are dicts by task id.
        parts (`tuple[Sample, ...]`): a sample of each task, in their order.
    """

    joint: JointTask | None = field(default=None, compare=False)
    parts: tuple[Sample, ...] = ()

    @property
    def tasks(self) -> tuple[str, ...]:
        return tuple(part.task for part in self.parts)

    def instruction(self, wording: str | None = None, describe: bool = False) -> str:
        return self.joint.instruction([part.instruction(describe=describe) for part in self.parts])

    def draw_instruction(self, draw: random.Random) -> str:
        return self.joint.instruction([part.draw_instruction(draw) for part in self.parts])
