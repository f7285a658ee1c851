"""Addresses of files on the Hugging Face Hub."""

import re
from dataclasses import dataclass

from densecli.core.addresses import public
from densecli.core.errors import DenseCLIError

HUB = "hf-hub:"
"""Prefix of an address."""
FORM = f"{HUB}ORG/REPO[/FILE][@REVISION]"
COMMIT = re.compile(r"[0-9a-f]{40}")
_ADDRESS = re.compile(r"hf-hub:([\w.-]+/[\w.-]+)(?:/([^@]+))?(?:@(.+))?")


@dataclass(frozen=True, kw_only=True)
class HubFile:
    """A file of a repository.

    Attributes:
        repo: ORG/REPO.
        file: Path in the repository; empty for the file with the weights.
        revision: A branch, a tag or a commit.
    """

    repo: str
    file: str = ""
    revision: str = "main"

    @classmethod
    def parse(cls, address: str) -> "HubFile":
        """Parses hf-hub:ORG/REPO[/FILE][@REVISION]. Raises DenseCLIError."""
        found = _ADDRESS.fullmatch(address)
        if found is None or ".." in re.split("[/@]", address):
            raise DenseCLIError(f"{address!r} is no address of a file on the hub.", hint=f"Write {FORM}.")
        repo, file, revision = found.groups()
        return cls(repo=repo, file=file or "", revision=revision or cls.revision)

    def __str__(self) -> str:
        at = "" if self.revision == type(self).revision else f"@{self.revision}"
        return HUB + "/".join([self.repo, *([self.file] if self.file else [])]) + at

    @property
    def pinned(self) -> bool:
        """Whether it names one file of one commit, whose content never changes."""
        return bool(self.file and COMMIT.fullmatch(self.revision))


def page(at: HubFile) -> str:
    """The web page of a repository."""
    from huggingface_hub import constants

    return f"{public(constants.ENDPOINT)}/{at.repo}"
