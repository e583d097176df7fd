"""C sources of ours: compiled once, and again where what lies in the cache is damaged."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from selftrain import durable, native


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of its own, and a source that is compiled at once."""
    if shutil.which("cc") is None and shutil.which("gcc") is None:
        pytest.skip("no C compiler here")
    monkeypatch.setenv("SELFTRAIN_CACHE", str(tmp_path))
    monkeypatch.delenv("SELFTRAIN_NATIVE", raising=False)
    monkeypatch.setattr(native, "_read", lambda package, name: "int one(void) { return 1; }\n" * (name != "numbers.h"))
    return tmp_path / "native"


def load() -> int:
    found, why_not = native.library.__wrapped__("sampling", "made_up.c")  # as a new process would
    assert found is not None, why_not
    return int(found.one())


@pytest.mark.parametrize("damage", [b"", b"torn", b"\x7fELF"])
def test_a_library_that_cannot_be_loaded_is_compiled_again(
    cache: Path, monkeypatch: pytest.MonkeyPatch, damage: bytes
) -> None:
    cache.mkdir()
    compiled: list[Path] = []
    compile_it = native._compile
    monkeypatch.setattr(native, "_compile", lambda *told: (compiled.append(told[-1]), compile_it(*told)))
    # Not loaded before it is damaged: the system would go on with what it has loaded under that name.
    monkeypatch.setattr(native, "_processor", lambda: repr(damage))
    with monkeypatch.context() as patch:
        patch.setattr(native.ctypes, "CDLL", lambda path: None)
        native.library.__wrapped__("sampling", "made_up.c")
    (library,) = cache.iterdir()
    library.write_bytes(damage)
    assert load() == 1 and load() == 1
    assert compiled == [library, library], "once for each time that there was none that could be loaded"
    assert list(cache.iterdir()) == [library]


def test_it_is_on_the_disk_before_it_has_its_name(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(durable.FAULTS, f"record:{tmp_path / 'points'}")
    assert load() == 1
    kinds = [point.partition(" ")[0] for point in (tmp_path / "points").read_text().splitlines()]
    assert kinds == ["fsync", "rename", "fsync-folder"]


def test_a_full_disk_is_no_more_than_a_reason_to_do_without(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "_processor", lambda: "of another machine")
    with monkeypatch.context() as patch:
        patch.setattr(durable, "_point", lambda kind, name: (_ for _ in ()).throw(OSError(28, "No space left")))
        found, why_not = native.library.__wrapped__("sampling", "made_up.c")
    assert found is None and "could not be compiled" in why_not and not list(cache.iterdir())
