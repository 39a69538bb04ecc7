"""On which file systems does the kernel not tell of every change: the table of mounts, and the kinds in it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from wsgi_reload_hooks.watching import mounts as module
from wsgi_reload_hooks.watching.mounts import Mount, deaf, mounts

pytestmark = pytest.mark.unit

KEPT_TO_THEMSELVES = ("nfs4", "nfs", "cifs", "smb3", "9p", "virtiofs", "vboxsf", "fuse.sshfs", "fuse.grpcfuse")
TELLING = ("ext4", "tmpfs", "overlay", "btrfs", "xfs", "zfs", "ramfs", "f2fs", "bcachefs", "apfs", "vfat")
TABLE = Path("/proc/self/mountinfo")


def line(place: str, kind: str, optional: str = "shared:1", source: str = "/dev/vda") -> str:
    """A line as proc(5) has it; *optional*: none, one or more fields before the lone hyphen."""
    fields = ["36", "35", "98:0", "/", place, "rw,noatime", *optional.split(), "-", kind, source, "rw,errors=continue"]
    return " ".join(fields)


def as_it_is(path: str) -> str:
    return path


def kinds(table: list[Mount], *folders: str) -> dict[str, str]:
    return deaf(folders, table, as_it_is)


# -- the table -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("optional", ["", "shared:1", "shared:1 master:2", "shared:1 master:2 propagate_from:3"])
def test_optional_fields(optional: str) -> None:
    """However many optional fields a line has: the kind is what follows the lone hyphen."""
    assert mounts(line("/srv", "nfs4", optional)) == [Mount("/srv", "nfs4")]


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        (r"/My\040Project", "/My Project"),
        (r"/tab\011and\012line", "/tab\tand\nline"),
        (r"/back\134slash", "/back\\slash"),
        (r"/back\134040slash", "/back\\040slash"),
        (r"/hash\043", "/hash#"),
        ("/two words-", "/two words-"),
        ("/grüße", "/grüße"),
    ],
)
def test_octal_escapes(written: str, meant: str) -> None:
    """The kernel writes blanks and backslashes as octal numbers, each of them once."""
    table = mounts(line(written.replace(" ", r"\040"), "cifs"))
    assert table == [Mount(meant, "cifs")]
    assert kinds(table, meant, meant + "/app") == {meant: "cifs", meant + "/app": "cifs"}


def test_hyphen_in_a_place() -> None:
    """A hyphen in the name of a place is not the one that ends the optional fields."""
    assert mounts(line(r"/a\040-\040b", "9p", "")) == [Mount("/a - b", "9p")]


@pytest.mark.parametrize("text", ["", "\n", "nonsense", "1 2 3 - ext4 x rw", "1 2 3 4 /srv rw shared:1", " - - - "])
def test_what_is_no_table(text: str) -> None:
    """A line that is none says nothing, and does not spoil the others."""
    assert mounts(text) == []
    assert mounts(f"{text}\n{line('/srv', 'nfs')}\n") == [Mount("/srv", "nfs")]


def as_the_kernel_writes(name: str) -> str:
    return "".join(rf"\{ord(each):03o}" if each in " \t\n\\#" else each for each in name)


# Python takes these for ends of lines, too.
ENDS = "\r\v\f\x1c\x1d\x1e\x85\u2028\u2029"


@hypothesis_settings(deadline=None, database=None)
@given(st.text(st.characters(blacklist_characters="\0" + ENDS, blacklist_categories=["Cs"])), st.text(" \\\t\n#- a0"))
def test_any_name_of_a_place(name: str, other: str) -> None:
    """Whatever a place is called: it is read as it was written."""
    places = ["/" + name, "/" + other]
    assert mounts("\n".join(line(as_the_kernel_writes(place), "nfs") for place in places)) == [
        Mount(place, "nfs") for place in places
    ]


@pytest.mark.parametrize("end", ENDS)
def test_only_the_end_of_a_line_ends_it(end: str) -> None:
    """The kernel escapes no more than blanks, tabs, backslashes and its own end of lines."""
    assert mounts(line(f"/a{end}b", "nfs")) == [Mount(f"/a{end}b", "nfs")]


def test_the_table_of_this_machine() -> None:
    """The kernel's own table is read: one mount for each line, one of them the root, none with a blank for a kind."""
    if not TABLE.exists():
        pytest.skip("only Linux has /proc/self/mountinfo")
    found = mounts()
    assert len(found) >= len(TABLE.read_bytes().splitlines()) - 1 > 0
    assert "/" in {mount.place for mount in found}
    assert all(mount.place.startswith("/") and mount.kind and " " not in mount.kind for mount in found)
    assert "proc" in {mount.kind for mount in found}
    assert module._kind("/proc/self", found) == "proc"


