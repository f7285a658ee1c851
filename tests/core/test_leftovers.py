from contextlib import suppress

from densecli.core import fs
from densecli.core.leftovers import sweep_behind, swept


def test_swept__what_this_writer_left_and_nothing_else(tmp_path):
    def killed():
        raise KeyboardInterrupt

    other = tmp_path / ".a.tar.0123456789ab-77.tmp"
    other.write_bytes(b"half")
    mine = tmp_path / f".a.tar.{fs.writer()}-77.tmp"
    with suppress(KeyboardInterrupt), swept([str(tmp_path), str(tmp_path / "none")]):
        mine.write_bytes(b"half")
        killed()
    assert list(tmp_path.iterdir()) == [other]


def test_sweep_behind__what_writers_of_one_file_left(tmp_path):
    for name in (".a.pt.1-2.tmp", ".b.pt.1-2.tmp", "a.pt", "a.pt.tmp"):
        (tmp_path / name).write_bytes(b"")
    sweep_behind(tmp_path / "a.pt")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".b.pt.1-2.tmp", "a.pt", "a.pt.tmp"]
