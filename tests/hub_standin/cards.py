"""The check of a card's front matter."""

import re

import yaml
from huggingface_hub.repocard import REGEX_YAML_BLOCK


# The identifiers that the Hub accepts, as its own error message lists them.
LICENSES = (
    "apache-2.0 mit openrail bigscience-openrail-m creativeml-openrail-m bigscience-bloom-rail-1.0 "
    "bigcode-openrail-m afl-3.0 artistic-2.0 bsl-1.0 bsd bsd-2-clause bsd-3-clause bsd-3-clause-clear c-uda cc "
    "cc0-1.0 cc-by-2.0 cc-by-2.5 cc-by-3.0 cc-by-4.0 cc-by-sa-3.0 cc-by-sa-4.0 cc-by-nc-2.0 cc-by-nc-3.0 "
    "cc-by-nc-4.0 cc-by-nd-4.0 cc-by-nc-nd-3.0 cc-by-nc-nd-4.0 cc-by-nc-sa-2.0 cc-by-nc-sa-3.0 cc-by-nc-sa-4.0 "
    "cdla-sharing-1.0 cdla-permissive-1.0 cdla-permissive-2.0 wtfpl ecl-2.0 epl-1.0 epl-2.0 etalab-2.0 eupl-1.1 "
    "eupl-1.2 agpl-3.0 gfdl gpl gpl-2.0 gpl-3.0 lgpl lgpl-2.1 lgpl-3.0 isc h-research intel-research lppl-1.3c ms-pl "
    "apple-ascl apple-amlr mpl-2.0 odc-by odbl openmdw-1.0 openrail++ osl-3.0 postgresql ofl-1.1 ncsa unlicense zlib "
    "pddl lgpl-lr deepfloyd-if-license fair-noncommercial-research-license llama2 llama3 llama3.1 llama3.2 llama3.3 "
    "llama4 grok2-community gemma unknown other"
).split()
PIPELINE_TAGS = (
    "any-to-any audio-classification audio-text-to-text audio-to-audio automatic-speech-recognition depth-estimation "
    "document-question-answering feature-extraction fill-mask graph-ml image-classification image-feature-extraction "
    "image-segmentation image-text-to-image image-text-to-text image-text-to-video image-to-3d image-to-image "
    "image-to-text image-to-video keypoint-detection mask-generation multiple-choice object-detection other "
    "question-answering reinforcement-learning robotics sentence-similarity summarization table-question-answering "
    "table-to-text tabular-classification tabular-regression tabular-to-text text-classification text-generation "
    "text-ranking text-retrieval text-to-3d text-to-audio text-to-image text-to-speech text-to-video "
    "time-series-forecasting token-classification translation unconditional-image-generation video-classification "
    "video-text-to-text video-to-video visual-document-retrieval visual-question-answering voice-activity-detection "
    "zero-shot-classification zero-shot-image-classification zero-shot-object-detection"
).split()
REPOSITORY_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
LANGUAGE = re.compile(r"[a-z]{2,3}|code|multilingual")


def check_card(content: str) -> tuple[list[str], list[str]]:
    """The errors and the warnings of a README's metadata, for the fields that the Hub verifies.

    A license must be one that the Hub knows ("other" may come with a `license_name` and a `license_link`), names of
    data sets and models must be ids of the Hub and not paths, languages must be ISO 639 codes, and a model index must
    have its required fields. A card without metadata, and a pipeline tag that the Hub does not know, are warnings.
    """
    block = REGEX_YAML_BLOCK.search(content)
    if block is None or not block[2].strip():
        return [], ["empty or missing yaml metadata in repo card"]
    try:
        card = yaml.safe_load(block[2])
    except yaml.YAMLError as error:
        return [f"Invalid YAML in README.md: {' '.join(str(error).split())}"], []
    if not isinstance(card, dict):
        return ["The metadata of README.md must be a mapping"], []

    errors = []
    for name in ("library_name", "pipeline_tag", "license_name", "license_link", "model_name", "base_model_relation"):
        if name in card and not isinstance(card[name], str):
            errors.append(f'"{name}" must be a string')
    for name in ("tags", "metrics"):
        if name in card and not isinstance(card[name], list):
            errors.append(f'"{name}" must be an array')
    for name in ("tags", "metrics", "license", "language", "datasets", "base_model"):
        values = card.get(name, [])
        for index, value in enumerate(values if isinstance(values, list) else [values]):
            where = f"{name}[{index}]" if isinstance(values, list) else name
            errors += _check_value(name, where, value)
    errors += _check_model_index(card.get("model-index", []))

    warnings = []
    tag = card.get("pipeline_tag")
    if isinstance(tag, str) and tag not in PIPELINE_TAGS:
        warnings.append(f'The pipeline tag "{tag}" is not in the official list: {", ".join(PIPELINE_TAGS)}')
    return errors, warnings


