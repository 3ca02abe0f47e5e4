"""Sharing a student on the Hugging Face hub."""

from __future__ import annotations

from pathlib import Path

from advloss import OptionError


def create_repository(name: str, *, private: bool = False) -> str:
    """Create a model repository on the hub unless there is one. Call it before training: a missing login is known then.

    Args:
        name: ``"user/model"``, or ``"model"`` of the user who is logged in.

    Returns:
        The whole name.

    Raises:
        OptionError: nobody is logged in, the name is none, or the hub does not answer.
    """
    import huggingface_hub

    try:
        return str(huggingface_hub.create_repo(name, private=private, exist_ok=True).repo_id)
    except Exception as error:  # networks, tokens and names raise of all kinds
        raise OptionError(
            f"the hub takes no model {name!r} from here ({_line(error)}): log in with `hf auth login`, check the name, or "
            "train without pushing"
        ) from error


def push_folder(folder: Path, name: str) -> str:
    """Upload a folder, as `save_pipeline` or `save_adapter` left it, to a repository that is there; returns its address.

    Raises:
        OptionError: it could not be uploaded; the folder is as it was.
    """
    import huggingface_hub

    try:
        huggingface_hub.upload_folder(repo_id=name, folder_path=folder, commit_message="A student of few steps")
    except Exception as error:
        raise OptionError(
            f"{folder} is whole, but could not be uploaded ({_line(error)}): try again with `hf upload {name} {folder}`"
        ) from error
    return f"{huggingface_hub.constants.ENDPOINT}/{name}"


def _line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
