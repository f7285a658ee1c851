"""What a failure of the hub's client means, in a sentence with a hint."""

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager

from densecli.core.addresses import public
from densecli.core.errors import DenseCLIError, NoSpace, Unreachable
from densecli.core.hub_file import HUB, HubFile, page


@contextmanager
def errors_of(at: HubFile) -> Iterator[None]:
    """Says what a failure of the hub's client means."""
    try:
        yield
    except Exception as error:
        raise _told(error, at) from error


def _told(error: Exception, at: HubFile) -> DenseCLIError:
    from huggingface_hub import constants, errors

    hub, repo = public(constants.ENDPOINT), f"{HUB}{at.repo}"
    elsewhere = "or download the file elsewhere and name it: --weights NAME=PATH"
    # huggingface_hub gives these even where it was the server that denied access.
    if isinstance(error, errors.GatedRepoError):
        return DenseCLIError(
            f"{repo} is gated: its authors ask you to accept their terms.",
            hint=f"Accept them at {page(at)} and log in with hf auth login, or set HF_TOKEN; {elsewhere}.",
        )
    if isinstance(error, errors.RepositoryNotFoundError):
        return DenseCLIError(
            f"{hub} has no repository {at.repo}, or it is private.",
            hint="Check the name; for a private one log in with hf auth login, or set HF_TOKEN.",
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return DenseCLIError(f"{repo} has no revision {at.revision}.", hint=f"See {page(at)}/commits.")
    if constants.HF_HUB_OFFLINE or isinstance(error, errors.OfflineModeIsEnabled):
        return DenseCLIError(
            f"{at} is not in the cache of the hub, and nothing is downloaded offline.",
            hint="Leave out --offline (HF_HUB_OFFLINE), set HF_HOME to the folder of a cache that has it, "
            f"{elsewhere}.",
        )
    if isinstance(error, errors.RemoteEntryNotFoundError):
        return DenseCLIError(f"{repo} has no file {at.file}.", hint=f"See {page(at)}/tree/{at.revision}.")
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return NoSpace(
            f"There is no room for {at} in {constants.HF_HUB_CACHE}.",
            hint="Make room, or set HF_HOME to a folder on another disk.",
        )
    if isinstance(error, PermissionError):
        return DenseCLIError(
            f"{error.filename or constants.HF_HUB_CACHE}: permission denied.",
            hint="Set HF_HOME to a folder that you may write to.",
        )
    reason = _reason(error)
    return Unreachable(
        f"{at} cannot be downloaded from {hub}: {reason}.",
        hint="The same command goes on where the download stopped. Check the network and its proxy "
        f"(HTTPS_PROXY), name a mirror (HF_ENDPOINT), {elsewhere}.",
    )


def _reason(error: Exception) -> str:
    """What failed, in a few words."""
    response = getattr(error, "response", None)
    if (status := getattr(response, "status_code", None)) is not None:
        return f"it answers with {status}"
    if "Consistency check failed" in str(error):
        return "the download was cut off"
    # Its errors for a network that is down, at any depth, are called after what happened.
    root: BaseException = error
    while (below := root.__cause__ or root.__context__) is not None:
        root = below
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", type(root).__name__).lower()