def _check_value(name: str, where: str, value) -> list[str]:
    if not isinstance(value, str):
        return [f'"{where}" must be a string']  # the language `no` without quotes is one: YAML's false
    if name == "license" and value not in LICENSES:
        return [f'"{where}" must be one of [{", ".join(LICENSES)}]']
    if name == "language" and not LANGUAGE.fullmatch(value):
        return [f'"{where}" with value "{value}" is not valid. It must be an ISO 639-1, 639-2 or 639-3 code.']
    if name in ("datasets", "base_model") and not REPOSITORY_ID.fullmatch(value):
        kind = "dataset" if name == "datasets" else "model"
        return [f'"{where}" with value "{value}" is not valid. Use a {kind} id from https://hf.co/{kind}s.']
    return []


# What a model index holds, as the Hub's specification of model cards has it: a field's type, with a mark where it has to be
# there. A list stands for an array of such objects. The Hub passes what the specification does not name.
REQUIRED = True
MODEL_INDEX = [
    {
        "name": (str, REQUIRED),
        "results": (
            [
                {
                    "task": ({"type": (str, REQUIRED), "name": (str, False)}, REQUIRED),
                    "dataset": (
                        {
                            "type": (str, REQUIRED),
                            "name": (str, REQUIRED),
                            "config": (str, False),
                            "split": (str, False),
                            "revision": (str, False),
                            "args": (object, False),
                        },
                        REQUIRED,
                    ),
                    "metrics": (
                        [
                            {
                                "type": (str, REQUIRED),
                                "value": (object, REQUIRED),
                                "name": (str, False),
                                "config": (str, False),
                                "args": (object, False),
                                "verified": (bool, False),
                                "verifyToken": (str, False),
                            }
                        ],
                        REQUIRED,
                    ),
                    "source": ({"url": (str, REQUIRED), "name": (str, False)}, False),
                }
            ],
            REQUIRED,
        ),
    }
]
DATASET_TYPE = re.compile(r"(?:[\w-]+/)?[\w.-]+", re.ASCII)


def _check_model_index(index) -> list[str]:
    """The errors of evaluation results in the form of `model-index`, in the Hub's words."""
    return list(_check_shape("model-index", index, MODEL_INDEX))


def _check_shape(where: str, value, shape):
    if isinstance(shape, list):
        if not isinstance(value, list):
            yield f'"{where}" must be an array'
        else:
            for number, item in enumerate(value):
                yield from _check_shape(f"{where}[{number}]", item, shape[0])
    elif isinstance(shape, dict):
        if not isinstance(value, dict):
            yield f'"{where}" must be of type object'
            return
        for name, (kind, required) in shape.items():
            if required and value.get(name) is None:
                yield f'"{where}.{name}" is required'
            elif name in value:
                yield from _check_shape(f"{where}.{name}", value[name], kind)
    elif shape is bool:
        if not isinstance(value, bool):
            yield f'"{where}" must be a boolean'
    elif shape is str:
        yield from _check_string(where, value)


def _check_string(where: str, value):
    if not isinstance(value, str):
        yield f'"{where}" must be a string'
    elif not value:
        yield f'"{where}" is not allowed to be empty'
    elif where.endswith(".dataset.type") and not DATASET_TYPE.fullmatch(value):
        pattern = r"/^(?:[\w-]+\/)?[\w-.]+$/"
        yield f'"{where}" with value "{value}" fails to match the required pattern: {pattern}'