def test_a_place_that_is_not_utf8(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a place whose name is no text Python's own spelling is what counts."""
    place = os.fsdecode(b"/srv/\xff\xfe")
    table = tmp_path / "mountinfo"
    table.write_bytes(os.fsencode(line(place, "nfs") + "\n" + line("/", "ext4") + "\n"))
    monkeypatch.setattr(module, "_TABLE", str(table))
    assert kinds(mounts(), place + "/app", "/srv") == {place + "/app": "nfs"}


def test_no_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the system has no table, nothing is known and nothing is said."""
    monkeypatch.setattr(module, "_TABLE", str(tmp_path / "none"))
    assert mounts() == []
    assert deaf([str(tmp_path)], mounts()) == {}


# -- what lies where -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KEPT_TO_THEMSELVES)
def test_kinds_that_keep_changes_to_themselves(kind: str) -> None:
    """What another machine, the host or a program of its own may write to is named with its kind."""
    table = mounts("\n".join([line("/", "ext4"), line("/srv", kind)]))
    assert kinds(table, "/srv", "/srv/app/pkg", "/home") == {"/srv": kind, "/srv/app/pkg": kind}


@pytest.mark.parametrize("kind", [*TELLING, "9pfs", "xnfs", "cephalopod"])
def test_kinds_that_tell(kind: str) -> None:
    """What only this kernel writes to is not named, nor what is only called much like one that is."""
    table = mounts("\n".join([line("/", "nfs4"), line("/srv", kind)]))
    assert kinds(table, "/srv", "/srv/app", "/home") == {"/home": "nfs4"}


def test_whole_names_only() -> None:
    """`/srv/app2` does not lie in `/srv/app`, and `/srv` not either."""
    table = [Mount("/", "ext4"), Mount("/srv/app", "nfs")]
    assert kinds(table, "/srv/app", "/srv/app/x", "/srv/app2", "/srv/app2/x", "/srv", "/srv/ap") == {
        "/srv/app": "nfs",
        "/srv/app/x": "nfs",
    }


def test_the_root() -> None:
    """All lies in the root, and the root itself does."""
    assert kinds([Mount("/", "virtiofs")], "/", "/a", "/a/b") == dict.fromkeys(("/", "/a", "/a/b"), "virtiofs")


def test_the_deepest_counts_wherever_it_stands() -> None:
    """A mount in a mount: the deepest one counts, also if it stands before the other in the table."""
    table = [Mount("/srv/app/cache", "tmpfs"), Mount("/srv/app", "nfs"), Mount("/", "ext4")]
    assert kinds(table, "/srv/app/cache/x", "/srv/app/x", "/srv") == {"/srv/app/x": "nfs"}


@pytest.mark.parametrize("place", ["/", "/srv"])
def test_the_later_one_hides_the_earlier(place: str) -> None:
    """Of two mounts in one place the later line is what is to be seen."""
    assert kinds([Mount(place, "nfs"), Mount(place, "ext4")], "/srv/x") == {}
    assert kinds([Mount(place, "ext4"), Mount(place, "nfs")], "/srv/x") == {"/srv/x": "nfs"}


def test_a_folder_that_lies_nowhere() -> None:
    """In a table without a root (a container may have one) a folder beside all of its places has no kind."""
    assert kinds([Mount("/srv", "nfs")], "/home", "/") == {}


def test_links_are_followed(tmp_path: Path) -> None:
    """A folder is where its real path lies, and is named as it was asked for."""
    (tmp_path / "far").mkdir()
    (tmp_path / "near").symlink_to(tmp_path / "far")
    real = os.path.realpath(tmp_path)
    table = [Mount("/", "ext4"), Mount(f"{real}/far", "fuse.sshfs")]
    asked = f"{tmp_path}/near"
    assert deaf([asked], table) == {asked: "fuse.sshfs"}
    assert deaf([asked], table, as_it_is) == {}
