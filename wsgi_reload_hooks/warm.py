"""Modules that stay imported from one generation to the next, in a process beside the arbiter: the base.

It has imported what the user named and hides it (see `stash`). When a generation is to be loaded the base leaves a copy
of itself behind and becomes the zygote of that generation. Wherever that cannot be, or must not be, a zygote is forked
from the arbiter, as ever, which imports everything anew.
"""

from __future__ import annotations

import _socket
import json
import os
import socket
import sys
from collections.abc import Collection
from typing import Any, Callable, NoReturn, Optional

from . import subreaper
from .crew import Batch, Crew, Member
from .files import printable
from .journal import Journal
from .native import Native
from .stash import Stash
from .units import Danger, Imported, Recorder, families
from .world import Situation
from .zygote import NAME as ZYGOTE
from .zygote import ZygoteSide, flush, freeze, receive

NAME = b"gunicorn warm"
"""What `ps -o comm` shows of a base."""

# How long the copy that a base leaves behind may take until it tells of itself.
_COMING = 3.0


class ColdSide(ZygoteSide):
    """A zygote that imports everything, and notes how the application imports the modules in *names*."""

    names: Collection[str] = ()

    def prepare(self) -> None:
        self._recorder = Recorder(self.names)
        sys.meta_path.insert(0, self._recorder)

    def loaded(self) -> None:
        sys.meta_path.remove(self._recorder)
        seen = self._recorder.finish()
        self.sender.send("imported", modules=seen.modules, library=seen.library)


class WarmSide(ZygoteSide):
    """The base, and what becomes of it. *imported*: what it is to import, and how."""

    imported = Imported()

    def prepare(self) -> None:
        """Import, wait until there is something to load, and leave a copy that waits for the next time."""
        subreaper.rename(NAME)
        self.idle = True
        self._stash = Stash(self.files)
        self._beginning = ""
        try:
            self._stash.load(self.imported, self._begun)
        except Danger as danger:
            self.sender.send("unfit", module=self._beginning, why=str(danger))
            self.end()
        flush()
        freeze()
        self.sender.send("warm")
        subreaper.forget_files()
        self._stand_by()
        subreaper.rename(ZYGOTE)
        self.idle = False
        self._stash.offer(self._unfit)

    def loaded(self) -> None:
        self._stash.finish()

    def _begun(self, name: str) -> None:
        self._beginning = name
        self.sender.send("warming", module=name)

    def _stand_by(self) -> None:
        copied = True
        while copied:
            self.sender.drain()
            note, numbers = receive(self.way)
            if not note:
                self.end()
            outdated = self._stash.outdated()
            if outdated:
                self.sender.send("outdated", what=outdated)
                self.end()
            self.changed = frozenset(json.loads(note))
            copied = self._copy(*numbers)

    def _copy(self, way: int) -> bool:
        """Leave a copy of this process, which has *way*, as a child of the arbiter's. In the copy this is true."""
        try:
            midwife = self.fork()
        except OSError:
            # The arbiter will wait for it in vain, and have another one made.
            os.close(way)
            return False
        if midwife:
            os.close(way)
            self.waitpid(midwife, 0)
            return False
        try:
            midwife = os.getpid()
            subreaper.end_with(self.pid)
            if self.fork():
                os._exit(0)
            self._settle_in(midwife, way)
        except BaseException:
            # Neither of them has any business further up.
            os._exit(1)
        return True

    def _settle_in(self, midwife: int, way: int) -> None:
        """In the copy: from now on the arbiter is its parent."""
        while os.getppid() == midwife:
            Native().sleep(0.001)
        subreaper.end_with(self.server.pid)
        self.way.close()
        self.way = _socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET, 0, way)
        self.way.settimeout(None)
        self.pid = os.getpid()
        self.sender.become(self.pid)
        self.sender.send("warm")

    def _unfit(self, name: str, why: str) -> NoReturn:
        self.sender.send("unfit", module=name, why=why)
        self.sender.drain()
        if os.getpid() != self.pid:
            # In a process that the application has forked: the arbiter ends the one that loads.
            os._exit(1)
        self.end()


