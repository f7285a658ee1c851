"""What a pattern finds, and what is counted instead."""

import pytest

from densecli.core import fs
from densecli.core.find import find
from densecli.core.passed_over import PassedOver


@pytest.mark.parametrize("folder", ["plain", "a[1]", "b*", "c?d{e}"])
def test_find__what_a_pattern_matches_below_a_folder_of_any_name(root, folder):
    names = ("b.jpg", "sub/deep/a.jpg", "sub[1]/c.jpg", ".hidden/c.jpg", "sub/._d.jpg")
    for name in names:
        fs.write_atomic(fs.join(root, folder, name), name.encode())
    fs.write_atomic(fs.join(root, "a1", "other.jpg"), b"other")
    where = fs.join(root, folder)

    def found(*pattern):
        return {name: e.is_folder or e.size for name, e in find(where, *pattern).items()}

    assert found() == {
        "b.jpg": 5,
        "sub": True,
        "sub/deep": True,
        "sub/deep/a.jpg": 14,
        "sub[1]": True,
        "sub[1]/c.jpg": 12,
    }
    assert found("*") == {"b.jpg": 5, "sub": True, "sub[1]": True}
    assert found("*/*.jpg") == {"sub[1]/c.jpg": 12}
    assert found("**/?.jpg") == {"b.jpg": 5, "sub/deep/a.jpg": 14, "sub[1]/c.jpg": 12}
    assert found("sub/deep/a.jpg") == {"sub/deep/a.jpg": 14}
    assert found("no.jpg") == found("no/*") == find(fs.join(root, "nowhere")) == {}


def test_find__a_stamp_changes_with_the_file_and_with_what_is_in_a_local_folder(root):
    fs.write_atomic(fs.join(root, "x", "a"), b"1")
    before = find(root)
    assert find(root) == before
    fs.write_atomic(fs.join(root, "x", "a"), b"22")
    fs.write_atomic(fs.join(root, "x", "b"), b"1")
    after = find(root)
    assert after["x/a"].stamp != before["x/a"].stamp
    assert (after["x"].stamp != before["x"].stamp) == fs.is_local(root)
    assert bool(after["x"].stamp) == fs.is_local(root)


def test_find__links_to_files_are_files_and_links_to_folders_are_passed_over(tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "a.jpg").write_bytes(b"four")
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "a.jpg").symlink_to(tmp_path / "there" / "a.jpg")
    (tmp_path / "here" / "folder").symlink_to(tmp_path / "there")
    assert [(name, e.size) for name, e in find(str(tmp_path / "here")).items()] == [("a.jpg", 4)]


def test_find__a_link_may_lead_anywhere_within_the_outer_folder(tmp_path):
    outer = tmp_path / "outer"
    for name in ("outer/folder/a", "outer/b", "outer-too/c"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    for name, target in {"b": outer / "b", "c": tmp_path / "outer-too" / "c", "d": tmp_path / "gone"}.items():
        (outer / "folder" / name).symlink_to(target)
    (tmp_path / "link").symlink_to(outer)
    folder = str(tmp_path / "link" / "folder")
    passed = PassedOver()
    assert list(find(folder, passed=passed, within=str(tmp_path / "link"))) == ["a", "b"]
    assert passed.document() == {
        "a link out of the folder": {"count": 1, "first": ["c"]},
        "a link to nothing": {"count": 1, "first": ["d"]},
    }
    passed = PassedOver()
    assert list(find(folder, passed=passed)) == ["a"]
    assert passed.document()["a link out of the folder"]["count"] == 2
    assert list(find(folder)) == ["a", "b", "c"]
