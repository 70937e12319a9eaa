"""Publishes a checkpoint on the Hugging Face Hub: model, processor, code, card and results, in one commit.

    python model_cards/publish.py runs/demo/checkpoint org/name

`--dry-run` writes the folder that would be sent and sends nothing. A command that was interrupted is given again: what
the Hub has already is not sent twice.
"""

import argparse
import logging
import shutil
import tempfile
from fnmatch import fnmatch
from pathlib import Path

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, ModelCard
from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError, RepositoryNotFoundError
from huggingface_hub.utils import httpx, validate_repo_id

from speechverse.model_cards.release import write_release


LOGIN_ADVICE = "The Hub does not know you: log in with `hf auth login`, or set HF_TOKEN."
RESUME_ADVICE = "What the Hub has received it keeps: give the command again."

logger = logging.getLogger(__name__)

# What an earlier release may have brought and this one does not is deleted: it would be loaded beside it. Whatever else
# is in the repository stays.
REPLACED_FILES = (
    "model*.safetensors",
    "model.safetensors.index.json",
    "generation_config.json",
    "preprocessor_config.json",
    "tokenizer.*",
    "spiece.model",
    "vocab.*",
    "merges.txt",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "evaluation/*/results.json",
    "run.json",
    "loss.png",
    "training.png",
)
TEMPLATES_FOLDER = "additional_chat_templates/"  # the only folder that a processor writes


def publish(
    checkpoint: str | Path,
    repo_id: str,
    *,
    private: bool = False,
    branch: str | None = None,
    pull_request: bool = False,
    license: str | None = None,
    dtype: str | None = None,
    emissions: dict | None = None,
    message: str | None = None,
) -> str:
    """Sends a checkpoint to the Hub as one commit.

    Args:
        checkpoint (`str` or `Path`): folder of a finished run, or one of its checkpoints.
        repo_id (`str`): `org/name`; made if it is not there.
        private (`bool`, *optional*, defaults to `False`): make it private.
        branch (`str`, *optional*): branch to commit to, made if it is not there; by default `main`.
        pull_request (`bool`, *optional*, defaults to `False`): propose the commit to a repository that is there, in
            place of making it.
        license, dtype, emissions: see [`~release.write_release`].
        message (`str`, *optional*): the commit's.

    Returns:
        `str`: address of the commit, or of the pull request.

    Raises:
        ValueError: if the checkpoint cannot be published, or the repository cannot be used so; says why.
        OSError: if the upload broke off.
    """
    if license is None:
        logger.warning(
            "No --license is given: the card will say so. That of the training data binds what was learned."
        )
    with tempfile.TemporaryDirectory() as folder:
        write_release(checkpoint, folder, repo_id=repo_id, license=license, dtype=dtype, emissions=emissions)
        ModelCard.load(Path(folder) / "README.md").validate()
        api = HfApi()
        if not pull_request:
            _create_repository(api, repo_id, private)
        if branch is not None:
            api.create_branch(repo_id, branch=branch, exist_ok=True)
        present = api.model_info(repo_id, revision=branch)
        try:
            commit = api.create_commit(  # upload_folder would make several commits of a large folder
                repo_id,
                _operations(Path(folder), [file.rfilename for file in present.siblings]),
                commit_message=message or f"Publish {repo_id.split('/')[-1]}",
                revision=branch,
                create_pr=pull_request,
                parent_commit=present.sha,  # what has come since is not undone unseen
            )
        except RuntimeError as error:  # how huggingface_hub says that a file did not arrive
            raise OSError(f"{error} {RESUME_ADVICE}") from error
    return commit.pr_url or commit.commit_url


def _operations(folder: Path, present: list[str]) -> list:
    """Every file of the release comes, and what only an earlier release had goes."""
    released = {file.relative_to(folder).as_posix(): file for file in sorted(folder.rglob("*")) if file.is_file()}
    outdated = [name for name in present if name not in released and _is_of_a_release(name)]
    if outdated:
        logger.warning(f"Of an earlier release these are deleted: {', '.join(outdated)}.")
    if "README.md" in present:
        logger.warning("README.md is replaced by the new card; the repository's history keeps the old one.")
    return [
        *(CommitOperationAdd(path_in_repo=name, path_or_fileobj=file) for name, file in released.items()),
        *(CommitOperationDelete(path_in_repo=name) for name in outdated),
    ]


