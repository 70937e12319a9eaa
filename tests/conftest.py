"""Settings that every test shares."""

import os


# No test may reach a hub: what would is a mistake, and should fail at once.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.pop("SPEECHVERSE_FOUNDATIONS", None)
