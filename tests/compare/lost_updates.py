# Lost updates: what users of other session layers complain of, replayed against those and against ours.
#
# Each case is a few requests of one browser, most often with one request under way while others come and go. Which
# of them reads and saves when is arranged inside the views, by events and not by sleeping: so a case comes out the same
# each time, or it shows why not.
#
# In:    options (--help).   Out: a table, or with --json an object for each line of it.
# The browser sends the cookies that it has when a request begins, and takes over an answer's when it comes.
# Ours runs on a lone node, and on three, where each next request goes to another node.
# Not here: what is right for an application. Where a stock backend does not lose in its current version, the table
#           says so.
#
# From the repository's root: python -m tests.compare.lost_updates

import argparse
import json
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, Final, NamedTuple

from bench.callers import Answer

from .frameworks import OURS, Backend, View, backends, here

PATIENCE_S: Final = 20.0
BEFORE: Final = {"user_id": 7, "theme": "light", "cart": ["book"], "oauth_state": "of an earlier login"}
"""What a session holds when a case begins, so that old data can be seen to come back."""
AFTER: Final = {"user_id": 42, "theme": "dark", "cart": ["book", "lamp"], "oauth_state": "xyzzy"}
"""What its requests make of that."""


# --- views: what an application does with its session ---------------------------------------------------------------


class Gate:
    """Holds up one view between its reading of the session and its change of it."""

    def __init__(self) -> None:
        self.reached = threading.Event()
        self.opened = threading.Event()

    def pause(self) -> None:
        """Called by the view."""
        self.reached.set()
        assert self.opened.wait(PATIENCE_S), "nobody lets the view go on"


gate = Gate()  # of the case that runs


def _look(session: Any) -> object:
    return {key: session[key] for key in BEFORE if key in session}


def _start(session: Any) -> object:
    session.update(BEFORE)
    return None


def _login(session: Any) -> object:
    getattr(session, "cycle_key", _nothing)()  # as Django's login() does
    session["user_id"] = AFTER["user_id"]
    return None


def _nothing() -> None:
    pass


def _logout(session: Any) -> object:
    getattr(session, "flush", session.clear)()  # Django's own word for it, where there is one
    return None


def _slow_look(session: Any) -> object:
    seen = _look(session)
    gate.pause()
    return seen


def _set(key: str) -> View:
    def view(session: Any) -> object:
        session[key] = AFTER[key]
        return None

    return view


def _slow_set_theme(session: Any) -> object:
    session.get("theme")
    gate.pause()
    session["theme"] = AFTER["theme"]
    return None


def _start_lasting(session: Any) -> object:
    session.permanent = True  # Flask's word for one whose cookie outlasts the browser
    return _start(session)


def _append(session: Any) -> object:
    session["cart"].append("lamp")
    return None


VIEWS: Final[dict[str, View]] = {
    "look": _look,
    "login": _login,
    "logout": _logout,
    "start": _start,
    "start_lasting": _start_lasting,
    "slow_look": _slow_look,
    "slow_set_theme": _slow_set_theme,
    "set_cart": _set("cart"),
    "set_oauth_state": _set("oauth_state"),
    "append": _append,
}


# --- the browser ----------------------------------------------------------------------------------------------------


class Browser:
    """One browser, before one application."""

    def __init__(self, backend: Backend, cookies: dict[str, str] | None = None) -> None:
        self.cookies = dict(cookies or {})
        self._backend = backend
        self._asked = 0

    def get(self, view: str) -> Any:
        """Ask for a view; return what it answered."""
        return self._take(self._send(view))

    @contextmanager
    def while_pending(self, view: str) -> Iterator[list[Answer]]:
        """Ask for a view that pauses; the block runs meanwhile, and the answer comes after it, into the list."""
        global gate
        gate = Gate()
        answers: list[Answer] = []
        with ThreadPoolExecutor(1) as threads:
            pending = threads.submit(self._call, view, self._header(), self._next_node())
            try:
                while not gate.reached.wait(0.01):
                    assert not pending.done(), f"{view} did not pause: {pending.result()}"
                yield answers
            finally:
                gate.opened.set()
        answers.append(pending.result())
        self._take_cookies(answers[0])

    def _send(self, view: str) -> Answer:
        # A thread for each, as for the one that is pending: `here` is the thread's.
        with ThreadPoolExecutor(1) as threads:
            return threads.submit(self._call, view, self._header(), self._next_node()).result()

    def _call(self, view: str, cookies: str, node: int) -> Answer:
        here.node = node
        return self._backend.caller.batch(f"/{view}", [cookies])[1][0]

    def _next_node(self) -> int:
        self._asked += 1
        return self._asked

    def _header(self) -> str:
        return "; ".join(f"{name}={value}" for name, value in self.cookies.items())

    def _take(self, answer: Answer) -> Any:
        assert answer.status == 200, answer
        self._take_cookies(answer)
        return json.loads(answer.body)

    def _take_cookies(self, answer: Answer) -> None:
        for name, line in answer.headers:
            if name == "set-cookie":
                pair, *attributes = line.split(";")
                key, _, value = pair.partition("=")
                removed = [text for text in attributes if "1970" in text or text.strip().lower() == "max-age=0"]
                if removed:
                    self.cookies.pop(key, None)
                else:
                    self.cookies[key] = value


# --- cases ----------------------------------------------------------------------------------------------------------


class Seen(NamedTuple):
    """How a case came out."""

    lost: bool
    what: str


def different_keys(browser: Browser) -> Seen:
    """Two requests at once change different keys."""
    browser.get("start")
    with browser.while_pending("slow_set_theme"):
        browser.get("set_cart")
    return _missing(browser, "theme", "cart")


