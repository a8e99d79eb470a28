"""The files that distributed Maps read their items from and write their results to: local, under one folder.

Synchronous, for a thread. Every path is inside the folder that engine.toml names, whatever a definition says; where
definitions name a bucket and a key, the bucket is a folder in it. A file is read in pages; the position after a page
tells where the next begins and what the file was like, so that one that was changed meanwhile is noticed.
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

import msgspec
from msgspec import Raw

from daemon.language.definition import ItemFormat
from daemon.language.distribute import ReadPlan, WritePlan
from enginekit.messages.json import JSON, NotJSON, decode

PAGE_BYTES: Final = 1024 * 1024
"""Of a file, read for one page."""

JSON_BYTES: Final = 64 * 1024 * 1024
"""The largest JSON document: it is read as a whole. JSON Lines and CSV files may be of any size."""

LINE_BYTES: Final = 1024 * 1024
LISTED: Final = 100_000


NO_SUCH_ITEMS: Final = "The provided ReaderConfig.ItemsPointer does not match any valid path in the JSON structure."
NO_ITEMS: Final = "Attempting to map over non-iterable node."
"""The reference service's words."""


class FileProblem(Exception):
    """A file cannot be used; the message says which and why."""


class Page(NamedTuple):
    """Items, where the next begin, whether there are none, and how many there are in all."""

    values: list[JSON]
    position: str
    exhausted: bool
    total: int
    source: str


class _Mark(msgspec.Struct, frozen=True, array_like=True):
    """A position: bytes into the file (or items into the document), what it was like, items in all, CSV headers."""

    offset: int
    size: int
    changed: int
    total: int
    headers: tuple[str, ...] = ()


def read_page(folder: Path | None, plan: ReadPlan, position: str, taken: int, limit: int) -> Page:
    """At most `limit` items after `position` (empty: from the start), of which `taken` came before.

    Raises FileProblem.
    """
    path = _path(folder, plan.place, "Key")
    try:
        page = _read(path, plan, position, taken, limit)
    except (OSError, UnicodeError, csv.Error, NotJSON, msgspec.DecodeError) as error:
        raise FileProblem(f"{_shown(plan.place)}: {_reason(error)}") from error
    return page._replace(source=f"file:{_shown(plan.place)}")


def _read(path: Path, plan: ReadPlan, position: str, taken: int, limit: int) -> Page:
    most = plan.max_items or 0
    if plan.format is ItemFormat.LIST:
        return _from_list(_listed(path), position, most, limit)
    stat = path.stat()
    mark = None
    if position:
        mark = msgspec.json.decode(position, type=_Mark)
        if (mark.size, mark.changed) != (stat.st_size, stat.st_mtime_ns):
            raise FileProblem(f"{_shown(plan.place)}: the file was changed while it was being read")
    if plan.format is ItemFormat.JSON:
        values = _document(path, plan, stat.st_size)
        return _from_list(values, "" if mark is None else str(mark.offset), most, limit, stat)
    return _from_lines(path, plan, mark, stat, most, taken, limit)


def _from_list(values: list[JSON], position: str, most: int, limit: int, stat: os.stat_result | None = None) -> Page:
    total = min(len(values), most) if most else len(values)
    start = int(position or 0)
    end = min(start + limit, total)
    after = str(end)
    if stat is not None:
        after = msgspec.json.encode(_Mark(end, stat.st_size, stat.st_mtime_ns, total)).decode()
    return Page(values[start:end], after, end >= total, total, "")


def _document(path: Path, plan: ReadPlan, size: int) -> list[JSON]:
    if size > JSON_BYTES:
        raise FileProblem(
            f"{_shown(plan.place)}: the document has {size:,} bytes; at most {JSON_BYTES:,} are read as JSON "
            "(JSON Lines may be of any size)"
        )
    value = decode(path.read_bytes())
    for part in plan.pointer.split("/")[1:]:
        name = part.replace("~1", "/").replace("~0", "~")
        if isinstance(value, dict) and name in value:
            value = value[name]
        elif isinstance(value, list) and name.isdigit() and int(name) < len(value):
            value = value[int(name)]
        else:
            raise FileProblem(NO_SUCH_ITEMS)
    if isinstance(value, dict):
        return [{"Key": key, "Value": each} for key, each in value.items()]
    if not isinstance(value, list):
        raise FileProblem(NO_ITEMS)
    return value


def _from_lines(
    path: Path, plan: ReadPlan, mark: _Mark | None, stat: os.stat_result, most: int, taken: int, limit: int
) -> Page:
    with path.open("rb") as file:
        headers: tuple[str, ...] = ()
        if mark is None:
            begin = _skip_mark(file)
            if plan.format is ItemFormat.CSV:
                headers = plan.headers or tuple(_row(_records(file, True), plan))
            begin = max(begin, file.tell())
            total = sum(1 for record in _records(file, plan.format is ItemFormat.CSV) if record.strip())
            total = min(total, most) if most else total
        else:
            begin, total, headers = mark.offset, mark.total, mark.headers
        file.seek(begin)
        values: list[JSON] = []
        read = 0
        for record in _records(file, plan.format is ItemFormat.CSV):
            if not record.strip():
                continue
            values.append(_item(record, plan, headers))
            read += len(record)
            if len(values) >= limit or read >= PAGE_BYTES or taken + len(values) >= total:
                break
        after = _Mark(file.tell(), stat.st_size, stat.st_mtime_ns, total, headers)
    return Page(values, msgspec.json.encode(after).decode(), taken + len(values) >= total, total, "")


def _skip_mark(file: io.BufferedReader) -> int:
    """Past a byte order mark."""
    begin = 3 if file.read(3) == b"\xef\xbb\xbf" else 0
    file.seek(begin)
    return begin


