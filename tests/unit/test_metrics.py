"""The file for Prometheus."""

from __future__ import annotations

import dataclasses
import os
import re
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from harness import processes
from harness.waiting import wait_until

from wsgi_reload_hooks.core.log import ReloadLog
from wsgi_reload_hooks.report.callbacks import Rights
from wsgi_reload_hooks.report.history import History
from wsgi_reload_hooks.report.metrics import Metrics, can_change, text

pytestmark = pytest.mark.unit

RECORD = History(
    server="gunicorn",
    root='/srv/my "shop"\\\n',
    reloads=3,
    refusals=2,
    seconds=4.25,
    last_reload={"at": 1700000000.5, "seconds": 1.25},
    last_refusal={"at": 1700000001},
    watched=12,
    workers=4,
    refused=True,
)
VALUES = {
    "reloads_total": 3.0,
    "refusals_total": 2.0,
    "seconds_total": 4.25,
    "last_seconds": 1.25,
    "last_reload_timestamp_seconds": 1700000000.5,
    "last_refusal_timestamp_seconds": 1700000001.0,
    "watched_files": 12.0,
    "workers": 4.0,
    "refused": 1.0,
    "paused": 0.0,
}
SAMPLE = re.compile(r'(\w+)\{(\w+="(?:[^"\\\n]|\\[\\"n])*"(?:,\w+="(?:[^"\\\n]|\\[\\"n])*")*)\} (\S+)')
ESCAPES = {"\\\\": "\\", '\\"': '"', "\\n": "\n"}


class Log:
    """Keeps the lines."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def warning(self, text: str, *arguments: object) -> None:
        self.lines.append(text % arguments)


def parsed(content: str) -> dict[str, tuple[str, dict[str, str], float]]:
    """Name -> type, labels and value of each sample; every line has to be one that the format knows."""
    assert content.endswith("\n")
    found: dict[str, tuple[str, dict[str, str], float]] = {}
    kind = ""
    for line in content[:-1].split("\n"):
        if line.startswith("# HELP "):
            assert re.fullmatch(r"# HELP \w+ [^\\]+", line)
        elif line.startswith("# TYPE "):
            name, kind = line.split()[2:]
            assert kind in ("counter", "gauge") and (kind == "counter") == name.endswith("_total")
        else:
            sample = SAMPLE.fullmatch(line)
            assert sample is not None, line
            labels = re.findall(r'(\w+)="((?:[^"\\]|\\.)*)"', sample[2])
            plain = {key: re.sub(r"\\.", lambda match: ESCAPES[match[0]], value) for key, value in labels}
            assert sample[1] not in found
            found[sample[1]] = kind, plain, float(sample[3])
    return found


def test_the_format() -> None:
    """Each number has its help, its type and both labels, whatever is in the project's name."""
    found = parsed(text(RECORD))
    assert {name: value for name, (_, _, value) in found.items()} == {
        f"wsgi_reload_{name}": value for name, value in VALUES.items()
    }
    assert all(labels == {"server": "gunicorn", "project": RECORD.root} for _, labels, _ in found.values())


def test_prometheus_reads_it() -> None:
    """The parser of its own client finds the same."""
    parser = pytest.importorskip("prometheus_client.parser")
    families = list(parser.text_string_to_metric_families(text(RECORD)))
    samples = [sample for family in families for sample in family.samples]
    assert {sample.name.removeprefix("wsgi_reload_"): sample.value for sample in samples} == VALUES
    assert all(sample.labels == {"server": "gunicorn", "project": RECORD.root} for sample in samples)
    assert all(family.documentation for family in families)


def metrics(path: Path) -> tuple[Metrics, list[str]]:
    log = Log()
    return Metrics(str(path), ReloadLog(log, str(path.parent))), log.lines


def test_everybody_may_read_it(tmp_path: Path) -> None:
    """It is replaced as a whole, nothing is left beside it, and another user's exporter may read it."""
    path = tmp_path / "reload.prom"
    writer, told = metrics(path)
    before = os.umask(0o077)
    try:
        writer.write(History())
        first = path.stat().st_ino
        writer.write(RECORD)
    finally:
        os.umask(before)
    assert path.read_text() == text(RECORD) and path.stat().st_ino != first
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert os.listdir(tmp_path) == [path.name] and not told