def login_read_over(browser: Browser) -> Seen:
    """A request that only reads is under way while the user logs in."""
    browser.get("start")
    with browser.while_pending("slow_look"):
        browser.get("login")
    return _missing(browser, "user_id")


def lasting_login_read_over(browser: Browser) -> Seen:
    """The same, of a session whose cookie outlasts the browser."""
    browser.get("start_lasting")
    with browser.while_pending("slow_look"):
        browser.get("login")
    return _missing(browser, "user_id")


def login_written_over(browser: Browser) -> Seen:
    """A request that changes another key is under way while the user logs in."""
    browser.get("start")
    with browser.while_pending("slow_set_theme"):
        browser.get("login")
    return _missing(browser, "user_id")


def oauth_state(browser: Browser) -> Seen:
    """A request is under way while the redirect to the login provider puts its state into the session."""
    browser.get("start")
    with browser.while_pending("slow_set_theme"):
        browser.get("set_oauth_state")
    return _missing(browser, "oauth_state")


def comes_back(browser: Browser) -> Seen:
    """A request is under way while the user logs out, and saves afterwards."""
    browser.get("login")
    with browser.while_pending("slow_set_theme"):
        browser.get("logout")
    return _logged_in(browser)


def replayed(browser: Browser) -> Seen:
    """Somebody has copied the cookies before the logout, and sends them afterwards."""
    browser.get("login")
    thief = Browser(browser._backend, browser.cookies)
    browser.get("logout")
    return _logged_in(thief)


def error_after_logout(browser: Browser) -> Seen:
    """A request is under way while another tab logs out: what does its user see?"""
    browser.get("login")
    with browser.while_pending("slow_set_theme") as answers:
        browser.get("logout")
    return _refused(answers[0])


def error_after_login(browser: Browser) -> Seen:
    """A request is under way while another tab logs in."""
    browser.get("start")
    with browser.while_pending("slow_set_theme") as answers:
        browser.get("login")
    return _refused(answers[0])


def appended(browser: Browser) -> Seen:
    """A view appends to a list in the session."""
    browser.get("start")
    browser.get("append")
    return _missing(browser, "cart")


def _missing(browser: Browser, *wanted: str) -> Seen:
    seen = browser.get("look")
    missing = [key for key in wanted if seen.get(key) != AFTER[key]]
    return Seen(bool(missing), f"lost: {', '.join(missing)}" if missing else "kept")


def _refused(answer: Answer) -> Seen:
    return Seen(answer.status >= 400, f"answered {answer.status}")


def _logged_in(browser: Browser) -> Seen:
    logged_in = "user_id" in browser.get("look")
    return Seen(logged_in, "logged in again" if logged_in else "logged out")


CASES: Final[dict[str, Callable[[Browser], Seen]]] = {
    "1 two requests at once change different keys": different_keys,
    "2 a request that only reads ends after a login": login_read_over,
    "2 the same, of a permanent session (Flask)": lasting_login_read_over,
    "2 a request that writes another key ends after a login": login_written_over,
    "2 OAuth state, set while another request is under way": oauth_state,
    "3 a slow request saves after the logout": comes_back,
    "3 a copied cookie is sent after the logout": replayed,
    "4 the answer to a slow request, after a logout in another tab": error_after_logout,
    "4 the answer to a slow request, after a login in another tab": error_after_login,
    "5 append to a list in the session": appended,
}


ONLY: Final = {"2 the same, of a permanent session (Flask)": "Flask"}
"""Cases that one framework's own words describe."""
AS_DJANGO_SAYS: Final = ("Django", "4")
"""Whoever changes a session that another request has ended gets a 400 (SessionInterrupted). Django's own tests demand
that of every engine, so ours does it too: the one line in which ours may do as others do."""


class Line(NamedTuple):
    """One line of the table."""

    case: str
    framework: str
    sessions: str
    lost: int
    """In how many of the rounds."""
    rounds: int
    what: str
    """What happened, the last time that it was lost, else the last time."""


def counts(line: Line) -> bool:
    """Say whether a line tells something against those sessions."""
    return line.lost > 0 and (line.framework, line.case[0]) != AS_DJANGO_SAYS


def play(case: str, backend: Backend, rounds: int) -> Line:
    """Play a case some times, each with a new browser."""
    seen = [CASES[case](Browser(backend)) for _ in range(rounds)]
    worst = max(seen, key=lambda one: one.lost)
    return Line(case, backend.framework, backend.sessions, sum(one.lost for one in seen), rounds, worst.what)


def main() -> int:
    """Play what the options say; return 1 if ours lost anything."""
    parser = argparse.ArgumentParser(prog="python -m tests.compare.lost_updates", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="each case, with a new browser each time; default: 5")
    parser.add_argument("--json", action="store_true", help="an object for each line")
    options = parser.parse_args()
    ours_lost = 0

    def left_out(what: str, why: str) -> None:
        print(f"left out: {what}: {why}", file=sys.stderr)

    with backends(VIEWS, left_out) as those:
        for case in CASES:
            if not options.json:
                print(f"\n{case}")
            for backend in those:
                if ONLY.get(case, backend.framework) != backend.framework:
                    continue
                line = play(case, backend, options.rounds)
                ours_lost += line.sessions.startswith(OURS) and counts(line)
                if options.json:
                    print(json.dumps(line._asdict()), flush=True)
                else:
                    print(
                        f"  {line.framework:<10}{line.sessions:<26}{line.lost:>3} of {line.rounds:<4}{line.what}",
                        flush=True,
                    )
    return 1 if ours_lost else 0


if __name__ == "__main__":
    sys.exit(main())