class Warmth:
    """The arbiter's side: what may stay imported, and where the base is. Its methods never wait.

    *names*: the modules, as the user named them; *patience*: how long the base may import, in seconds.
    """

    def __init__(self, names: Collection[str], crew: Crew, journal: Journal, patience: float) -> None:
        self.names = names
        self._crew = crew
        self._journal = journal
        self._patience = patience
        self._refused: set[str] = set()
        self._left: set[str] = set()
        self._imported: Optional[Imported] = None
        self._base: Optional[Member] = None
        self._taken: Optional[Member] = None
        self._beginning = ""
        self._coming: Optional[_socket.socket] = None
        self._coming_since = 0.0
        self._told = False

    def heard(self, member: Member, kind: str, message: dict[str, Any]) -> None:
        """What a zygote or a base says of this."""
        if kind == "imported":
            modules = [(name, Situation(*situation)) for name, situation in message["modules"]]
            self._imported = Imported(modules, message["library"])
            seen = {name for name, _ in modules}
            for name in self.names:
                if name in sys.modules:
                    self._leave(name)
                elif name not in seen:
                    self._refuse(name, "the application does not import it while it is loaded")
        elif kind == "warming":
            self._beginning = message["module"]
        elif kind == "warm":
            member.loaded_all = True
            if member is self._base and not self._told:
                self._told = True
                self._journal.info("warm: %s stay imported", ", ".join(name for name, _ in self._wanted()))
        elif kind == "outdated":
            self._journal.info("warm: %s has changed, everything is imported anew", message["what"])
            self._lose(member)
        elif kind == "unfit":
            self._refuse(message["module"], message["why"])
            self._lose(member)

    def _leave(self, name: str) -> None:
        """That one is in the arbiter, and so in all that it forks."""
        if name not in self._left:
            self._left.add(name)
            self._journal.info("warm: %s is imported by gunicorn itself, or by its configuration: it stays", name)

    def _refuse(self, name: str, why: str) -> None:
        """That one is imported anew from now on, and told once."""
        if name not in self._refused:
            self._refused.add(name)
            self._journal.warning("warm: %s is imported anew from now on: %s", printable(name), printable(why))

    def _lose(self, member: Member) -> None:
        """The base that *member* is, or was, is of no use; nor is its copy."""
        if member is self._base or member.warm:
            self._end_base()

    def _end_base(self) -> None:
        base, self._base = self._base, None
        self._told = False
        if base is not None:
            self._crew.send_away(base)
        if self._coming is not None:
            self._coming.close()
            self._coming = None

    def drop(self) -> None:
        """Configuration and everything else are loaded anew: nothing that was found holds any more."""
        self._end_base()
        self._refused.clear()
        self._imported = None

    def _wanted(self) -> list[tuple[str, Situation]]:
        """What to import, in the order in which the application did."""
        if self._imported is None:
            return []
        wanted = [name for name in self.names if not self._refused.intersection(families([name]))]
        return [each for each in self._imported.modules if each[0] in families(wanted) and each[0] not in sys.modules]

    def build(self, live: Callable[[Any, Imported], NoReturn]) -> None:
        """Where there is no base and may be one, fork it. In the child *live* runs. Nothing else must be going on."""
        wanted = self._wanted()
        if self._base is not None or self._coming is not None or not wanted:
            return
        imported = Imported(wanted, self._imported.library if self._imported is not None else [])
        self._beginning = ""
        try:
            self._base = self._crew.load(None, lambda way: live(way, imported))
        except OSError as error:
            self._journal.warning("warm: no process can be had (%s): everything is imported anew", error.strerror)
            self._imported = None

    def take(self, batch: Batch, changed: Collection[str], now: float) -> bool:
        """Have the base load for *batch*; whether there is one that can."""
        base = self._base
        if base is None or not base.loaded_all:
            return False
        self._base, self._taken = None, base
        try:
            self._coming, self._coming_since = self._crew.begin(base, batch, changed), now
        except OSError:
            self._base = base
            self._end_base()
            return False
        return True

    def arrived(self, pid: int) -> None:
        """The copy that a base has left behind is there."""
        if self._coming is not None:
            self._base = self._crew.welcome(pid, self._coming)
            self._coming = None

    def ended(self, member: Member) -> None:
        """A base has ended, without having been told to."""
        if member is not self._base:
            return
        self._base = None
        how = member.ended or "killed"
        if not member.loaded_all and self._beginning:
            self._refuse(self._beginning, f"the process that imports it by itself ends ({how})")
        else:
            self._journal.warning(
                "warm: the process that keeps modules imported has ended (%s): the next reload imports everything anew",
                how,
            )
            # From what is seen then, the next one is made.
            self._told, self._imported = False, None

    def give_up(self, member: Member) -> None:
        """What was refused by a zygote that came from a base is good where everything is imported anew."""
        assert member.instead is not None
        self._journal.warning(
            "warm: off until the next HUP: code loads anew that did not load with it (%s)",
            self._journal.place(member.instead),
        )
        self._end_base()
        self._imported = None
        self._refused.update(self.names)

    def step(self, now: float) -> Optional[Member]:
        """Whoever does not come in time is not waited for: the one that was to load, and does not move, if there is one."""
        stuck = None
        if self._coming is not None and now - self._coming_since > _COMING:
            self._end_base()
            stuck = self._taken if self._taken is not None and self._taken.last_loaded is None else None
        base = self._base
        if base is not None and not base.loaded_all and now - base.since > self._patience:
            self._end_base()
            self._imported = self._imported if self._beginning else None
            self._refuse(
                self._beginning or ", ".join(self.names),
                f"importing it by itself takes more than {self._patience:g} s",
            )
        return stuck

    @property
    def waiting(self) -> bool:
        """Whether `step` has something to look after."""
        return self._coming is not None or (self._base is not None and not self._base.loaded_all)
