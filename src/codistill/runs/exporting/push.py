"""An export sent to the Hugging Face Hub. Its token is that of huggingface_hub's own settings."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from codistill.errors import InputError, reason
from codistill.importing import optional

_PURPOSE = "--push"


def require_login(repository: str) -> None:
    """Raises InputError if the Hub cannot be reached, or knows nobody by this token."""
    if repository.count("/") != 1 or not all(repository.split("/")):
        raise InputError(f"--push {repository!r} is no repository: give OWNER/NAME")
    with _answering(repository) as api:
        api.whoami()


def push(folder: Path, repository: str) -> str:
    """Sends the files of an export in one commit, makes the repository where needed; its address.

    Raises:
        InputError: the Hub refuses it, or cannot be reached. The folder stays as it is.
    """
    with _answering(repository) as api:
        api.create_repo(repository, exist_ok=True)
        done = api.upload_folder(
            repo_id=repository, folder_path=folder, commit_message="Export of codistill"
        )
    return str(getattr(done, "repo_url", None) or done)


@contextlib.contextmanager
def _answering(repository: str) -> Iterator[Any]:
    """The Hub's interface; its errors become one line."""
    hub = optional("huggingface_hub", _PURPOSE)
    try:
        yield hub.HfApi()
    except Exception as error:  # of several HTTP libraries, by version
        refused = type(error).__module__.startswith(
            ("huggingface_hub", "requests", "http", "urllib")
        )
        if not refused and not isinstance(error, OSError):
            raise
        raise InputError(
            f"the Hub takes nothing for {repository} ({reason(error)}): log in by `hf auth login` "
            "or set HF_TOKEN to a token that may write there"
        ) from error
