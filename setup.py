"""`pip install .` installs one package, `speechverse`, made of this checkout's folders."""

import re
from pathlib import Path

from setuptools import find_packages, setup


ROOT = Path(__file__).parent
FOLDERS = ("modeling_speechverse", "processing", "model_cards", "training", "evaluation")

packages = [package for folder in FOLDERS for package in find_packages(include=[folder, f"{folder}.*"])]
version = re.search(r'"(.+)"', (ROOT / "speechverse" / "version.py").read_text())[1]

# transformers is pinned because its own tests are run, too.
TEST = [
    "hypothesis",
    "markdown-it-py",
    "parameterized",
    "pytest",
    "pytest-xdist",
    "ruff==0.17.6",
    "transformers==5.23.0",
]
QUANTISERS = ["bitsandbytes>=0.50", "torchao>=0.18"]  # both have a CPU path, so their tests run anywhere
extras = {
    "train": ["deepspeed>=0.19", "jiwer>=4", "tensorboard", "pyyaml", "matplotlib", "tqdm"],
    "eval": [
        "evaluate>=0.4.6",
        "jiwer>=4",
        "matplotlib",
        "py3langid>=0.4",  # tells the language of free answers
        "rapidfuzz",
        "sacrebleu",
        "scipy",
        "whisper-normalizer>=0.1.15",
    ],
    "browser": ["playwright"],  # looks at reports; it takes the system's Chromium
    "data": ["yake"],  # finds keywords; LGPL, and needed for nothing else
    "long": ["silero-vad>=6.2"],  # finds the silences that long recordings are cut at
    "tts": ["py-nanotts", "hibari-tts", "scipy"],
    "demo": ["py-nanotts", "hibari-tts", "onnx", "gguf", "scipy", "tensorboard", "pyyaml", "matplotlib", "tqdm"],
}
used = ("data", "demo", "eval", "long", "train", "tts")
extras["dev"] = sorted({*(package for name in used for package in extras[name]), *TEST, *QUANTISERS})

setup(
    name="speechverse",
    version=version,
    description="Audio-language models from a frozen speech encoder and any frozen text LLM",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.10",
    packages=["speechverse", *(f"speechverse.{package}" for package in packages)],
    package_dir={
        "speechverse": "speechverse",
        **{f"speechverse.{package}": package.replace(".", "/") for package in packages},
    },
    package_data={
        "speechverse": ["py.typed"],
        "speechverse.processing": ["tasks/*.yaml"],
        "speechverse.evaluation.harness": ["example/*"],
        "speechverse.model_cards": ["*.jinja"],
        "speechverse.evaluation": ["*.jinja", "suites/*.yaml"],
        "speechverse.training": ["accelerate/*.yaml", "configs/*.yaml", "configs/tasks/*.yaml"],
        "speechverse.training.data": ["corpora/*.yaml"],
    },
    install_requires=[
        "torch>=2.7",
        "transformers>=5.23,<6",
        "accelerate>=1.10",
        "datasets>=4",
        "peft>=0.19",
        "huggingface_hub>=1",
        "jinja2",
        "safetensors",
        "soundfile>=0.13",
        "soxr",
        "numpy",
        "pyyaml",
    ],
    extras_require=extras,
    entry_points={
        "console_scripts": [
            "speechverse-train-classifier = speechverse.evaluation.baselines.train_classifier:main",
            "speechverse-evaluate = speechverse.evaluation.run:main",
            "speechverse-report = speechverse.evaluation.report:main",
            "speechverse-calibrate = speechverse.evaluation.calibrate:main",
            "speechverse-align = speechverse.training.align_projector:main",
            "speechverse-train = speechverse.training.train:main",
            "speechverse-cache = speechverse.training.cache_features:main",
            "speechverse-publish = speechverse.model_cards.publish:main",
            "speechverse-foundations = speechverse.training.foundations:main",
            "speechverse-sentences = speechverse.training.data.sentences:main",
            "speechverse-prepare = speechverse.training.data.prepare:main",
            "speechverse-mini = speechverse.training.data.make_mini:main",
            "speechverse-synthesize = speechverse.training.data.synthesize:main",
            "speechverse-lm-eval-results = speechverse.evaluation.lm_eval_results:main",
        ],
        "lmms_eval.models": ["speechverse = speechverse.evaluation.harness.lmms_eval_speechverse:manifest"],
    },
)
