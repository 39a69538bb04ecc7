"""What the server's log says, in one place: a wording changes here and nowhere else."""

from __future__ import annotations

import re

# One written line can hold "app.py, views.py and 12 more".
OURS = r"reload: "
WATCHING = (
    OURS + r"watching (?P<files>\d+) files? (?:every (?P<interval>[\d.]+) s|by events) \((?P<engine>\w+) engine\)"
)
RELOADED = OURS + r"reloaded in (?P<seconds>[\d.]+) s: (?P<what>.*); (?P<workers>\d+) workers?"
REFUSED = OURS + r"refused, still serving the previous version: (?P<why>.*)"
WAITING_FOR_REPAIR = OURS + r"the application does not load, waiting for its repair: (?P<why>.*)"
CONFIGURATION_REFUSED = OURS + r"configuration refused, still running with the previous one: (?P<why>.*)"
PRELOADED = OURS + r"the application was loaded before these hooks"
NOT_SHARED = OURS + r"no import is shared on this system"

SENT = OURS + r"(?P<signal>\w+) sent to (?P<pid>\d+) \((?P<name>.+?)\): (?P<what>.*)"
NOT_YET = OURS + r"nothing sent yet: (?P<why>.*)"
TOO_LATE = OURS + r"nothing to send, (?P<pid>\d+) \(.*\) was started after the save: (?P<what>.*)"
COMMAND = OURS + r"(?:the )?command (?P<what>.*)"

LISTENING = r"Listening at: http://127\.0\.0\.1:(?P<port>\d+)"
BOOTING = r"Booting worker with pid: (?P<pid>\d+)"
SHUTTING_DOWN = r"Shutting down: Master"

# The router speaks first, where there is one; of port 0 only the plain socket tells what became of it.
UWSGI_LISTENING = r"(?:uWSGI http bound on|bound to TCP address) [^\s:]*:(?P<port>[1-9]\d*)"
UWSGI_WORKER = r"(?:spawned uWSGI worker \d+ \(|Respawned uWSGI worker \d+ \(new )pid: (?P<pid>\d+)"
# Workers, mules, the router: whatever the master forks, it says so afterwards.
UWSGI_CHILD = r"(?i:spawned) .*pid: (?P<pid>\d+)"
UWSGI_EXEC = r"binary reloading uWSGI"

_UWSGI_ANSWERS = re.compile(r"(?:^\[pid: \d+\|.* \(HTTP/1\.\d 200\) .*\n)+", re.MULTILINE)


def reloaded(what: str) -> str:
    """The line of a reload whose list of causes matches `what`."""
    return OURS + r"reloaded in [\d.]+ s: " + what + r"; \d+ workers?"


def refused(why: str) -> str:
    """The line of a refusal whose reason matches `why`."""
    return OURS + r"refused, still serving the previous version: .*" + why


def configuration_refused(why: str) -> str:
    """The line of a configuration that is refused for a reason that matches `why`."""
    return OURS + r"configuration refused, still running with the previous one: .*" + why


def find(pattern: str, text: str) -> list[re.Match[str]]:
    """Every match, a line at a time."""
    return list(re.finditer(pattern, text))


def without_requests(log: str) -> str:
    """The log for a reader: of uWSGI's lines about requests that went well, only how many."""
    return _UWSGI_ANSWERS.sub(lambda lines: f"[{lines[0].count(chr(10))} requests answered]\n", log)
