"""`selftrain push`: a delivered model and its card, to the Hugging Face hub.

    upload = plan_upload("runs/quickstart", "owner/name", private=True)
    print(upload.text())              # which files go where, and what happens to those that are there
    print(carry_out(upload))          # the page's address

Files go by their names, from the top of the model folder: weights, configuration, tokenizer, `selftrain.json`, card.
So nothing else of a run can go with them, no problem and no sample; what else lies in the folder is named and left out.
All files come in one commit, so that the hub never shows half a model. Nothing is deleted there.
Tested against a server on this machine that stands in for the hub, never against the hub itself.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterator
from pathlib import Path

from selftrain import __version__, model_hub
from selftrain.card import CARD_FILE, SETTINGS
from selftrain.errors import ConfigError, ModelError, RunError
from selftrain.report.text import clean
from selftrain.report.wording import count
from selftrain.userpath import user_path
from selftrain.weights import INDEX, model_folder, wanted_files

SMALL_FILES = frozenset({
    "config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json",
    "added_tokens.json", "vocab.json", "vocab.txt", "merges.txt", "chat_template.jinja", SETTINGS, CARD_FILE, "LICENSE",
})  # fmt: skip
WHOLE = "model.safetensors"
MAX_NAME = 96  # characters, on the hub
_PART = r"[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_])?"
_NAME = re.compile(f"{_PART}/{_PART}")
LOGIN = "Make a token that may write (https://huggingface.co/settings/tokens), then `hf auth login`, or set HF_TOKEN."


@dataclasses.dataclass(frozen=True, slots=True)
class Remote:
    """A repository that is on the hub: whether it is private, its newest commit, the names of its files."""

    private: bool
    commit: str | None
    files: tuple[str, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class Upload:
    """What is to go where: name -> bytes of each file, the user who is logged in, the repository if it is there."""

    folder: Path
    repo: str
    private: bool
    files: dict[str, int]
    left_out: tuple[str, ...]
    user: str
    remote: Remote | None

    def text(self) -> str:
        """The files with their sizes, and what happens on the hub."""
        return "\n".join(map(clean, self._lines()))

    def _lines(self) -> Iterator[str]:
        seen_by = "private" if self.private else "public"
        there = f"there already, {seen_by}" if self.remote else f"new, {seen_by}"
        yield f"{self.folder} -> {self.repo} ({there}), as {self.user}:"
        width = max(map(len, self.files))
        yield from (f"  {name:<{width}}  {size_text(size):>9}" for name, size in self.files.items())
        yield f"{len(self.files)} files, {size_text(sum(self.files.values()))}."
        if self.left_out:
            yield f"Left out, as no part of a model: {', '.join(self.left_out)}."
        if self.remote:
            replaced = [name for name in self.remote.files if name in self.files]
            kept = [name for name in self.remote.files if name not in self.files]
            yield f"Of the files that are there {_named(replaced)} replaced (the old ones stay in its history)."
            yield f"Left as they are there: {', '.join(kept) or 'none'}."


def size_text(size: int) -> str:
    """Bytes as people say them.

    >>> size_text(827), size_text(538_090_408)
    ('827 B', '538.1 MB')
    """
    for unit, name in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if size >= unit:
            return f"{size / unit:.1f} {name}"
    return f"{count(size)} B"


def _named(names: list[str]) -> str:
    return f"{', '.join(names)} {'is' if len(names) == 1 else 'are'}" if names else "none is"


def plan_upload(run_or_model: Path | str, repo: str, *, private: bool = False) -> Upload:
    """Look at the folder and at the hub; changes nothing.

    Args:
        run_or_model: a run folder that has delivered its model, or a model folder with a card.
        repo: owner/name on the hub.
        private: make a new repository that only its owner sees; one that is public already is refused.

    Raises:
        ConfigError: no owner/name, or --private for a public repository.
        RunError: the run has not delivered a model.
        ModelError: the folder is no whole model with a card, nobody is logged in, the hub cannot be asked, or other
            weights are there.
    """
    _check_name(repo)
    folder = _folder_of(user_path(run_or_model))
    files, left_out = files_of(folder)
    try:
        user = _user()
        remote = _remote(repo)
    except model_hub.HubError as error:
        raise ModelError(f"{repo}: nothing was uploaded: {error}.") from error
    if remote is not None:
        _check_remote(repo, remote, private, files)
    seen_by_few = remote.private if remote is not None else private
    return Upload(folder, repo, seen_by_few, files, left_out, user, remote)


def carry_out(upload: Upload) -> str:
    """Make the repository where it is not there, and upload the files in one commit; returns the page's address.

    Raises:
        ModelError: the hub refused, or could not be reached.
    """
    from huggingface_hub import CommitOperationAdd, HfApi, constants

    api, state = HfApi(), "nothing has changed there"
    try:
        if upload.remote is None:
            api.create_repo(upload.repo, private=upload.private)
            state = "the repository was made and is empty"
        api.create_commit(
            upload.repo,
            [CommitOperationAdd(name, str(upload.folder / name)) for name in upload.files],
            commit_message=f"Model trained by selftrain {__version__}",
            parent_commit=upload.remote.commit if upload.remote else None,
        )
    except Exception as error:  # the client's errors differ between its versions, with no root
        hint = f"The same command tries again. {upload.user} needs a token that may write to {upload.repo}."
        raise ModelError(f"{upload.repo}: not uploaded, {state} ({_why(error)}).", hint) from error
    return f"{constants.ENDPOINT}/{upload.repo}"


def _why(error: BaseException) -> str:
    """What the hub said, or the client; of the error and of what caused it."""
    told = str(getattr(error, "server_message", None) or model_hub.first_line(error))
    cause = None if hasattr(error, "server_message") else error.__cause__
    return told if cause is None else f"{told} {_why(cause)}"


def _check_name(repo: str) -> None:
    """The hub's own rules for names, before anything is asked."""
    wrong = len(repo) > MAX_NAME or "--" in repo or ".." in repo or repo.endswith(".git")
    if wrong or not _NAME.fullmatch(repo):
        raise ConfigError(
            f"expected owner/name of letters, digits, '-', '_' and '.', got {repo!r}.",
            "Name yourself or an organisation, and the model: selftrain push runs/quickstart ann/my-model",
        )


