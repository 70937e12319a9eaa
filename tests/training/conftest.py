"""A corpus of noise, and tiny bases, for the tests of training."""

import json

import pytest
import soundfile
from tiny_models import noise, save_bases
from tiny_trainer import tiny_trainer
from training_runs import CONFIG

from speechverse import TaskBank
from speechverse.processing.tasks_speechverse import Task
from speechverse.training.arguments import parse_run_config
from speechverse.training.train import build_trainer, train


# Answers of different lengths: a loss that averages per batch or per rank, and not per token, gives other numbers.
ANSWERS = ["yes", "no red", "blue . one two three", "two", "green one", "what is said ? say it .", "red", "three one"]


@pytest.fixture(scope="session")
def manifest(tmp_path_factory):
    """A manifest of eight recordings, each with an `answer` and two fields to filter by."""
    folder = tmp_path_factory.mktemp("corpus")
    (folder / "audio").mkdir()
    lines = []
    for index, answer in enumerate(ANSWERS):
        soundfile.write(folder / f"audio/{index}.wav", noise(0.3 + 0.07 * index, index), 16_000)
        split = "dev" if index >= 6 else "train"
        lines.append({"audio": f"audio/{index}.wav", "answer": answer, "take": index, "split": split})
    file = folder / "manifest.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return file


@pytest.fixture(scope="session")
def foundations(tmp_path_factory):
    """A folder with the tiny bases `tiny-wavlm`, `tiny-t5` and `tiny-llama`."""
    folder = tmp_path_factory.mktemp("foundations")
    for text in ("t5", "llama"):
        save_bases(folder, text=text)
    return folder


@pytest.fixture(scope="session")
def environment(manifest, foundations):
    """The variables that the configuration of a test run asks for."""
    return {"CORPUS": str(manifest.parent), "SPEECHVERSE_FOUNDATIONS": str(foundations), "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="session")
def config_file(tmp_path_factory):
    file = tmp_path_factory.mktemp("config") / "run.yaml"
    file.write_text(CONFIG, encoding="utf-8")
    return file


@pytest.fixture(scope="session")
def train_here(environment, config_file):
    """Trains in this process; returns the folder."""

    def train_here(folder, *arguments, config=config_file):
        options = ["--output_dir", str(folder), "--report_to", "none", *map(str, arguments)]
        with pytest.MonkeyPatch.context() as patch:
            for name, value in environment.items():
                patch.setenv(name, value)
            parsed = parse_run_config([str(config), *options])
            train(build_trainer(parsed), parsed)
        return folder

    return train_here


def colour_naming() -> TaskBank:
    return TaskBank([Task(id="colour", name="colour-naming", tag="C", prompts=["which colour ?", "say it ."])])


@pytest.fixture
def tasks():
    return colour_naming()


@pytest.fixture(scope="session")
def make_trainer_in(manifest, foundations):
    """A trainer, in a given folder, on eight recordings and fresh tiny bases; always the same one for the same arguments."""

    def make(folder, text="t5", model_arguments=None, **arguments):
        return tiny_trainer(manifest, foundations, folder, colour_naming(), text, model_arguments, **arguments)

    return make


@pytest.fixture
def make_trainer(make_trainer_in, tmp_path):
    """The same in a folder of the test's own."""

    def make(text="t5", folder="run", model_arguments=None, **arguments):
        return make_trainer_in(tmp_path / folder, text, model_arguments, **arguments)

    return make


@pytest.fixture(scope="session")
def bank():
    """Every task that the shipped corpora serve, with few prompts."""
    labels = {
        "er": {"neutral": "no feeling", "happy": "pleased", "sad": "down", "angry": "furious"},
        "asc": {"positive": "pleased", "negative": "displeased", "neutral": "neither"},
        "sc": {"one": "a single person talks", "two": "two people talk"},
        "ac": dict.fromkeys(["Canadian", "Indian", "Australian", "British", "American"], ""),
        "sns": {"speech": "somebody talks", "not speech": "nobody talks"},
        "kws": {"yes": "it is said", "no": "it is not said"},
        "ic": {"alarm_set": "sets an alarm", "alarm_query": "asks for alarms", "takeaway_order": "orders food"},
        "sf": {"date": "a day", "time": "a time", "food_type": "a dish"},
    }
    prompts = {
        "asr": "Write down what is said.",
        "st": "Translate into {language}.",
        "kwe": "Which are the keywords?",
        "kws": "Is {keyword} said? Answer {labels}.",
        "open": "Answer the question.",
    }
    return TaskBank(
        Task(
            id=task,
            name=f"the-{task}",
            tag=task.upper(),
            prompts=[prompts.get(task, "Choose one: {labels}."), prompts.get(task, "Which of these? {labels}")],
            held_out_prompts=["Never trained on: " + prompts.get(task, "{labels}")],
            labels=labels.get(task, {}),
            answer_type={"kwe": "keywords", "sf": "slots"}.get(task),
        )
        for task in ("asr", "st", "ic", "sf", "kwe", "kws", "er", "asc", "sc", "ac", "sns", "open")
    )


@pytest.fixture
def data_folder(tmp_path, monkeypatch):
    """The folder that `$SPEECHVERSE_DATA` names; what `datasets` keeps of it goes away with it."""
    import datasets

    monkeypatch.setenv("SPEECHVERSE_DATA", str(tmp_path / "data"))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    (tmp_path / "data").mkdir()
    return tmp_path / "data"
