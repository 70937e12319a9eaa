"""Settings and fixtures that every test shares."""

import os
from pathlib import Path


# Tiny models gain nothing from threads, and threads that wait for each other on a busy machine cost many times over.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# No test may reach a hub: what would is a mistake, and should fail at once.
os.environ["HF_HUB_OFFLINE"] = "1"
# Real bases are for the tests that ask for them alone; under another name, the workers of pytest-xdist inherit them.
if "SPEECHVERSE_FOUNDATIONS" in os.environ:
    os.environ["TESTS_FOUNDATIONS"] = os.environ.pop("SPEECHVERSE_FOUNDATIONS")

import huggingface_hub  # noqa: E402
import pytest  # noqa: E402
from hub_standin import HubStandIn  # noqa: E402
from huggingface_hub import constants  # noqa: E402


@pytest.fixture
def hub():
    """A stand-in for the Hub; fails the test if a request came that it does not know."""
    with HubStandIn() as hub:
        yield hub
    assert hub.unhandled == []


@pytest.fixture
def hub_in_process(hub, tmp_path, monkeypatch):
    """Lets `huggingface_hub` in this process, which read the environment when the tests were offline, ask the stand-in."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "ENDPOINT", hub.url)
    files = f"{hub.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", files)
    monkeypatch.setattr(constants, "AGENT_HARNESSES_PATH", str(tmp_path / "agents.json"))
    monkeypatch.setenv("HF_TOKEN", HubStandIn.OWNER)
    huggingface_hub.close_session()
    yield
    huggingface_hub.close_session()


@pytest.fixture(scope="session")
def flan_t5_small():
    """The folder of the real one; a test that wants it is skipped where there is none."""
    folder = Path(os.environ.get("TESTS_FOUNDATIONS", "nowhere")) / "flan-t5-small"
    if not folder.is_dir():
        pytest.skip("$SPEECHVERSE_FOUNDATIONS holds no flan-t5-small")
    return folder