def _folder_of(folder: Path) -> Path:
    """The model folder that is meant: a run's delivered one, or the folder itself."""
    if not folder.is_dir():
        raise ModelError(f"{folder}: expected a run folder or a model folder, there is none.")
    if not (folder / "config.yaml").is_file():
        return model_folder(folder)
    if not (folder / "model").is_dir():
        raise RunError(
            f"{folder}: this run has not delivered its model.", "Run the same `selftrain run` again to go on."
        )
    return model_folder(folder / "model")


def files_of(folder: Path) -> tuple[dict[str, int], tuple[str, ...]]:
    """name -> bytes of what goes, the card first and the weights last; and what is left out."""
    names = {entry.name for entry in folder.iterdir()}
    parts = {INDEX, *(name for name in wanted_files(names) if name.endswith(".safetensors"))}
    weights = {WHOLE} if WHOLE in names else parts  # loaders take the whole file where both are there
    small = names & SMALL_FILES | {name for name in names if name.endswith(".model")}  # tokenizers of SentencePiece
    going = [*sorted(small, key=lambda name: (name != CARD_FILE, name)), *sorted(weights)]
    if CARD_FILE not in names:
        raise ModelError(
            f"{folder}: expected a card (README.md), which a delivered model has.",
            "Write one that says what the model is and what it was trained on, or name the run's folder.",
        )
    for name in going:
        if (folder / name).is_symlink() or not (folder / name).is_file():
            raise ModelError(f"{folder / name}: expected a file, got a link or a folder.", "Copy the file there.")
    return {name: (folder / name).stat().st_size for name in going}, tuple(sorted(names - set(going)))


def _user() -> str:
    """Who is logged in, with a token that may write."""
    from huggingface_hub import get_token

    if model_hub.switched_off():
        raise ModelError("HF_HUB_OFFLINE is set, so that the hub cannot be asked.", "Unset it for this command.")
    if get_token() is None:
        raise ModelError("Nobody is logged in to the hub.", LOGIN)
    status, body = model_hub.ask("whoami-v2")
    if status == 401:
        raise ModelError("The hub does not take the token that is stored here (expired, or deleted).", LOGIN)
    try:
        told = json.loads(body)
        name, role = str(told["name"]), told.get("auth", {}).get("accessToken", {}).get("role")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise model_hub.HubError(f"the hub's answer cannot be used (status {status})") from error
    if role == "read":
        raise ModelError(f"{name} is logged in with a token that may only read.", LOGIN)
    return name


def _remote(repo: str) -> Remote | None:
    """The repository, if there is one that the user may see."""
    status, body = model_hub.ask(f"models/{repo}")
    if status == 404:
        return None
    try:
        told = json.loads(body)
        name, files = str(told["id"]), tuple(str(row["rfilename"]) for row in told["siblings"])
        remote = Remote(bool(told["private"]), told.get("sha"), files)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise model_hub.HubError(f"the hub's answer cannot be used (status {status})") from error
    if name != repo:
        raise ConfigError(f"{repo}: the hub calls this repository {name}.", "Name it so if you mean it.")
    return remote


def _check_remote(repo: str, remote: Remote, private: bool, files: dict[str, int]) -> None:
    """Refuse what the user would be surprised by afterwards."""
    if private and not remote.private:
        raise ConfigError(
            f"{repo} is there and public; --private makes new repositories private, and no others.",
            "Change it in its settings on the hub first, or name another repository.",
        )
    other = [
        name for name in remote.files if name not in files and (name == INDEX or name.endswith(".safetensors"))
        and "/" not in name
    ]  # fmt: skip
    if other:
        raise ModelError(
            f"{repo} holds other weights, which would stay beside yours and could be loaded in their place: "
            f"{clean(', '.join(other))}.",
            "Delete them there first, or name another repository.",
        )