def _is_of_a_release(name: str) -> bool:
    # A star stands for no slash: `adapters/model.safetensors` is somebody's own.
    patterns = (pattern for pattern in REPLACED_FILES if pattern.count("/") == name.count("/"))
    return name.startswith(TEMPLATES_FOLDER) or any(fnmatch(name, pattern) for pattern in patterns)


def _create_repository(api: HfApi, repo_id: str, private: bool) -> None:
    api.create_repo(repo_id, private=private or None, exist_ok=True)
    if private and not api.model_info(repo_id).private:
        raise ValueError(f"{repo_id} is there already and is public: --private does not hide it. Choose another name.")


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path, help="folder of a finished run, or one of its checkpoints")
    parser.add_argument("repo_id", help="org/name on the Hub")
    parser.add_argument("--private", action="store_true", help="make the repository private")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--branch", help="commit to this branch, made if it is not there (default: main)")
    where.add_argument("--pull-request", action="store_true", help="propose the commit as a pull request")
    parser.add_argument("--dry-run", metavar="FOLDER", type=Path, help="write what would be sent there; send nothing")
    parser.add_argument("--license", help="of the adapter, as the Hub spells it; that of its training data counts too")
    parser.add_argument(
        "--dtype", choices=("float32", "bfloat16"), help="of the published weights (default: as saved)"
    )
    parser.add_argument("--message", help="the commit's message")
    parser.add_argument("--co2-grams", type=float, help="of CO2 equivalents that training emitted, if you know them")
    parser.add_argument("--co2-source", help="how you know, such as the tool that measured them")
    options = parser.parse_args()
    if (options.co2_grams is None) != (options.co2_source is None):
        parser.error("--co2-grams and --co2-source go together: a figure without its source says nothing.")
    grams, source = options.co2_grams, options.co2_source
    options.emissions = None if grams is None else {"emissions": grams, "source": source}
    del options.co2_grams, options.co2_source
    if options.private and options.pull_request:
        parser.error("--private makes a repository; a pull request is for one that is there.")
    return options


def _rehearse(options: argparse.Namespace) -> None:
    """Writes the folder that would be sent."""
    target = options.dry_run
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ValueError(f"{target} is there already: name a new folder for the dry run.")
    with tempfile.TemporaryDirectory() as folder:  # so that a release that is refused leaves nothing behind
        write_release(
            options.checkpoint,
            folder,
            repo_id=options.repo_id,
            license=options.license,
            dtype=options.dtype,
            emissions=options.emissions,
        )
        shutil.copytree(folder, target, dirs_exist_ok=True)
    for file in sorted(target.rglob("*")):
        print(f"{file.stat().st_size:12,} bytes  {file.relative_to(target)}")
    print(f"Nothing was sent. This is what would be, to {options.repo_id}: {target}")


def main() -> None:
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    options = _parse_arguments()
    try:
        validate_repo_id(options.repo_id)
        if options.dry_run is not None:
            _rehearse(options)
            return
        arguments = vars(options)
        del arguments["dry_run"]
        print(publish(**arguments))
    except LocalTokenNotFoundError as error:
        raise SystemExit(LOGIN_ADVICE) from error
    except RepositoryNotFoundError as error:
        raise SystemExit(
            f"The Hub has no repository {options.repo_id}, or does not let you see it: check the name and `hf auth whoami`."
        ) from error
    except HfHubHTTPError as error:
        if error.response.status_code == 401:
            raise SystemExit(LOGIN_ADVICE) from error
        raise SystemExit(f"The Hub refused or broke off ({error}). {RESUME_ADVICE}") from error
    except httpx.ConnectError as error:
        raise SystemExit(f"The Hub cannot be reached ({error}). {RESUME_ADVICE}") from error
    except httpx.TransportError as error:
        raise SystemExit(f"The connection to the Hub was lost ({error}). {RESUME_ADVICE}") from error
    except (OSError, ValueError) as error:
        raise SystemExit(str(error)) from error


if __name__ == "__main__":
    main()
