"""The weights of a model: given, found in a folder, shipped or published. Importing this loads no torch.

Everywhere, weights are one text: a path, random:SEED for random values, or an address on the Hugging Face Hub
that names one file of one commit. So a store, a run and another machine can name the same file.
"""

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path

from densecli.core import hub
from densecli.core.addresses import from_environment
from densecli.core.errors import DenseCLIError
from densecli.core.fs import file_name
from densecli.core.hub_file import FORM, HUB
from densecli.core.registry import unknown_name
from densecli.models.architecture import Architecture
from densecli.models.open_clip_models import OPEN_CLIP, OPEN_CLIP_TAG
from densecli.models.published import Published
from densecli.models.registry import canonical, is_clip
from densecli.models.vfm_architecture import VFMArchitecture
from densecli.models.vfms import architecture_of, is_vfm
from densecli.shards.kinds import KINDS

FORMS = f"a path, random:SEED, {FORM} or {OPEN_CLIP_TAG}TAG"
_SUFFIXES = (".safetensors", ".pt", ".pth", ".bin")
_RANDOM = re.compile(r"random:([0-9]+)")
# The file of a repository that has no name in the address. A repository of timm may have a whole CLIP in the
# one, and its image tower alone in the other.
_CLIP_FILES = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
_TIMM_FILES = ("model.safetensors", "pytorch_model.bin")


def find_weights(name: str) -> str:
    """Finds the weights of a CLIP or a VFM for which the user gives none.

    Looks for NAME.safetensors, .pt, .pth or .bin in $DENSECLI_WEIGHTS (else ./weights), where NAME is the
    name given or, for an alias, also that of its architecture. Next come weights that ship with the model,
    then those that are published.

    Returns:
        A path, or the address of a file on the hub, which `weights_file` downloads.

    Raises:
        DenseCLIError: There are none, and none are published or can be looked up.
    """
    if here := weights_here(name):
        return str(here)
    if published := published_of(name):
        try:
            return _pinned(name, published.address, published.licence)
        except DenseCLIError as error:
            message = f"There are no weights for {name}: {_absence(*_names(name))}, and {error}"
            raise type(error)(message, hint=error.hint.replace("NAME=", f"{name}=")) from None
    raise _no_weights(name)


def weights_here(name: str) -> Path | None:
    """The file in the folder of weights, or that ships with the model; None if there is neither."""
    shipped = architecture_of(name).weights
    return _in_folder(_names(name)) or (Path(shipped) if shipped else None)


def find_file(*names: str) -> Path:
    """Finds the first file in the folder of weights with one of these names, for weights that never ship.

    Raises:
        DenseCLIError: There is none; the message says where it was expected.
    """
    if found := _in_folder(names):
        return found
    raise _no_weights(*names)


def located(name: str, weights: str | None = None) -> str:
    """The weights of a model as one text: a path, random:SEED, or a file of one commit on the hub.

    Args:
        name: A model's name or alias.
        weights: A path, random:SEED, hf-hub:ORG/REPO[/FILE][@REVISION] or open_clip:TAG; by default what
            `find_weights` finds.

    Raises:
        DenseCLIError: The seed, the address or the tag is none, or there are no weights.
    """
    weights = weights or find_weights(name)
    if random_seed(weights) is not None:
        return weights
    if weights.startswith(OPEN_CLIP_TAG) or hub.is_hub(weights):
        return _pinned(name, weights, "")
    return weights


def weights_file(weights: str) -> Path:
    """The file of weights that `located` gave, downloaded where it is on the hub and not in its cache.

    Raises:
        DenseCLIError: It cannot be downloaded.
    """
    return hub.local_file(weights) if hub.is_hub(weights) else Path(weights)


