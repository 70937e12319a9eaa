"""Encodes the recordings of a run before it is trained.

    accelerate launch training/cache_features.py CONFIG.yaml [--key value ...]

It takes what training/train.py takes, and checks its data in the same way. What the encoder makes of them is kept in
`feature_cache_dir`, where a run with `cache_features: true` finds it. It can be killed and started again at any time, and
several ranks share the work.
"""

import logging
import sys

from speechverse.training.arguments import parse_run_config
from speechverse.training.train import prepare_run


logger = logging.getLogger(__name__)


def main():
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        config = parse_run_config([*sys.argv[1:], "--cache_features", "true"])
        features = prepare_run(config).features
    except (ImportError, OSError, ValueError) as error:
        raise SystemExit(str(error)) from error
    logger.info(f"They are encoded in {features.folder}")


if __name__ == "__main__":
    main()