def _records(file: io.BufferedReader, quoted: bool) -> Iterator[bytes]:
    """Line by line; in a CSV file a record goes on over a line's end within quotes. `tell` is behind the last one."""
    held = b""
    while line := file.readline(LINE_BYTES):
        held += line
        if len(held) >= LINE_BYTES:
            raise FileProblem(f"a line is longer than {LINE_BYTES:,} bytes")
        if quoted and held.count(b'"') % 2:
            continue
        yield held
        held = b""
    if held:
        yield held


def _row(records: Iterator[bytes], plan: ReadPlan) -> list[str]:
    record = next(records, b"")
    if not record.strip():
        raise FileProblem("the file has no first row with the headers")
    return _cells(record, plan)


def _cells(record: bytes, plan: ReadPlan) -> list[str]:
    return next(csv.reader(io.StringIO(record.decode("utf-8"), newline=""), delimiter=plan.delimiter, strict=True))


def _item(record: bytes, plan: ReadPlan, headers: tuple[str, ...]) -> JSON:
    if plan.format is ItemFormat.JSONL:
        return decode(record)
    cells = _cells(record, plan)
    # As the reference service does it: what a short row lacks is empty, what a long one has beyond is left out.
    cells += [""] * (len(headers) - len(cells))
    return dict(zip(headers, cells, strict=False))


def _listed(folder: Path) -> list[JSON]:
    found: list[JSON] = []
    for path in sorted(each for each in folder.rglob("*") if each.is_file()):
        if len(found) >= LISTED:
            raise FileProblem(f"the folder has more than {LISTED:,} files")
        stat = path.stat()
        found.append(
            {
                "Key": str(path.relative_to(folder)),
                "LastModified": int(stat.st_mtime),
                "Size": stat.st_size,
                "StorageClass": "STANDARD",
            }
        )
    return found


class ResultFiles:
    """The files of one Map's results: one for each status, and a manifest that is written last.

    Written anew from the start whenever writing is begun again; a file is complete when the manifest names it.
    """

    def __init__(self, folder: Path | None, plan: WritePlan, name: str) -> None:
        """`name` is that of the folder for this Map's files, new for every Map. Raises FileProblem."""
        self._plan = plan
        self._place = {**plan.place, "Prefix": "/".join(filter(None, [plan.place.get("Prefix", ""), name]))}
        if "Path" in plan.place:
            self._place["Path"] = f"{plan.place['Path']}/{name}"
        self._folder = _path(folder, self._place, "Prefix")
        self._files: dict[str, list[JSON]] = {"FAILED": [], "PENDING": [], "SUCCEEDED": []}
        self._key = self._place.get("Path", self._place["Prefix"])

    def write(self, status: str, pages: Iterator[list[bytes]]) -> None:
        """Every result of one status. Raises FileProblem."""
        ending = "jsonl" if self._plan.lines else "json"
        name = f"{status}_0.{ending}"
        opening, between, closing = (b"", b"\n", b"\n") if self._plan.lines else (b"[", b",", b"]")
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with (self._folder / name).open("wb") as file:
                file.write(opening)
                any_written = False
                for page in pages:
                    for each in page:
                        file.write(between if any_written else b"")
                        file.write(each)
                        any_written = True
                file.write(closing if any_written or not self._plan.lines else b"")
                file.flush()
                os.fsync(file.fileno())
                size = file.tell()
        except OSError as error:
            raise FileProblem(f"{self._key}: {_reason(error)}") from error
        if any_written:
            self._files[status].append({"Key": f"{self._key}/{name}", "Size": size})
        else:
            (self._folder / name).unlink()

    def finish(self, map_run: str) -> JSON:
        """Write the manifest; what the Map state's result says. Raises FileProblem."""
        bucket = self._place.get("Bucket", "")
        files: dict[str, JSON] = {status: list(written) for status, written in self._files.items()}
        manifest: dict[str, JSON] = {"DestinationBucket": bucket, "MapRunArn": map_run, "ResultFiles": files}
        path, unfinished = self._folder / "manifest.json", self._folder / "manifest.json.tmp"
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            unfinished.write_bytes(msgspec.json.encode(manifest))
            unfinished.replace(path)
        except OSError as error:
            raise FileProblem(f"{self._key}: {_reason(error)}") from error
        return {"MapRunArn": map_run, "ResultWriterDetails": {"Bucket": bucket, "Key": f"{self._key}/manifest.json"}}


def flattened(data: bytes) -> list[bytes]:
    """The elements of an array, anything else by itself."""
    if not data.startswith(b"["):
        return [data]
    return [bytes(each) for each in msgspec.json.decode(data, type=list[Raw])]


def _path(folder: Path | None, place: dict[str, str], last: str) -> Path:
    """Inside the folder, links followed. Raises FileProblem."""
    if folder is None:
        raise FileProblem("no folder for files is allowed here: set `folder` in [files] of engine.toml")
    parts = [place["Path"]] if "Path" in place else [place.get("Bucket", ""), place.get(last, place.get("Prefix", ""))]
    root = folder.resolve()
    path = root.joinpath(*(part.lstrip("/") for part in parts)).resolve()
    if not path.is_relative_to(root):
        raise FileProblem(f"{_shown(place)}: leads out of the folder that engine.toml allows")
    return path


def _shown(place: dict[str, str]) -> str:
    return "/".join(value for name in ("Path", "Bucket", "Key", "Prefix") if (value := place.get(name, "")))


def _reason(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "there is no such file"
    return error.strerror or str(error) if isinstance(error, OSError) else str(error)