def test_links_are_not_followed(tmp_path: Path) -> None:
    """What lies in the place of the sibling, or of the file, is replaced and not written to."""
    other = tmp_path / "other"
    other.write_text("theirs")
    path = tmp_path / "reload.prom"
    path.symlink_to(other)
    Path(f"{path}.{os.getpid()}").symlink_to(other)
    writer, told = metrics(path)
    writer.write(RECORD)
    assert other.read_text() == "theirs" and not path.is_symlink() and not told


def test_a_file_that_cannot_be_written_is_told_once(tmp_path: Path) -> None:
    """One line, until it could be written; nothing is left beside it."""
    path = tmp_path / "run" / "reload.prom"
    writer, told = metrics(path)
    for _ in range(2):
        writer.write(RECORD)
    assert told == [f"reload: metrics_file {path} cannot be written: No such file or directory"]
    path.parent.mkdir()
    writer.write(RECORD)
    path.unlink()
    path.mkdir()
    for _ in range(2):
        writer.write(RECORD)
    assert len(told) == 2 and "Is a directory" in told[1]
    assert os.listdir(path.parent) == [path.name]


def test_without_the_setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No name, no file."""
    monkeypatch.chdir(tmp_path)
    log = Log()
    Metrics("", ReloadLog(log, str(tmp_path))).write(RECORD)
    assert os.listdir(tmp_path) == [] and log.lines == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_what_the_workers_can_change(public: Path) -> None:
    """A folder of theirs, of their group or of all, everything below it, and links to it; nothing else."""
    rights = Rights(1234, 2345, (3456,))
    for name, uid, gid, mode in (
        ("root", 0, 0, 0o755),
        ("root_group", 0, 0, 0o775),
        ("own", 1234, 0, 0o555),
        ("group", 0, 3456, 0o775),
        ("all", 0, 0, 0o1777),
        ("other", 4321, 0, 0o755),
    ):
        folder = public / name
        folder.mkdir()
        os.chown(folder, uid, gid)
        folder.chmod(mode)
    (public / "link").symlink_to("root")
    (public / "link_to_own").symlink_to("own/below")
    (public / "own" / "below").symlink_to(public / "root")
    places = ("root", "root/gone", "root_group", "own", "own/gone", "group", "all", "other", "link", "link_to_own")
    changeable = {name for name in places if can_change(str(public / name), rights)}
    assert changeable == {"own", "own/gone", "group", "all", "link_to_own"}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can take on other rights")
def test_written_with_the_workers_rights(public: Path) -> None:
    """Where the workers chose the place: the newest numbers, a file of theirs; what they may not write is told once."""
    folder = public / "own"
    folder.mkdir()
    os.chown(folder, 65534, 65534)
    log = Log()
    writer = Metrics(str(folder / "reload.prom"), ReloadLog(log, str(folder)), Rights(65534, 65534))
    for workers in (1, 2, 3):
        writer.write(dataclasses.replace(RECORD, workers=workers))
    path = folder / "reload.prom"
    newest = text(dataclasses.replace(RECORD, workers=3))
    until(writer, lambda: path.exists() and path.read_text() == newest)
    assert path.stat().st_uid == 65534 and not log.lines
    os.chown(folder, 0, 0)
    before = path.read_text()
    chosen = folder / "pyproject.toml"
    chosen.touch()
    os.chown(chosen, 65534, 65534)
    writer = Metrics(str(path), ReloadLog(log, str(folder)), Rights(65534, 65534), chosen_in=str(chosen))
    writer.write(History())
    writer.write(History())
    until(writer, lambda: bool(log.lines))
    assert log.lines == [f"reload: metrics_file {path} cannot be written: Permission denied"]
    assert path.read_text() == before
    chosen.chmod(0o644)
    os.chown(chosen, 0, 0)
    writer.write(History())
    assert path.read_text() == text(History()) and path.stat().st_uid == 0


def until(writer: Metrics, condition: Callable[[], bool]) -> None:
    """Wait until *condition* is true, and the processes that write have ended and are reaped."""

    def holds() -> bool:
        writer.look()
        return condition() and not processes.offspring(os.getpid())

    wait_until(holds, "what the writer does")


@pytest.fixture
def public() -> Iterator[Path]:
    """A folder below folders of root's only."""
    with tempfile.TemporaryDirectory(dir="/var/lib", prefix="wrh-") as folder:
        os.chmod(folder, 0o755)
        yield Path(folder)
