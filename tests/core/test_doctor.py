"""What the doctor says of machines that lack something."""

import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from types import SimpleNamespace

import pytest
import torch
from huggingface_hub import constants

from densecli.core import doctor


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """A server on loopback in the hub's place; the list holds the code that it answers with."""
    answer = [200]

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.send_response(answer[0])
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    yield answer
    server.shutdown()
    server.server_close()


def test_hub__that_answers(hub: list[int]) -> None:
    assert doctor.check_hub().status == "ok"
    hub[0] = 404
    assert doctor.check_hub().status == "ok"


def test_hub__that_does_not_answer_or_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        # Bound, but nobody listens.
        monkeypatch.setattr(constants, "ENDPOINT", f"http://user:secret@127.0.0.1:{free.getsockname()[1]}")
        found = doctor.check_hub()
    assert found.status == "note" and "HF_ENDPOINT" in found.hint and "secret" not in found.found
    monkeypatch.setattr(constants, "ENDPOINT", "file:///etc/passwd")
    assert "no address of a web server" in doctor.check_hub().found
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "offline" in doctor.check_hub().found


def test_packages__missing_and_clashing_ones_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    assert doctor.check_packages().status == "ok"
    wanted = [
        "no-such-package-of-anybody>=1",
        "numpy<1",
        "click>=8; python_version < '3'",
        "s3fs; extra == 's3'",
    ]
    monkeypatch.setattr(doctor, "requires", lambda _: wanted)
    found = doctor.check_packages()
    assert found.status == "problem" and found.hint
    assert "no-such-package-of-anybody is missing" in found.found and "numpy" in found.found
    assert "click" not in found.found and "s3fs" not in found.found


def test_torch__a_build_for_the_cpu_beside_a_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.version, "cuda", None)
    monkeypatch.setattr(doctor.shutil, "which", lambda _: "/usr/bin/nvidia-smi")
    assert doctor.check_torch().status == "problem"
    monkeypatch.setattr(doctor.shutil, "which", lambda _: None)
    assert doctor.check_torch().status == "ok"


def test_limits__little_shared_memory_few_files_and_a_full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    small = SimpleNamespace(total=64e6, free=1e6)
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda _: small)
    assert "--shm-size" in doctor.check_shared_memory().hint
    assert doctor.check_disk().status == "note" and doctor.check_ray().status == "problem"
    monkeypatch.setattr(doctor.resource, "getrlimit", lambda _: (256, 4096))
    assert doctor.check_open_files().hint == "Raise the limit: ulimit -n 4096."
    monkeypatch.setattr(doctor.resource, "getrlimit", lambda _: (256, doctor.resource.RLIM_INFINITY))
    assert doctor.check_open_files().hint == "Raise the limit: ulimit -n 65536."


def test_examine__what_raises_is_a_problem_and_the_rest_goes_on(
    hub: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> doctor.Check:
        raise RuntimeError("operator torchvision::nms does not exist\nmore")

    broken.__name__ = "check_torchvision"
    monkeypatch.setattr(doctor, "check_torchvision", broken)
    found = {check.name: check for check in doctor.examine()}
    assert found["torchvision"].status == "problem"
    assert found["torchvision"].found == "operator torchvision::nms does not exist"
    assert list(found)[-1] == "hub" and len(found) == 12
