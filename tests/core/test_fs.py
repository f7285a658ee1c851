import errno
import os

import fsspec
import pytest

from densecli.core import clients, fs
from densecli.core.errors import DenseCLIError, Unreachable


def test_write_atomic__makes_folders_and_replaces(root):
    url = fs.join(root, "a", "b", "file")
    assert not fs.exists(url)
    assert fs.listdir(fs.join(root, "a", "b")) == []
    for content in (memoryview(b"first"), [b"in ", b"", b"parts"], b""):
        fs.write_atomic(url, content)
        assert fs.read_bytes(url) == b"".join(content if isinstance(content, list) else [content])
    assert fs.listdir(fs.join(root, "a", "b")) == ["file"]
    assert fs.is_folder(fs.join(root, "a"))
    assert not fs.is_folder(url)
    fs.remove(url)
    assert not fs.exists(url)
    with pytest.raises(FileNotFoundError):
        fs.read_bytes(url)


def test_listdir__sorted_names_without_leftovers(root):
    for name in ("b.tar", "a.json", ".a.json.0123.tmp", "folder/x"):
        fs.write_atomic(fs.join(root, name), b"x")
    assert fs.listdir(root) == ["a.json", "b.tar", "folder"]


def test_listdir__sees_what_another_client_wrote_and_removed(s3):
    url = fs.join(s3, "folder", "file")
    other = fsspec.get_filesystem_class("s3")(skip_instance_cache=True)
    assert fs.listdir(fs.join(s3, "folder")) == []
    other.pipe_file(url, b"x")
    assert fs.exists(url) and fs.listdir(fs.join(s3, "folder")) == ["file"]
    other.rm_file(url)
    assert not fs.exists(url) and fs.listdir(fs.join(s3, "folder")) == []


def test_no_bucket__nothing_is_made_and_the_sentence_says_where(s3):
    with pytest.raises(DenseCLIError, match=r"Could not write s3://nowhere-at-all/file: ") as caught:
        fs.write_atomic("s3://nowhere-at-all/file", b"x")
    assert "Check the address" in caught.value.hint
    assert not fs.exists("s3://nowhere-at-all/file")


@pytest.mark.parametrize(
    "url",
    [
        "s3://key:secret@bucket/store",
        "s3://key:a/secret/with/slashes@bucket/store",
        "https://secret@host/photos",
        "https://host/photos?token=secret",
    ],
)
def test_addresses__with_credentials_in_them_are_refused_and_not_repeated(url):
    calls = [fs.absolute]
    if url.startswith("s3"):
        calls += [fs.read_bytes, fs.exists, fs.listdir, lambda url: fs.write_atomic(url, b"")]
    for call in calls:
        with pytest.raises(DenseCLIError, match="has credentials or a query") as caught:
            call(url)
        assert "secret" not in f"{caught.value} {caught.value.hint}"
        assert "environment" in caught.value.hint


def test_addresses__signed_ones_of_a_list_of_photos_are_read_but_never_said():
    with pytest.raises(Unreachable, match=r"Could not read http://127\.0\.0\.1:9/a\.jpg: ") as caught:
        fs.read_bytes("http://me:secret@127.0.0.1:9/a.jpg?X-Signature=secret")
    assert "secret" not in f"{caught.value} {caught.value.hint}"


@pytest.mark.parametrize("url", ["s3://bucket/what?/photo@2x.jpg", "http://host:80/photo@2x.jpg", "a?b=c@d"])
def test_addresses__with_odd_names_are_none_with_credentials(url):
    fs.check(url)


def test_addresses__of_a_package_that_is_not_installed_name_it():
    fsspec.register_implementation("far", "no_such_package.FileSystem", errtxt="Install farfs to go there")
    with pytest.raises(DenseCLIError, match="far:// need a package that is not installed") as caught:
        fs.read_bytes("far://away/file")
    assert caught.value.hint == "Install farfs to go there."


def test_addresses__of_no_file_system_are_refused():
    with pytest.raises(DenseCLIError, match="no file system for addresses that begin with nonsense://"):
        fs.read_bytes("nonsense://away/file")


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_write_atomic__a_failure_leaves_the_old_file_and_no_temporary(tmp_path, monkeypatch, step):
    url = str(tmp_path / "file")
    fs.write_atomic(url, b"old")

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, step, full)
    with pytest.raises(DenseCLIError, match="No space left") as caught:
        fs.write_atomic(url, b"new")
    assert "Free some space" in caught.value.hint
    assert os.listdir(tmp_path) == ["file"]
    assert fs.read_bytes(url) == b"old"


def test_write_atomic__is_on_disk_before_it_has_its_name(tmp_path, monkeypatch):
    steps = []
    for step in ("fsync", "replace"):
        real = getattr(os, step)
        monkeypatch.setattr(os, step, lambda *a, step=step, real=real: (steps.append(step), real(*a))[1])
    fs.write_atomic(str(tmp_path / "file"), b"x")
    assert steps == ["fsync", "replace", "fsync"]


def test_write_atomic__where_nothing_can_be_written_says_so(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(DenseCLIError, match="Could not write") as caught:
        fs.write_atomic(str(tmp_path / "file" / "below"), b"x")
    assert "may write" in caught.value.hint


def test_error__keeps_its_hint_across_processes():
    import pickle

    error = pickle.loads(pickle.dumps(DenseCLIError("What.", hint="Do.")))
    assert (str(error), error.hint) == ("What.", "Do.")


def test_read_bytes__is_one_request(s3):
    fs.write_atomic(f"{s3}/file", b"x")
    with clients.client(f"{s3}/file") as (client, _):
        pass
    asked = []
    client.s3.meta.events.register("before-call.s3", lambda model, **_: asked.append(model.name))
    assert fs.read_bytes(f"{s3}/file") == b"x"
    assert asked == ["GetObject"]


def test_write_atomic__its_temporary_file_names_the_writer(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(os, "replace", lambda temporary, path: seen.append(os.path.basename(temporary)))
    fs.write_atomic(f"{tmp_path}/a.tar", b"x")
    assert seen[0].startswith(f".a.tar.{fs.writer()}-") and fs.is_temporary(seen[0])


def test_write_text__whole_or_not_at_all_and_through_links_and_pipes(tmp_path):
    (tmp_path / "link").symlink_to("file")
    fs.write_text(tmp_path / "link", "é")
    assert (tmp_path / "file").read_text(encoding="utf-8") == "é" and (tmp_path / "link").is_symlink()
    assert len(list(tmp_path.iterdir())) == 2
    reader, writer = os.pipe()
    fs.write_text(f"/dev/fd/{writer}", "piped")
    os.close(writer)
    with open(reader) as pipe:
        assert pipe.read() == "piped"
    fs.write_text("/dev/null", "nothing")
    assert not os.path.isfile("/dev/null")
    with pytest.raises(DenseCLIError, match="Could not write"):
        fs.write_text(tmp_path / "file" / "below", "x")
