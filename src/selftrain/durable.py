"""Changes to files that last: whole or not at all, and on the disk when the call returns.

    write(path, content)                       a file
    with whole(path) as out: out.write(...)    a file, piece by piece; with first_wins, unless one is there
    place(temporary, target)                   a folder or file that was made under another name
    move(source, target)                       another name for what is on the disk
    remove(path)                               a file or folder: gone at once under its name
    append(path, line)                         a line behind what is there
    sync(stream, path)                         what was written to an open file, to the disk
    sweep(folder)                              removes what killed processes left behind
    with explained(path): ...                  another change, whose failure is told of in the same way

What cannot be written (disk full, no permission) is a `RunError`, and what was there before stays as it was.
Temporaries are called `.NAME.PID.tmp`, lie beside their target, and are never read.

Every fsync, rename, link and removal is a fault point, named by what it does to which file, digits as N ("rename
manifest.json", "fsync shard-N.jsonl"; "fsync-folder manifest.json" brings the name to the disk). Tests set
SELFTRAIN_FAULTS: `record:FILE` notes each point in FILE, `kill:POINT:K` kills the process at the K-th of that name,
`fail:POINT:K` lets it fail as on a full disk, and `power:POINT:K` kills it and first empties what was written and is
not on the disk yet, as a power cut may.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, BinaryIO

from selftrain.errors import RunError

FAULTS = "SELFTRAIN_FAULTS"
_NOT_FOR_FOLDERS = (errno.EINVAL, errno.ENOTSUP, errno.EBADF)  # what systems say that cannot bring a folder to the disk
_TEMPORARY = re.compile(r"\..+\.(\d+)(\.gone)?\.tmp")
_counts: dict[str, int] = {}  # how often each fault point was reached in this process
_pending: set[Path] = set()  # files written and not yet on the disk


def write(path: Path, content: bytes) -> None:
    """Write a file.

    Raises:
        RunError: it cannot be written; what was there is there still.
    """
    with whole(path) as out:
        out.write(content)


@contextlib.contextmanager
def whole(path: Path, *, first_wins: bool = False) -> Iterator[BinaryIO]:
    """A file to write, which takes its name at the end; an error leaves what was there.

    With `first_wins` it does not take the name of a file that is there by then.

    Raises:
        RunError: see `write`.
    """
    temporary = temporary_of(path)
    try:
        with explained(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            with temporary.open("wb") as out:
                _pending.add(temporary)
                yield out
                out.flush()
                _fsync(out.fileno(), temporary, path.name)
            (_publish if first_wins else move)(temporary, path)
    finally:
        _pending.discard(temporary)
        with contextlib.suppress(OSError):
            temporary.unlink()


def place(temporary: Path, target: Path) -> None:
    """Bring a file, or a folder with all that is in it, to the disk and give it its name; one of that name goes away.

    Raises:
        RunError: see `write`.
    """
    with explained(target):
        if temporary.is_file():
            _pending.add(temporary)
            _fsync_path(temporary, target.name)
            move(temporary, target)
            return
        files = [path for path in sorted(temporary.rglob("*")) if path.is_file()]
        _pending.update(file for file in files if file.stat().st_nlink == 1)  # another name of a file: it is there
        for file in files:
            _fsync_path(file, f"{target.name}/{file.name}")
        for folder in (*(path for path in sorted(temporary.rglob("*")) if path.is_dir()), temporary):
            _fsync_folder(folder, f"{target.name}/{folder.relative_to(temporary).as_posix()}")
        before = _set_aside(target)
        move(temporary, target)
        _delete(before)


def move(source: Path, target: Path) -> None:
    """Give what is on the disk another name, and bring that to the disk too.

    Raises:
        RunError: it cannot be renamed.
    """
    with explained(target):
        _point("rename", target.name)
        os.replace(source, target)
        _fsync_folder(target.parent, target.name)


def remove(path: Path) -> None:
    """Remove a file or folder, if it is there: first its name, at once, then what it holds."""
    with explained(path):
        _delete(_set_aside(path))


def append(path: Path, line: str) -> None:
    """Put a line behind the others; one that was cut off ends first.

    Raises:
        RunError: see `write`.
    """
    with explained(path), path.open("ab+") as out:
        if out.tell() and _last_byte(out) != b"\n":
            line = f"\n{line}"
        out.write(f"{line}\n".encode(errors="backslashreplace"))


def sync(stream: IO[Any], path: Path) -> None:
    """Bring to the disk what was written to an open file, and flushed.

    Raises:
        RunError: it cannot be written.
    """
    with explained(path):
        _point("sync", path.name)
        os.fsync(stream.fileno())


def sweep(folder: Path) -> None:
    """Remove temporaries in a folder, and below it, whose processes are gone."""
    for path in sorted(folder.rglob(".*.tmp")):
        if is_temporary(path) and not _runs(_process_of(path.name)):
            _delete(path)


def link_or_copy(source: Path | str, target: Path | str) -> None:
    """One more name for a file, or a copy where the disk has none."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def temporary_of(path: Path) -> Path:
    """Where a file or folder is made before it takes its name."""
    return path.with_name(f".{path.name}.{os.getpid()}.tmp")


