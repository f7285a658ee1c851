"""Every fault test says what it broke and survived; the test run ends with the count."""

from collections import Counter
from collections.abc import Callable, Iterator

import pytest

INJECTED = pytest.StashKey[Counter[str]]()
SURVIVED = pytest.StashKey[Counter[str]]()


@pytest.fixture
def survived(request: pytest.FixtureRequest) -> Iterator[Callable[[str], None]]:
    """To be called with the fault's name once it was injected and everything was well again.

    A test that ends without calling it counts as a fault that was not survived.
    """
    stash = request.config.stash
    names: list[str] = []
    yield names.append
    stash.setdefault(INJECTED, Counter()).update(names or [request.node.name])
    stash.setdefault(SURVIVED, Counter()).update(names)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    injected, survived = (config.stash.get(key, Counter()) for key in (INJECTED, SURVIVED))
    if not injected:
        return
    terminalreporter.section(f"faults: {injected.total()} injected, {survived.total()} survived")
    for name, count in sorted(injected.items()):
        terminalreporter.line(f"{survived[name]} of {count}  {name}")
