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


RESUME_ADVICE = "What the Hub has received it keeps: give the command again."

# Of an earlier release, what this one does not bring again is deleted.
REPLACED_FILES = ["*.safetensors", "*.safetensors.index.json", "*.py", "results.json", "run.json", "loss.png"]


def publish(
    checkpoint: str | Path,
    repo_id: str,
    *,
    private: bool = False,
    branch: str | None = None,
    pull_request: bool = False,
    license: str | None = None,
    dtype: str | None = None,
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
        license, dtype: see [`~release.write_release`].
        message (`str`, *optional*): the commit's.

    Returns:
        `str`: address of the commit, or of the pull request.

    Raises:
        ValueError: if the checkpoint cannot be published, or the repository cannot be used so; says why.
        OSError: if the upload broke off.
    """
    with tempfile.TemporaryDirectory() as folder:
        write_release(checkpoint, folder, repo_id=repo_id, license=license, dtype=dtype)
        ModelCard.load(Path(folder) / "README.md").validate()
        api = HfApi()
        if not pull_request:
            _create_repository(api, repo_id, private)
        if branch is not None:
            api.create_branch(repo_id, branch=branch, exist_ok=True)
        present = api.list_repo_files(repo_id, revision=branch)
        try:
            commit = api.create_commit(  # upload_folder would make several commits of a large folder
                repo_id,
                _operations(Path(folder), present),
                commit_message=message or f"Publish {repo_id.split('/')[-1]}",
                revision=branch,
                create_pr=pull_request,
            )
        except RuntimeError as error:  # how huggingface_hub says that a file did not arrive
            raise OSError(f"{error} {RESUME_ADVICE}") from error
    return commit.pr_url or commit.commit_url


def _operations(folder: Path, present: list[str]) -> list:
    """Every file of the release comes, and what only an earlier release had goes."""
    released = {file.name: file for file in sorted(folder.iterdir())}
    outdated = [
        name for name in present if name not in released and any(fnmatch(name, pattern) for pattern in REPLACED_FILES)
    ]
    return [
        *(CommitOperationAdd(path_in_repo=name, path_or_fileobj=file) for name, file in released.items()),
        *(CommitOperationDelete(path_in_repo=name) for name in outdated),
    ]


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
    options = parser.parse_args()
    if options.private and options.pull_request:
        parser.error("--private makes a repository; a pull request is for one that is there.")
    return options


def _rehearse(options: argparse.Namespace) -> None:
    """Writes the folder that would be sent."""
    folder = options.dry_run
    if folder.exists() and any(folder.iterdir()):
        raise ValueError(f"{folder} is not empty: name a new folder for the dry run.")
    folder.mkdir(parents=True, exist_ok=True)
    try:
        write_release(
            options.checkpoint, folder, repo_id=options.repo_id, license=options.license, dtype=options.dtype
        )
    except Exception:
        shutil.rmtree(folder)
        raise
    for file in sorted(folder.iterdir()):
        print(f"{file.stat().st_size:12,} bytes  {file.name}")
    print(f"Nothing was sent. This is what would be, to {options.repo_id}: {folder}")


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
        raise SystemExit("The Hub does not know you: log in with `hf auth login`, or set HF_TOKEN.") from error
    except RepositoryNotFoundError as error:
        raise SystemExit(
            f"The Hub has no repository {options.repo_id}, or does not let you see it: check the name and `hf auth whoami`."
        ) from error
    except HfHubHTTPError as error:
        raise SystemExit(f"The Hub refused or broke off ({error}). {RESUME_ADVICE}") from error
    except httpx.TransportError as error:
        raise SystemExit(f"The Hub cannot be reached ({error}): nothing was sent.") from error
    except (OSError, ValueError) as error:
        raise SystemExit(str(error)) from error


if __name__ == "__main__":
    main()
