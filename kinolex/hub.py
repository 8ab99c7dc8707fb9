"""A name becomes a loaded tokenizer: shipped weights, a folder, or a hub repository.

"video-nano" -> kinolex/pretrained/video-nano      "runs/x/weights" -> that folder      "owner/name" -> the hub
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Literal, overload

from kinolex import checkpoint
from kinolex.codec.priors import PlainPrior, Prior
from kinolex.codec.priors import load_prior as load_prior_file
from kinolex.errors import CheckpointError, MissingExtra, UnknownModel, UsageError
from kinolex.layers.conv3d import channels_last
from kinolex.models.clip_features import ClipFeatures
from kinolex.models.frozen_lm import FrozenLM
from kinolex.tokenizers.sound import SoundTokenizer
from kinolex.tokenizers.spae import Spae
from kinolex.tokenizers.video import VideoTokenizer

PRETRAINED = Path(__file__).parent / "pretrained"
DEFAULT = "video-nano"
SOUND = "sound-nano"
CLIP_FEATURES = "clip-features-nano"
LANGUAGE_MODEL, WORD_TOKENIZER = "text-nano", "spae-nano"


def shipped(what: str | None = checkpoint.TOKENIZER) -> list[str]:
    """Names of the networks inside the package: of one kind as kinolex.checkpoint.KINDS names it, or all (None)."""
    folders = (path.parent for path in PRETRAINED.glob(f"*/{checkpoint.CONFIG}"))
    return sorted(folder.name for folder in folders if what is None or checkpoint.what_is(folder) == what)


def locate(name: str | Path, *kinds: str) -> Path:
    """The folder behind a name; fetches from the hub when the name is owner/repository and no such folder exists.

    Args:
        kinds: that are wanted, as kinolex.checkpoint.KINDS names them, so that an unknown name is told theirs alone.

    Raises:
        UnknownModel: neither shipped, a folder, nor a repository name.
        MissingExtra: a repository is named and huggingface_hub is not installed.
    """
    if (PRETRAINED / str(name) / checkpoint.CONFIG).is_file():
        return PRETRAINED / str(name)
    if Path(name).is_dir():
        return Path(name)
    parts = str(name).split("/")
    if len(parts) == 2 and all(parts) and not str(name).startswith("."):
        return _fetch(str(name))
    raise _unknown(name, *kinds)


def _unknown(name: str | Path, *kinds: str) -> UnknownModel:
    names = [one for kind in kinds or (None,) for one in shipped(kind)]
    return UnknownModel(
        f"no {' or '.join(kinds) or 'model'} {str(name)!r}: it is neither shipped ({', '.join(names) or 'none'}), "
        "nor a folder, nor a hub repository (owner/name)"
    )


@overload
def load(name: Literal["sound-nano"]) -> SoundTokenizer: ...  # type: ignore[overload-overlap]
@overload
def load(name: str | Path = DEFAULT) -> VideoTokenizer: ...
def load(name: str | Path = DEFAULT) -> VideoTokenizer | SoundTokenizer:
    """The tokenizer behind a name, of pictures or of sound. Raises as locate and checkpoint.load do."""
    folder = locate(name, checkpoint.TOKENIZER, checkpoint.SOUND_TOKENIZER)
    if checkpoint.what_is(folder) == checkpoint.SOUND_TOKENIZER:
        return checkpoint.load_sound(folder)
    return checkpoint.load(folder)


def load_sound(name: str | Path = SOUND) -> SoundTokenizer:
    """The sound tokenizer behind a name. Raises as locate and checkpoint.load_sound do."""
    return checkpoint.load_sound(locate(name, checkpoint.SOUND_TOKENIZER))


def load_clip_features(name: str | Path = CLIP_FEATURES) -> ClipFeatures:
    """The clip feature network behind a name, frozen. Raises as locate and checkpoint.load_module do."""
    model, _ = checkpoint.load_module(locate(name, checkpoint.CLIP_FEATURES), checkpoint.CLIP_FEATURES)
    assert isinstance(model, ClipFeatures)
    return channels_last(model.eval().requires_grad_(False))


def load_lm(name: str | Path = LANGUAGE_MODEL) -> FrozenLM:
    """The language model behind a name: shipped, a folder (of checkpoint.save_lm or of transformers), or a hub
    repository of a causal model.

    Raises:
        UnknownModel, CheckpointError, MissingExtra: as FrozenLM.load.
    """
    folder = PRETRAINED / str(name)
    folder = folder if (folder / checkpoint.CONFIG).is_file() else Path(name)
    if not folder.is_dir() and len(folder.parts) != 2:
        raise _unknown(name, checkpoint.LANGUAGE_MODEL)
    if folder.parent == PRETRAINED and (what := checkpoint.what_is(folder)) != checkpoint.LANGUAGE_MODEL:
        raise CheckpointError(f"{name} is a {what}, and a language model is needed, such as {LANGUAGE_MODEL}")
    return checkpoint.load_lm(folder) if (folder / checkpoint.INT8).is_file() else FrozenLM.load(folder)


def load_spae(name: str | Path = WORD_TOKENIZER) -> tuple[Spae, str]:
    """The word tokenizer behind a name, frozen, and its fingerprint. Raises as locate and checkpoint.load_module do."""
    model, fingerprint = checkpoint.load_module(locate(name, checkpoint.WORD_TOKENIZER), checkpoint.WORD_TOKENIZER)
    assert isinstance(model, Spae)
    return channels_last(model.eval().requires_grad_(False)), fingerprint


def name_of(fingerprint: str) -> str:
    """The shipped tokenizer, of pictures or of sound, with this fingerprint.

    Raises:
        UnknownModel: none has it.
    """
    names = shipped() + shipped(checkpoint.SOUND_TOKENIZER)
    for name in names:
        if checkpoint.read_description(PRETRAINED / name)["fingerprint"] == fingerprint:
            return name
    raise UnknownModel(
        f"no shipped model has fingerprint {fingerprint[:16]} (there are {', '.join(names)}); "
        "name the one that made the file"
    )


def load_prior(name: str | Path, tokenizer: VideoTokenizer) -> Prior:
    """The codec's prior of a model: the trained one beside its weights, or the plain one where there is none.

    Raises:
        UnknownModel: as locate. CheckpointError: the prior is damaged or made for another vocabulary.
    """
    path = locate(name) / checkpoint.PRIOR
    if not path.is_file():
        return PlainPrior(tokenizer.vocab_size, tokenizer.num_levels)
    prior = load_prior_file(path)
    if prior.vocab_size(tokenizer.num_levels) != tokenizer.vocab_size:
        raise CheckpointError(f"{path} is a prior for another vocabulary than that of {name}; train one for it")
    return prior


def push(folder: str | Path, repository: str, *, private: bool = False) -> str:
    """Upload a checkpoint folder to the hub; returns its address. Needs `pip install kinolex[hub]` and a login.

    Raises:
        MissingFile, CheckpointError: what could not be loaded is not published.
        MissingExtra: huggingface_hub is not installed.
        UsageError: the hub refuses the name or the login, or cannot be reached.
    """
    checkpoint.load_module(folder)  # refuse to publish what could not be loaded
    _require_hub(f"pushing to {repository}")
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    api = HfApi()
    try:
        address = api.create_repo(repository, private=private, exist_ok=True)
        api.upload_folder(repo_id=repository, folder_path=str(folder))
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        raise UsageError(
            f"{folder} cannot be pushed to {repository!r}: {error}; give owner/name, and log in to the hub"
        ) from error
    return str(address)


def _fetch(repository: str) -> Path:
    _require_hub(f"there is no folder {repository!r} here; taking it for a hub repository")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        wanted = [checkpoint.CONFIG, checkpoint.WEIGHTS, checkpoint.CARD, checkpoint.PRIOR]
        return Path(snapshot_download(repository, allow_patterns=wanted))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise UnknownModel(f"{repository!r} is no folder here and cannot be fetched from the hub: {error}") from error


def _require_hub(purpose: str) -> None:
    if importlib.util.find_spec("huggingface_hub") is None:
        raise MissingExtra(f"{purpose} needs huggingface_hub: pip install 'kinolex[hub]'")
