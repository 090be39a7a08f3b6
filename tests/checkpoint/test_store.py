"""Lines of checkpoints: committed once, found again, the same in every kind of place."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from graphorch_ray.checkpoint.blobs import blob_name
from graphorch_ray.checkpoint.manifest import Blob, Header, Stored
from graphorch_ray.checkpoint.store import Store
from graphorch_ray.errors import CheckpointError, GraphWarning
from tests.checkpoint.conftest import Where
from tests.checkpoint.makers import step

VALUE = bytes(range(256)) * 1000


def test_an_empty_place_has_nothing(where: Where) -> None:
    store = where.store()
    assert store.lines() == []
    assert store.newest_line() is None
    assert store.checkpoints() == []


def test_the_newest_commit_is_found_again(where: Where) -> None:
    line = where.store().create_line(Header(run_id="7", graph_name="g"))
    assert line.newest() is None
    written = [line.commit(step(superstep)) for superstep in range(3)]
    again = where.store().newest_line()
    assert again is not None
    assert again.header == line.header
    assert again.newest() == written[-1]
    assert again.newest(before=written[-1].seq) == written[-2]
    assert again.at(1) == written[1]
    assert [(m.seq, m.epoch) for m in written] == [(1, 1), (2, 1), (3, 1)]


def test_a_superstep_that_is_not_there_is_an_error_that_lists_those_that_are(where: Where) -> None:
    line = where.store().create_line(Header(run_id="7"))
    for superstep in (2, 5):
        line.commit(step(superstep))
    with pytest.raises(CheckpointError, match=r"no checkpoint of superstep 3.*of: 2, 5"):
        line.at(3)


def test_a_new_line_takes_the_next_number_and_leaves_the_old_ones_alone(where: Where) -> None:
    store = where.store()
    first = store.create_line(Header(run_id="7"))
    first.commit(step(0))
    second = where.store().create_line(Header(run_id="8", parent=("000001", 1)))
    second.commit(step(4))
    assert store.lines() == ["000001", "000002"]
    newest = store.newest_line()
    assert newest is not None
    assert (newest.name, newest.header.run_id, newest.header.parent) == (
        "000002",
        "8",
        ("000001", 1),
    )
    first.commit(step(1))


def test_a_header_may_name_blobs_that_are_written_before_it(where: Where) -> None:
    line = where.store().create_line(
        lambda blobs: Header(run_id="7", graph=Stored(blobs.put([VALUE])[0]))
    )
    graph = where.store().line(line.name).header.graph
    assert graph is not None
    assert isinstance(graph.document, Blob)
    assert line.blobs.get(graph.document) == VALUE


def test_an_unknown_line_is_an_error_that_lists_the_lines(where: Where) -> None:
    store = where.store()
    store.create_line(Header(run_id="7"))
    for name in ("000009", "../etc"):
        with pytest.raises(CheckpointError, match="lines are 000001"):
            store.line(name)


def test_blobs_travel_and_a_value_is_written_once(where: Where) -> None:
    line = where.store().create_line(Header(run_id="7"))
    blobs = pickle.loads(pickle.dumps(line.blobs)) if where.kind != "plain" else line.blobs
    blob, reused = blobs.put([VALUE[:1000], memoryview(VALUE)[1000:]])
    assert not reused
    assert line.blobs.put([VALUE]) == (blob, True)
    assert line.blobs.put([VALUE], force=True) == (blob, False)
    assert line.blobs.get(blob) == VALUE
    assert line.blobs.get(blob).readonly
    assert blobs.visible()


def test_a_blob_that_is_missing_or_damaged_is_named(where: Where) -> None:
    line = where.store().create_line(Header(run_id="7"))
    files = line._files
    blob, _ = line.blobs.put([VALUE])
    files.delete([blob_name(blob)])
    with pytest.raises(CheckpointError, match=f"{blob.digest}' of a checkpoint is missing"):
        line.blobs.get(blob)
    for wrong in (VALUE[:-1] + b"?", VALUE[:-1], b""):
        files.put("lines/000001/b", [wrong], lambda: blob.digest)
        with pytest.raises(CheckpointError, match=f"{blob.digest}' of a checkpoint is damaged"):
            line.blobs.get(blob)
    # One of another length is not taken for it; writing by force mends any.
    assert line.blobs.put([VALUE]) == (blob, False)
    assert line.blobs.get(blob) == VALUE


def test_a_process_that_does_not_share_the_disk_sees_another_store(tmp_path: Path) -> None:
    line = Store(tmp_path / "shared").create_line(Header(run_id="7"))
    assert line.blobs.visible()
    (tmp_path / "shared").rename(tmp_path / "elsewhere")
    assert not line.blobs.visible()
    Store(tmp_path / "shared").create_line(Header(run_id="7"))
    assert not line.blobs.visible()


@pytest.mark.parametrize("size", [0, 100_000, 9_000_000])
def test_compressed_values_come_back_and_plain_ones_are_left_plain(where: Where, size: int) -> None:
    line = where.store(compression="zstd").create_line(Header(run_id="7"))
    blob, _ = line.blobs.put([b"a" * (size // 2), b"b" * (size // 2)])
    if size:
        assert blob.codec == "zstd"
        assert blob.stored < blob.nbytes / 100
        assert line._files.size(blob_name(blob)) == blob.stored
    assert line.blobs.get(blob) == b"a" * (size // 2) + b"b" * (size // 2)
    assert line.blobs.put([b"a" * (size // 2) + b"b" * (size // 2)]) == (blob, True)
    import random

    noise = random.Random(0).randbytes(100_000)
    assert line.blobs.put([noise])[0].codec == ""


def test_a_torn_or_changed_manifest_is_passed_over_with_a_warning_that_names_it(
    where: Where,
) -> None:
    line = where.store().create_line(Header(run_id="7"))
    good = [line.commit(step(superstep)) for superstep in range(2)]
    whole = good[1].to_bytes(None, line.header.nonce)
    other = step(1).to_bytes(None, line.header.nonce)
    for wrong in (b"", whole[:40], whole[:-1], whole[:50] + b"!" + whole[51:], b"?" * 300, other):
        line._files.put("lines/000001/m/000000", [wrong], lambda: "000000002")
        with pytest.warns(GraphWarning, match=r"m/000000/000000002' is passed over: it"):
            assert line.newest() == good[0]
    with pytest.warns(GraphWarning, match="000000002"):
        infos = where.store().checkpoints()
    assert [(info.seq, info.valid) for info in infos] == [(1, True), (2, False)]


def test_checkpoints_are_listed_with_what_they_hold(where: Where) -> None:
    store = where.store()
    line = store.create_line(Header(run_id="7"))
    blob, _ = line.blobs.put([VALUE])
    line.commit(step(0, blob))
    line.pin("before lunch", 1)
    line.commit(step(1))
    assert [
        (i.line, i.seq, i.superstep, i.status, i.active, i.nbytes, i.savepoints)
        for i in store.checkpoints()
    ] == [
        ("000001", 1, 0, "running", ("a",), len(VALUE) + 1, ("before lunch",)),
        ("000001", 2, 1, "running", ("a",), 1, ()),
    ]


def test_a_thousand_manifests_are_listed_in_groups(where: Where) -> None:
    if where.kind in ("s3", "plain"):
        pytest.skip("slow there")
    line = where.store().create_line(Header(run_id="7"))
    line._next = 998
    for superstep in range(5):
        line.commit(step(superstep))
    newest = where.store().line("000001").newest()
    assert newest is not None
    assert newest.seq == 1002
    assert [seq for seq, _ in line.manifests()] == [998, 999, 1000, 1001, 1002]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"compression": "gzip"}, "compression must be None or 'zstd'"),
        ({"keep_last": 0}, "keep_last must be a whole number of 1 or more"),
        ({"keep_last": True}, "keep_last must be"),
        ({"key": 7}, "key must be bytes or str"),
    ],
)
def test_a_wrong_argument_is_refused(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        Store("anywhere", **arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("nosuch://bucket/run", "nosuch"),
        ("s3://no-bucket-of-this-name/run", "Cannot list .*bucket does not exist"),
    ],
)
def test_a_place_that_cannot_be_is_one_clear_error(
    url: str, message: str, s3: object, request: pytest.FixtureRequest
) -> None:
    options = request.getfixturevalue("s3_server").options if url.startswith("s3") else None
    with pytest.raises(CheckpointError, match=message):
        Store(url, storage_options=options).create_line(Header(run_id="7"))
