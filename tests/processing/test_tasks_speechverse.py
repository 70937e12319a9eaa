"""The task bank: YAML in, JSON along with the checkpoint, words to labels."""

import json
from pathlib import Path

import pytest

from speechverse import Task, TaskBank, processing


SHIPPED = Path(processing.__file__).parent / "tasks"
MOOD = Task(
    "mood", "mood-of-speaker", "Mood", ["How does it sound?"], {"happy": "glad", "not happy": "everything else"}
)
NOTE = Task("note", "note-taking", "Note", ["Write it down.", "Note this."])

YAML = """
id: mood
name: mood-of-speaker
tag: Mood
prompts:
  - How does it sound?
labels:
  happy: glad
  not happy: everything else
"""


@pytest.fixture
def bank():
    return TaskBank([MOOD, NOTE])


def yaml_folder(folder, **files):
    for name, text in files.items():
        (folder / f"{name}.yaml").write_text(text, encoding="utf-8")
    return folder


# The shipped tasks


def test_every_shipped_file_is_a_task():
    shipped = TaskBank.from_yaml(SHIPPED)
    assert [task.id for task in shipped] == sorted(file.stem for file in SHIPPED.glob("*.yaml"))
    assert {"asr", "er", "sns"} <= {task.id for task in shipped}


@pytest.mark.parametrize("task", TaskBank.from_yaml(SHIPPED), ids=lambda task: task.id)
def test_shipped_task_is_sound(task):
    assert task.id and task.name and task.tag and task.id != task.name
    assert all(isinstance(prompt, str) and prompt == prompt.strip() and prompt for prompt in task.prompts)
    assert len({prompt.casefold() for prompt in task.prompts}) == len(task.prompts) >= 3
    assert all(description.strip() for description in task.labels.values())
    for label in task.labels:
        assert task.parse(label) == label, "two labels must not read alike"
        assert all(label in prompt for prompt in task.prompts), "a prompt names its answers"


def test_shipped_prompts_are_told_apart():
    prompts = [prompt for task in TaskBank.from_yaml(SHIPPED) for prompt in task.prompts]
    assert len(set(prompts)) == len(prompts)


# Words to answers


@pytest.mark.parametrize(
    "text, answer",
    [
        ("happy", "happy"),
        ("Happy.", "happy"),
        ("  HAPPY!\n", "happy"),
        ('"not happy"', "not happy"),
        ("Not_happy", "not happy"),
        ("not   happy?", "not happy"),
        ("unhappy", None),
        ("happy happy", None),
        ("The speaker is happy.", None),
        ("", None),
        ("...", None),
    ],
)
def test_label_is_read_from_the_text(text, answer):
    assert MOOD.parse(text) == answer


def test_free_text_is_the_answer_itself():
    assert NOTE.parse("  Buy milk, and Bread.\n") == "Buy milk, and Bread."
    assert NOTE.parse(" ") == ""


# The bank


def test_task_is_found_by_id_and_by_name(bank):
    assert bank["mood"] is bank["mood-of-speaker"] is MOOD
    assert "note-taking" in bank and "Note" not in bank
    assert len(bank) == 2 and list(bank) == [MOOD, NOTE]


def test_unknown_task_lists_the_known_ones(bank):
    with pytest.raises(KeyError, match="no task 'asr'; it knows mood, note"):
        bank["asr"]
    with pytest.raises(KeyError, match="it knows none"):
        TaskBank()["asr"]


@pytest.mark.parametrize(
    "id, name", [("mood", "new"), ("new", "mood"), ("new", "mood-of-speaker"), ("note-taking", "n")]
)
def test_taken_id_or_name_is_refused_and_changes_nothing(id, name, bank):
    with pytest.raises(ValueError, match="Two tasks are called"):
        bank.add(Task(id, name, "New", ["Go."]))
    assert list(bank) == [MOOD, NOTE]


def test_task_without_a_prompt_is_refused(bank):
    with pytest.raises(ValueError, match="'mute' has no prompts"):
        bank.add(Task("mute", "muteness", "Mute", []))


# Files


def test_yaml_gives_the_task(tmp_path):
    assert TaskBank.from_yaml(yaml_folder(tmp_path, mood=YAML)) == TaskBank([MOOD])
    assert len(TaskBank.from_yaml(tmp_path / "nothing")) == 0


@pytest.mark.parametrize(
    "text, message",
    [
        (YAML.replace("tag: Mood\n", ""), "field tag is missing"),
        (YAML.replace("id:", "ids:"), "unknown field ids; a task has id, name, tag, prompts, labels"),
        (YAML.replace("  - How", "  How"), "prompts must be a list"),
        (YAML.replace("  happy: glad", "  yes: glad"), "label True is no text; put it in quotes"),
        (YAML.split("labels")[0] + "labels: [happy, sad]", "labels must be a mapping"),
        ("", "holds no fields"),
        ("- id: mood", "holds no fields"),
    ],
)
def test_bad_field_is_named_with_its_file(text, message, tmp_path):
    with pytest.raises(ValueError, match=rf"bad\.yaml: .*{message}"):
        TaskBank.from_yaml(yaml_folder(tmp_path, bad=text))


def test_two_files_of_one_task_are_refused(tmp_path):
    with pytest.raises(ValueError, match="Two tasks are called 'mood'"):
        TaskBank.from_yaml(yaml_folder(tmp_path, first=YAML, second=YAML.replace("mood-of-speaker", "other")))


@pytest.mark.parametrize("tasks", [[], [MOOD, NOTE], TaskBank.from_yaml(SHIPPED)], ids=["none", "two", "shipped"])
def test_json_round_trip(tasks, tmp_path):
    bank = TaskBank(tasks)
    bank.to_json(tmp_path / "tasks.json")
    assert TaskBank.from_json(tmp_path / "tasks.json") == bank


def test_json_keeps_order_and_letters_of_every_language(tmp_path):
    bank = TaskBank([NOTE, Task("gefühl", "gefühl-erkennen", "Gefühl", ["Wie fühlt es sich an?"], {"böse": "wütend"})])
    bank.to_json(tmp_path / "tasks.json")
    assert list(TaskBank.from_json(tmp_path / "tasks.json")) == list(bank)
    assert "böse" in (tmp_path / "tasks.json").read_text(encoding="utf-8")


def test_bad_json_names_the_task(tmp_path):
    sound = {"id": "a", "name": "b", "tag": "c", "prompts": ["d"]}
    (tmp_path / "tasks.json").write_text(json.dumps([sound, {"id": "e"}]))
    with pytest.raises(ValueError, match=r"tasks\.json, task 1: field name, prompts, tag is missing"):
        TaskBank.from_json(tmp_path / "tasks.json")
