"""Has uWSGI call `answer` for a signal, which is registered while this is imported."""

import os

import uwsgi
import uwsgidecorators

VERSION, KIND, OTHERS = "v1", "none", 0


def note(what):
    with open("calls", "a") as file:
        file.write(f"{what}\n")


# Functions of the application that answer no signal. They are so many that the address of a function in the worker
# before is the address of one of them in the worker after.
others = []
for _ in range(OTHERS):
    others.append(lambda *arguments: note("wrong"))


def answer(number):
    note(VERSION)


REGISTER = {
    "timer": lambda: uwsgidecorators.timer(1)(answer),
    "timer of all workers": lambda: uwsgidecorators.timer(1, target="workers")(answer),
    "cron": lambda: uwsgidecorators.cron(-1, -1, -1, -1, -1)(answer),
    "signal": lambda: uwsgidecorators.signal(uwsgidecorators.get_free_signal())(answer),
    "signal 7": lambda: uwsgidecorators.signal(7)(answer),
}
REGISTER[KIND]()


def app(environ, start_response):
    if environ["PATH_INFO"] == "/raise":
        # What a timer does, without the wait for it.
        for number in filter(uwsgi.signal_registered, range(8)):
            uwsgi.signal(number)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [f"{VERSION} {os.getpid()}".encode()]
