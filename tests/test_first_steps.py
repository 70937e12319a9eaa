"""The way of somebody new: a fresh clone, `make demo`, and then README's commands as they are written."""

import json
import os
import re
import subprocess
from pathlib import Path

import pytest

from speechverse.training.demo import REQUIRED_ACCURACY


ROOT = Path(__file__).parent.parent


@pytest.mark.slow  # minutes: an environment, the demo, and training once more
def test_demo_and_then_what_readme_shows(hub, tmp_path):
    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "--quiet", ROOT, clone], check=True)
    environment = {
        name: value
        for name, value in (os.environ | hub.environment(tmp_path / "home")).items()
        if not name.startswith(("SPEECHVERSE_", "TESTS_"))
    }

    def bash(script, **more):
        subprocess.run(["bash", "-ec", script], cwd=clone, env=environment | more, check=True)

    bash("make demo", HF_HUB_OFFLINE="1")  # the bases are built from packages
    readme = (clone / "README.md").read_text(encoding="utf-8")
    bash(block(readme, "bash", "my.wav").replace("my.wav", "runs/demo/recordings/weather.wav"), HF_HUB_OFFLINE="1")
    bash(block(readme, "bash", "--output_dir runs/vacuum"))
    results = json.loads((clone / "runs/vacuum/evaluation/demo/results.json").read_text())
    assert results["results"][0]["value"] >= REQUIRED_ACCURACY
    assert {"model.safetensors", "tasks.json", "README.md"} <= set(hub.repositories["org/vacuum"].files())

    # The first answer is the one that README has beside it; then a task of one's own, which nothing was trained on.
    opening = block(readme, "python", "runs/demo/recordings/weather.wav")
    call, answer = re.search(r"^(ask\(.+\))\S*  # ('.+')$", opening, re.MULTILINE).groups()
    (clone / "urgency.yaml").write_text(block(readme, "yaml", "id: urgency"), encoding="utf-8")
    own_task = block(readme, "python", "urgency.yaml").replace("call.wav", "runs/demo/recordings/weather.wav")
    script = f"""{opening}
assert {call}["answer"] == {answer}
{own_task.replace("ask({", "answer = ask({")}
assert answer["answer"] in ("yes", "no")  # whichever: that it can be asked is what is shown
"""
    (clone / "answer.py").write_text(script, encoding="utf-8")
    bash(".venv-demo/bin/python answer.py", SPEECHVERSE_FOUNDATIONS="foundations", HF_HUB_OFFLINE="1")


def block(markdown: str, language: str, holds: str) -> str:
    """The only block of a language that holds some text."""
    (found,) = (one for one in re.findall(rf"```{language}\n(.*?)```", markdown, re.DOTALL) if holds in one)
    return found