def weights_sha256(weights: str | Path) -> str:
    """sha256 of a file, in hex; of one on the hub, without a download if the hub knows it."""
    if hub.is_hub(str(weights)):
        return hub.sha256_of(str(weights))
    with open(weights, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def published_of(name: str) -> Published | None:
    """Where the weights of a CLIP or a VFM are published; None if nowhere, or under several tags.

    Raises:
        DenseCLIError: There is no such model.
    """
    return architecture_of(name).published


def in_hub_cache(name: str) -> bool:
    """Whether the published weights of a model are in the hub's cache. Asks nothing of the hub."""
    published = published_of(name)
    return published is not None and hub.cached(*_address(name, published.address)) is not None


def weights_given(model: str, weights: Sequence[tuple[str, str]]) -> str | None:
    """The weights that were given for a model, or None.

    Args:
        model: A model's name or alias.
        weights: Pairs of a model's name or alias and its weights. An empty name stands for `model`.

    Raises:
        DenseCLIError: A pair is for another model.
    """
    wanted = canonical(model)
    given = {canonical(name) if name else wanted: path for name, path in weights}
    if stray := sorted(set(given) - {wanted}):
        raise DenseCLIError(
            f"Weights are given for {stray[0]}, which is not used here.", hint=f"Write {model}=PATH."
        )
    return given.get(wanted)


def same_model(name: str) -> str:
    """The name of weights with the model's alias replaced, also in the name of its Refiner's."""
    prefix = KINDS["refined"].prefix
    of_refiner = name.startswith(prefix)
    return f"{prefix}{canonical(name.removeprefix(prefix))}" if of_refiner else canonical(name)


def given_for(name: str, weights: Mapping[str, str]) -> str | None:
    """What was given for a model or a Refiner, under its name or another of the same model; or None.

    Raises:
        DenseCLIError: Two names of it are given different weights.
    """
    found = {each: at for each, at in weights.items() if same_model(each) == same_model(name)}
    if len(set(found.values())) > 1:
        raise DenseCLIError(
            f"{' and '.join(found)} are the same model and are given different weights.",
            hint="Give weights for one of the names.",
        )
    return next(iter(found.values()), None)


def random_seed(weights: str | None) -> int | None:
    """The seed of `random:SEED`; None for other weights.

    Raises:
        DenseCLIError: The seed is not a whole number.
    """
    if weights is None or not weights.startswith("random:"):
        return None
    if not is_random(weights):
        raise DenseCLIError(
            f"{weights!r} has no seed.", hint="Write random: and a whole number, such as random:0."
        )
    return int(weights.removeprefix("random:"))


def is_random(weights: str) -> bool:
    """Whether weights are `random:SEED` with a whole number, and not a path that merely contains the word."""
    return _RANDOM.fullmatch(weights) is not None


def _pinned(name: str, address: str, licence: str) -> str:
    return hub.pin(*_address(name, address), licence)


@cache
def _address(name: str, address: str) -> tuple[str, tuple[str, ...]]:
    """An address on the hub, and the names of the file that it means where it names none."""
    # Those of a Refiner belong to no model of their own.
    arch = architecture_of(name) if is_clip(name) or is_vfm(name) else None
    if address.startswith(OPEN_CLIP_TAG):
        address = _of_tag(name, arch, address.removeprefix(OPEN_CLIP_TAG))
    return address, _TIMM_FILES if isinstance(arch, VFMArchitecture) else _CLIP_FILES


def _of_tag(name: str, arch: Architecture | VFMArchitecture | None, tag: str) -> str:
    """The address of a tag in open_clip's table."""
    if not isinstance(arch, Architecture) or not isinstance(arch.config, str):
        raise DenseCLIError(
            f"{name} is no model of open_clip, which could have a tag {tag}.",
            hint=f"Weights are {FORMS}.",
        )
    import open_clip

    tags = open_clip.list_pretrained_tags_by_model(arch.config)
    if tag not in tags:
        raise unknown_name(f"tag of {arch.config} in open_clip", tag, tags)
    found: Mapping[str, str] = open_clip.get_pretrained_cfg(arch.config, tag)
    if not found.get("hf_hub"):
        raise DenseCLIError(
            f"open_clip has the weights {tag} of {arch.config} at {found.get('url', 'no address')} only.",
            hint=f"Download that file and name it: --weights {name}=PATH.",
        )
    return HUB + found["hf_hub"].rstrip("/")


def _folder() -> Path:
    return Path(from_environment("DENSECLI_WEIGHTS", "weights"))


def _names(name: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys((name, canonical(name))))


def _in_folder(names: Iterable[str]) -> Path | None:
    files = (_folder() / f"{file_name(name)}{suffix}" for name in names for suffix in _SUFFIXES)
    return next((file for file in files if file.is_file()), None)


def _absence(*names: str) -> str:
    wanted = " or ".join(f"{file_name(each)}.safetensors" for each in dict.fromkeys(names))
    return f"no {wanted} (nor {', '.join(_SUFFIXES[1:])}) in {_folder()}"


def _no_weights(name: str, *others: str) -> DenseCLIError:
    names = (name, *others) if others else _names(name)
    tags = _tags(name)
    several = f" open_clip has several: {name}={OPEN_CLIP_TAG}TAG with {', '.join(tags)}." if tags else ""
    return DenseCLIError(
        f"There are no weights for {name}: {_absence(*names)}.",
        hint="Put the file there, set DENSECLI_WEIGHTS to its folder, or name it: "
        f"--weights {name}=PATH.{several}",
    )


def _tags(name: str) -> list[str]:
    """The tags under which open_clip has weights of a model of its own."""
    if not name.startswith(OPEN_CLIP):
        return []
    import open_clip

    tags: list[str] = open_clip.list_pretrained_tags_by_model(name.removeprefix(OPEN_CLIP))
    return tags
