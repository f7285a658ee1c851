"""Fixtures every test folder shares."""

import html
import json
import logging
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import fsspec
import numpy as np
import pytest
from hub_server import Hub, serving
from huggingface_hub import constants, file_download
from moto.server import ThreadedMotoServer
from PIL import Image
from results import checked_write

from densecli.commands.options import Options
from densecli.core import hub


@pytest.fixture(scope="session", autouse=True)
def kept_text(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Text embeddings are kept for this run alone, not in anybody's home. Nothing is asked of the hub."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HOME", str(tmp_path_factory.mktemp("hub")))
        patch.setenv("HF_HUB_OFFLINE", "1")
        patch.setattr(constants, "HF_HUB_OFFLINE", True)
        patch.setattr(constants, "HF_HUB_CACHE", f"{os.environ['HF_HOME']}/hub")
        patch.setenv("DENSECLI_CACHE", str(tmp_path_factory.mktemp("cache")))
        # Every result that a command writes in this process is compared with what its page says.
        patch.setattr(Options, "write", checked_write)
        yield


@pytest.fixture
def hub_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub on loopback, which this process, and those that it starts, use with an empty cache."""
    with serving() as found:
        monkeypatch.setenv("HF_ENDPOINT", found.address)
        monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
        monkeypatch.delenv("HF_HUB_OFFLINE")
        template = f"{found.address}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        for name, value in {
            "ENDPOINT": found.address,
            "HUGGINGFACE_CO_URL_TEMPLATE": template,
            "HF_HUB_CACHE": str(tmp_path / "hub" / "hub"),
            "HF_HUB_OFFLINE": False,
            "DOWNLOAD_CHUNK_SIZE": 2**16,
        }.items():
            monkeypatch.setattr(constants, name, value)
        # Its client waits between attempts.
        monkeypatch.setattr(file_download.time, "sleep", lambda _: None)
        for known in (hub.pin, hub._listed):
            known.cache_clear()
        yield found
        for known in (hub.pin, hub._listed):
            known.cache_clear()


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real photos and published embeddings, where it lies beside the checkout."""
    folder = Path(os.environ.get("DENSECLI_SHARED_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder} (set DENSECLI_SHARED_DATA)")
    return folder


@pytest.fixture(scope="session")
def golden() -> Path:
    """The folder of reference figures: DENSECLI_GOLDEN, else tests/golden."""
    return Path(os.environ.get("DENSECLI_GOLDEN", Path(__file__).parent / "golden"))


S3_SERVER: list[ThreadedMotoServer] = []


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """The endpoint of an S3 server on loopback."""
    logging.getLogger("werkzeug").setLevel(logging.WARNING)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    S3_SERVER.append(server)
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def s3(s3_server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The address of an empty bucket; what opens it is in the environment alone."""
    for name, value in {
        "AWS_ENDPOINT_URL": s3_server,
        "AWS_ACCESS_KEY_ID": "AKIATHISISTHEKEY",
        "AWS_SECRET_ACCESS_KEY": "this/is/the/secret",
        "AWS_DEFAULT_REGION": "us-east-1",
        # One attempt of botocore's within each of s3fs's, so that failing for good takes seconds.
        "AWS_MAX_ATTEMPTS": "1",
    }.items():
        monkeypatch.setenv(name, value)
    # Clients remember the endpoint and the credentials that they were made with.
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    bucket = tmp_path.name.replace("_", "-").lower().strip("-")
    fsspec.filesystem("s3").mkdir(bucket)
    return f"s3://{bucket}"


@pytest.fixture
def s3_gets(s3: str) -> Callable[[], list[tuple[str, str, int]]]:
    """A call gives the (object, range, bytes) of each GET since the call before, and LIST requests as ''."""
    seen: list[tuple[str, str, int]] = []

    def watch(environ: dict, start: Callable) -> list[bytes]:
        body = b"".join(serve(environ, start))
        if environ["REQUEST_METHOD"] == "GET":
            listing = "list-type" in environ["QUERY_STRING"]
            name = "" if listing else environ["PATH_INFO"].split("/", 2)[2]
            seen.append((name, environ.get("HTTP_RANGE", ""), len(body)))
        return [body]

    server = S3_SERVER[-1]._server
    serve, server.app = server.app, watch
    yield lambda: [seen.pop(0) for _ in range(len(seen))]
    server.app = serve


@pytest.fixture
def browser(tmp_path: Path) -> Callable[..., bytes]:
    """browse(page, *flags) -> what Chromium prints of an HTML file."""
    names = ("chromium", "chromium-browser", "google-chrome", "chrome")
    program = next((path for name in names if (path := shutil.which(name))), None)
    if program is None:
        pytest.skip("there is no Chromium on this machine")

    def browse(page: Path, *flags: str) -> bytes:
        options = (
            *("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"),
            *("--disable-background-networking", f"--user-data-dir={tmp_path / 'chromium'}"),
            *flags,
        )
        done = subprocess.run(
            [program, *options, page.as_uri()],
            check=True,
            capture_output=True,
            env={**os.environ, "HOME": str(tmp_path)},
        )
        return done.stdout

    return browse


@pytest.fixture
def screenshot(tmp_path: Path, browser: Callable[..., bytes]) -> Callable[..., np.ndarray]:
    """shoot(page, width, height, *flags) -> (height, width, 3) uint8: an HTML file as Chromium draws it."""

    def shoot(page: Path, width: int = 1280, height: int = 800, *flags: str) -> np.ndarray:
        picture = tmp_path / "screenshot.png"
        browser(page, *flags, f"--window-size={width},{height}", f"--screenshot={picture}")
        return np.asarray(Image.open(picture).convert("RGB"))

    return shoot


# A browser's own window is never as narrow, so each page is in a frame.
FRAMES = """<!doctype html><meta charset="utf-8"><meta name="color-scheme" content="light dark">
<body>{frames}<pre id="found"></pre><script>
addEventListener("load", () => {{
  found.textContent = JSON.stringify([...document.querySelectorAll("iframe")].map(frame => {{
    const page = frame.contentDocument;
    return [page.documentElement.scrollWidth, getComputedStyle(page.body).backgroundColor];
  }}));
}});
</script></body>"""


@pytest.fixture
def on_a_telephone(tmp_path: Path, browser: Callable[..., bytes]) -> Callable[..., list[tuple[int, str]]]:
    """lay_out(pages, scheme, width) -> of each page the width that it takes there, and its background."""

    def lay_out(pages: list[Path], scheme: str, width: int = 390) -> list[tuple[int, str]]:
        frames = "".join(
            f'<iframe srcdoc="{html.escape(page.read_text())}" style="border: 0; width: {width}px"></iframe>'
            for page in pages
        )
        wrapper = tmp_path / "frames.html"
        wrapper.write_text(FRAMES.format(frames=frames))
        preferred = f"--blink-settings=preferredColorScheme={0 if scheme == 'dark' else 1}"
        printed = browser(wrapper, preferred, "--dump-dom", "--virtual-time-budget=10000").decode()
        found = re.findall(r'<pre id="found">(.*?)</pre>', printed, re.DOTALL)
        return [tuple(each) for each in json.loads(found[0])]

    return lay_out
