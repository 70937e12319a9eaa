"""The way of somebody new: a fresh clone, `make demo`, and then README's commands as they are written."""

import json
import os
import re
import subprocess
from pathlib import Path

import pytest


ROOT = Path(__file__).parent.parent


@pytest.mark.slow  # minutes: two environments' worth of packages, the demo, and training once more
def test_demo_and_then_readmes_commands(hub, tmp_path):
    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "--quiet", ROOT, clone], check=True)
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("HF_", "SPEECHVERSE_", "TESTS_"))
    }

    def bash(script, **more):
        subprocess.run(["bash", "-ec", script], cwd=clone, env=environment | more, check=True)

    bash("make demo", HF_HUB_OFFLINE="1")  # the bases are built from packages, and nobody's cache is looked into
    readme = (clone / "README.md").read_text(encoding="utf-8")
    (block,) = (b for b in re.findall(r"```bash\n(.*?)```", readme, re.DOTALL) if "source .venv-demo" in b)
    bash(block, **hub.environment(tmp_path / "home"))
    results = json.loads((clone / "runs/vacuum/evaluation/demo/results.json").read_text())
    assert results["results"][0]["value"] >= 0.7  # what the demo itself asks for
    assert {"model.safetensors", "tasks.json", "README.md"} <= set(hub.repositories["org/vacuum"].files())
