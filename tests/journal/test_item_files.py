"""Files of items and of results: formats, pages, bounds, and what a definition cannot reach."""

from __future__ import annotations

import json
import os

import pytest

from daemon.journal import item_files
from daemon.journal.item_files import FileProblem, ResultFiles, flattened, read_page
from daemon.language.definition import ItemFormat
from daemon.language.distribute import ReadPlan, WritePlan


def plan(format=ItemFormat.JSONL, name="items", **more):
    return ReadPlan(format=format, place={"Path": name}, **more)


def read_all(folder, wanted, limit=2):
    values, position, pages = [], "", 0
    while True:
        page = read_page(folder, wanted, position, len(values), limit)
        values += page.values
        pages += 1
        position = page.position
        assert page.total is not None
        if page.exhausted:
            assert len(values) == page.total
            return values, pages


@pytest.mark.parametrize(
    ("content", "more", "items"),
    [
        ('{"a":1}\n{"a":2}\n{"a":3}\n', {}, [{"a": 1}, {"a": 2}, {"a": 3}]),
        ('\ufeff{"a":1}\n\n{"a":2}', {}, [{"a": 1}, {"a": 2}]),
        ("1\n2\n3\n4\n5\n", {"max_items": 3}, [1, 2, 3]),
        ("", {}, []),
        ("a,b\n1,2\n3,4\n", {"format": ItemFormat.CSV}, [{"a": "1", "b": "2"}, {"a": "3", "b": "4"}]),
        (
            'a;b\r\n"x;1";"two\r\nlines"\r\n',
            {"format": ItemFormat.CSV, "delimiter": ";"},
            [{"a": "x;1", "b": "two\r\nlines"}],
        ),
        (
            "1,2\n3\n4,5,6\n",
            {"format": ItemFormat.CSV, "headers": ("a", "b")},
            [{"a": "1", "b": "2"}, {"a": "3", "b": ""}, {"a": "4", "b": "5"}],
        ),
        ("a\n", {"format": ItemFormat.CSV}, []),
        ("[1, 2, [3]]", {"format": ItemFormat.JSON}, [1, 2, [3]]),
        ('{"x": {"y/z": [1, 2]}}', {"format": ItemFormat.JSON, "pointer": "/x/y~1z"}, [1, 2]),
        ("[[5], [6, 7]]", {"format": ItemFormat.JSON, "pointer": "/1"}, [6, 7]),
        ('{"k": 1, "l": 2}', {"format": ItemFormat.JSON}, [{"Key": "k", "Value": 1}, {"Key": "l", "Value": 2}]),
        ("[1,2,3]", {"format": ItemFormat.JSON, "max_items": 2}, [1, 2]),
    ],
)
@pytest.mark.parametrize("limit", [1, 2, 100])
def test_items_are_read_page_by_page(tmp_path, content, more, items, limit):
    (tmp_path / "items").write_bytes(content.encode())
    found, pages = read_all(tmp_path, plan(**more), limit)
    assert found == items
    assert pages == max(1, -(-len(items) // limit))


@pytest.mark.parametrize(
    ("content", "more", "says"),
    [
        ("{", {}, "items: "),
        ("1\n{\n", {}, "items: "),
        ("", {"format": ItemFormat.CSV}, "no first row"),
        ('a\n"x\n', {"format": ItemFormat.CSV}, "items: "),
        ("5", {"format": ItemFormat.JSON}, "Attempting to map over non-iterable node."),
        (
            "[1]",
            {"format": ItemFormat.JSON, "pointer": "/a"},
            "The provided ReaderConfig.ItemsPointer does not match any valid path in the JSON structure.",
        ),
        (b"\xff\xfe\n", {"format": ItemFormat.CSV}, "items: "),
    ],
)
def test_what_cannot_be_read_says_why(tmp_path, content, more, says):
    (tmp_path / "items").write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(FileProblem, match=says.replace("/", "/")):
        read_all(tmp_path, plan(**more))


def test_a_folder_is_listed_in_order(tmp_path):
    (tmp_path / "in" / "b").mkdir(parents=True)
    (tmp_path / "in" / "a.txt").write_text("x")
    (tmp_path / "in" / "b" / "c.txt").write_text("yy")
    found, _ = read_all(tmp_path, plan(ItemFormat.LIST, "in"))
    assert [(each["Key"], each["Size"]) for each in found] == [("a.txt", 1), ("b/c.txt", 2)]


def test_a_file_that_changes_meanwhile_is_noticed(tmp_path):
    file = tmp_path / "items"
    file.write_text("1\n2\n3\n")
    page = read_page(tmp_path, plan(), "", 0, 1)
    file.write_text("1\n2\n3\n4\n")
    with pytest.raises(FileProblem, match="was changed while it was being read"):
        read_page(tmp_path, plan(), page.position, 1, 1)


def test_nothing_is_reached_outside_of_the_folder(tmp_path):
    inside = tmp_path / "inside"
    inside.mkdir()
    (tmp_path / "secret").write_text("1\n")
    os.symlink(tmp_path / "secret", inside / "link")
    for name in ("../secret", "link", "a/../../secret"):
        with pytest.raises(FileProblem, match="leads out of the folder"):
            read_page(inside, plan(name=name), "", 0, 1)
        with pytest.raises(FileProblem, match="leads out of the folder"):
            ResultFiles(inside, WritePlan(place={"Path": f"../{name}"}), "run")
    # What begins with a slash is in the folder all the same.
    with pytest.raises(FileProblem, match="no such file"):
        read_page(inside, plan(name="/secret"), "", 0, 1)
    with pytest.raises(FileProblem, match=r"engine\.toml"):
        read_page(None, plan(), "", 0, 1)


def test_lines_and_documents_are_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(item_files, "LINE_BYTES", 1000)
    monkeypatch.setattr(item_files, "JSON_BYTES", 1000)
    (tmp_path / "items").write_text(json.dumps(["x" * 2000]))
    with pytest.raises(FileProblem, match="a line is longer"):
        read_all(tmp_path, plan())
    with pytest.raises(FileProblem, match="the document has"):
        read_all(tmp_path, plan(ItemFormat.JSON))


@pytest.mark.parametrize("lines", [False, True])
def test_results_are_written_by_status_and_the_manifest_names_them(tmp_path, lines):
    files = ResultFiles(tmp_path, WritePlan(place={"Bucket": "b", "Prefix": "p"}, lines=lines), "run.3")
    files.write("SUCCEEDED", iter([[b"1", b"[2]"], [b'"three"']]))
    files.write("FAILED", iter([]))
    result = files.finish("run.3")
    ending = "jsonl" if lines else "json"
    assert result == {"MapRunArn": "run.3", "ResultWriterDetails": {"Bucket": "b", "Key": "p/run.3/manifest.json"}}
    manifest = json.loads((tmp_path / "b" / "p" / "run.3" / "manifest.json").read_text())
    (written,) = manifest["ResultFiles"]["SUCCEEDED"]
    assert written["Key"] == f"p/run.3/SUCCEEDED_0.{ending}"
    text = (tmp_path / "b" / written["Key"]).read_text()
    assert ([json.loads(line) for line in text.splitlines()] if lines else json.loads(text)) == [1, [2], "three"]
    assert manifest["ResultFiles"]["FAILED"] == []
    assert sorted(each.name for each in (tmp_path / "b" / "p" / "run.3").iterdir()) == [
        f"SUCCEEDED_0.{ending}",
        "manifest.json",
    ]


def test_flattening_takes_arrays_apart():
    assert flattened(b"[1,[2],{}]") == [b"1", b"[2]", b"{}"]
    assert flattened(b'{"a":1}') == [b'{"a":1}']
