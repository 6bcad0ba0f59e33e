"""The store: outputs are whole or absent, damage is seen, places that cannot be used are named."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from heldout.errors import StoreError
from heldout.runs import Store

KEY = "k" * 64


def write(store: Store, text: str, *, replace: bool = False, key: str = KEY) -> str:
    temporary = store.begin(key)
    (temporary / "out" / "a.txt").write_text(text)
    return store.commit(key, temporary, {"inputs": {}, "input_contents": {}, "made": text}, replace=replace)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path / "store")
    store.prepare()
    return store


def refuse(fault: str, place: Path) -> None:
    pytest.fail(f"not expected to be damaged: {fault}")


def test_an_output_appears_whole_with_its_files_listed(store: Store) -> None:
    assert store.open(KEY, damaged=refuse) is None
    assert write(store, "one") == "stored"
    assert store.open(KEY, verify=True, damaged=refuse) == store.path(KEY)
    record = store.record(KEY)
    assert record is not None
    # the SHA-256 of the three letters, from `printf one | sha256sum`
    sha = "7692c3ad3540bb803c020b3aee66cd8887123234ea0c6e7143c0add73ff431ed"
    assert record["files"] == {"a.txt": {"bytes": 3, "sha256": sha}}


def test_the_first_of_two_finishers_stands(store: Store) -> None:
    slow = store.begin(KEY)
    (slow / "out" / "a.txt").write_text("slow")
    assert write(store, "fast") == "stored"
    assert store.commit(KEY, slow, {"inputs": {}, "input_contents": {}}) == "raced"
    assert (store.path(KEY) / "a.txt").read_text() == "fast"


def test_replacing_keeps_identical_files_and_swaps_different_ones(store: Store) -> None:
    write(store, "one")
    before = (store.path(KEY) / "a.txt").stat().st_ino
    assert write(store, "one", replace=True) == "identical"
    assert (store.path(KEY) / "a.txt").stat().st_ino == before
    assert write(store, "two", replace=True) == "replaced"
    assert (store.path(KEY) / "a.txt").read_text() == "two"
    assert list((store.root / ".aside").iterdir()) == []


@pytest.mark.parametrize(
    ("name", "content", "verify", "said"),
    [
        ("a.txt", "on", False, "a.txt has 2 bytes, 3 were written"),
        ("a.txt", None, False, "a.txt is missing"),
        ("a.txt", "two", True, "a.txt does not have the SHA-256"),
        ("step.json", '{"key": "kk', False, "step.json is missing or damaged"),
        ("step.json", None, False, "step.json is missing or damaged"),
    ],
)
def test_damage_is_seen_and_moved_aside(store: Store, name: str, content: str | None, verify: bool, said: str) -> None:
    write(store, "one")
    file = store.path(KEY) / name
    file.unlink() if content is None else file.write_text(content)
    seen: list[tuple[str, Path]] = []
    assert store.open(KEY, verify=verify, damaged=lambda fault, place: seen.append((fault, place))) is None
    [(fault, place)] = seen
    assert said in fault
    assert place.parent == store.root / ".aside"
    assert place.is_dir()
    assert not store.path(KEY).exists()


def test_a_changed_byte_shows_only_when_verified(store: Store) -> None:
    write(store, "one")
    (store.path(KEY) / "a.txt").write_text("two")
    assert store.fault(KEY) is None
    assert store.fault(KEY, verify=True) is not None


def test_only_what_dead_processes_left_is_removed(store: Store) -> None:
    mine = store.begin(KEY)
    child = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    host = mine.name.split("@")[1]
    dead = store.root / ".tmp" / f"{KEY}@{host}@{int(child.stdout)}@x"
    elsewhere = store.root / ".tmp" / f"{KEY}@another-host@{int(child.stdout)}@x"
    dead.mkdir()
    elsewhere.mkdir()
    zombie = subprocess.Popen([sys.executable, "-c", ""])
    os.waitid(os.P_PID, zombie.pid, os.WEXITED | os.WNOWAIT)
    undead = store.root / ".tmp" / f"{KEY}@{host}@{zombie.pid}@x"
    undead.mkdir()
    store.prepare()
    zombie.wait()
    assert set((store.root / ".tmp").iterdir()) == {mine, elsewhere}


def test_foreign_places_are_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "store.json").write_text(json.dumps({"heldout_store": 99}))
    with pytest.raises(StoreError, match=r"another version \(store format 99.*give another store"):
        Store(tmp_path / "store").prepare()
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter1.tex").write_text("...")
    with pytest.raises(StoreError, match="is no store"):
        Store(tmp_path / "thesis").prepare()
    assert [p.name for p in (tmp_path / "thesis").iterdir()] == ["chapter1.tex"]


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"cannot write .*file/store: Not a directory"):
        Store(tmp_path / "file" / "store").prepare()


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EACCES, errno.EROFS])
@pytest.mark.parametrize("call", ["fsync", "rename"])
def test_a_failed_write_is_a_clear_error_and_leaves_the_rest(
    store: Store, monkeypatch: pytest.MonkeyPatch, code: int, call: str
) -> None:
    write(store, "kept")

    def fail(*args: object) -> None:
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch:
        patch.setattr(os, call, fail)
        with pytest.raises(StoreError, match=f"{'z' * 64}: {os.strerror(code)}"):
            write(store, "lost", key="z" * 64)
    assert store.open(KEY, verify=True, damaged=refuse) is not None
    assert store.open("z" * 64, damaged=refuse) is None
    assert write(store, "again", key="z" * 64) == "stored"
