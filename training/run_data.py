"""The data of a run: loaded, checked, and sorted into the datasets of the mixture."""

import dataclasses
from dataclasses import dataclass

from .data.filters import CheckedSample, FilterRules, check_samples, usable
from .data.inspection import FactsCache
from .data.report import DataPart
from .data.run_sources import load_source
from .data.sample import Sample
from .mixture import MixtureDataset


@dataclass(frozen=True)
class LoadedData:
    """The samples of `train_data` or `eval_data`.

    Args:
        samples (`list[Sample]`): of all entries.
        entries (`list[int]`): which entry each is of.
        sources (`list`): the entries.
        rejected (`list[dict]`): rows that could not be made a sample.
    """

    samples: list[Sample]
    entries: list[int]
    sources: list
    rejected: list[dict]

    @classmethod
    def of(cls, sources: list, tasks, only_tasks: list[str] | None = None) -> "LoadedData":
        """Loads the entries of a configuration.

        Args:
            sources (`list`): the entries.
            tasks ([`TaskBank`]): the tasks that they may name.
            only_tasks (`list[str]`, *optional*): ids of the tasks that are taken; a joint sample is where all of its tasks
                are, and one without a task is not.

        Raises:
            FileNotFoundError: if a manifest or a corpus is not there.
            ImportError: if a package that a corpus needs is not installed.
            ValueError: if a manifest has a mistake.
        """
        loaded = cls([], [], sources, [])
        for number, source in enumerate(sources):
            samples, rejected = load_source(source, tasks)
            if only_tasks is not None:
                samples = [sample for sample in samples if sample.tasks and set(sample.tasks) <= set(only_tasks)]
            loaded.samples.extend(samples)
            loaded.entries.extend([number] * len(samples))
            loaded.rejected.extend(rejected)
        return loaded

    def check(self, rules: FilterRules, cache: FactsCache) -> "CheckedData":
        """Looks at every sample and listens to every recording."""
        return CheckedData(self, check_samples(self.samples, rules, cache=cache))


@dataclass(frozen=True)
class CheckedData:
    """What the filter made of [`LoadedData`].

    Args:
        loaded ([`LoadedData`]): the samples.
        checked (`list[CheckedSample]`): all of them, with their faults.
    """

    loaded: LoadedData
    checked: list[CheckedSample]

    @property
    def report(self) -> DataPart:
        """What a report tells of it."""
        return DataPart(self.checked, self.loaded.rejected)

    @property
    def usable(self) -> list[CheckedSample]:
        """Those without a fault."""
        return usable(self.checked)

    def mixture_datasets(self) -> list[MixtureDataset]:
        """The usable samples of each entry and task or view; two of one name are told apart by a number."""
        entries = [entry for entry, one in zip(self.loaded.entries, self.checked, strict=True) if one.fault is None]
        indices: dict[tuple, list[int]] = {}
        for index, (entry, one) in enumerate(zip(entries, self.usable, strict=True)):
            indices.setdefault((entry, one.sample.name, one.sample.tasks), []).append(index)
        datasets, times_used = [], {}
        for (entry, view, tasks), members in indices.items():
            source = self.loaded.sources[entry]
            name = f"{source.name}/{view}" if view else source.name
            times_used[name] = times_used.get(name, 0) + 1
            datasets.append(MixtureDataset(name, tasks, members, source.weight))
            if times_used[name] > 1:
                datasets[-1] = dataclasses.replace(datasets[-1], name=f"{name} {times_used[name]}")
        return datasets