def is_temporary(path: Path) -> bool:
    """Whether a path is a temporary of ours."""
    return _TEMPORARY.fullmatch(path.name) is not None


def _publish(source: Path, target: Path) -> None:
    """Give a file its name unless there is one of that name: of two writers the first wins."""
    _point("link", target.name)
    try:
        os.link(source, target)
    except FileExistsError:
        return
    except OSError:  # a disk without hard links, or a full one
        if not target.exists():
            os.replace(source, target)
    _fsync_folder(target.parent, target.name)


def _process_of(name: str) -> int:
    found = _TEMPORARY.fullmatch(name)
    return int(found[1]) if found else 0


def _runs(process: int) -> bool:
    if os.name == "nt":  # signal 0 is Ctrl-C there
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass
    return True


def _delete(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _set_aside(path: Path) -> Path:
    """Take its name from what is there, if anything is; where it lies now."""
    aside = path.with_name(f".{path.name}.{os.getpid()}.gone.tmp")
    if os.path.lexists(path):
        _delete(aside)
        _point("remove", path.name)
        os.replace(path, aside)
    return aside


def _last_byte(stream: BinaryIO) -> bytes:
    stream.seek(-1, os.SEEK_END)
    return stream.read(1)


@contextlib.contextmanager
def explained(path: Path) -> Iterator[None]:
    """An OSError within is a RunError that names the file, and what to do about a full disk or a missing right."""
    try:
        yield
    except OSError as error:
        hint = {
            errno.ENOSPC: "The disk is full: make room, then run the same command again.",
            errno.EDQUOT: "Your quota on this disk is used up: make room, then run the same command again.",
            errno.EROFS: "The disk can only be read: choose another folder with --out.",
            errno.EACCES: "Choose another folder with --out, or get the right to write there.",
        }.get(error.errno or 0)
        raise RunError(f"{path}: could not be written ({error.strerror or error}).", hint) from error


# --- fault points ---


def _fsync(descriptor: int, path: Path, name: str) -> None:
    _point("fsync", name)
    os.fsync(descriptor)
    _pending.discard(path)


def _fsync_path(path: Path, name: str) -> None:
    descriptor = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)  # Windows wants the right to write
    try:
        _fsync(descriptor, path, name)
    finally:
        os.close(descriptor)


def _fsync_folder(folder: Path, name: str) -> None:
    """So that a name outlasts a power cut; not every system can."""
    _point("fsync-folder", name)
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except PermissionError:  # a folder that may be written and not read, or a system that opens none
        return
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NOT_FOR_FOLDERS:
            raise
    finally:
        os.close(descriptor)


def _point(kind: str, name: str) -> None:
    """What a test asked to happen here, happens."""
    asked = os.environ.get(FAULTS)
    if not asked:
        return
    point = f"{kind} {re.sub(r'[0-9]+', 'N', name)}"
    _counts[point] = _counts.get(point, 0) + 1
    what, _, rest = asked.partition(":")
    if what == "record":
        with Path(rest).open("a", encoding="utf-8") as out:
            out.write(f"{point}\n")
        return
    wanted, _, number = rest.rpartition(":")
    if point != wanted or _counts[point] != int(number):
        return
    if what == "fail":
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    for path in _pending if what == "power" else ():
        with contextlib.suppress(OSError):
            os.truncate(path, 0)
    os.kill(os.getpid(), signal.SIGKILL)
