# Narrator: what happens, one line at a time, for a person or for a program.
#
# In:    an event's name, its sentence and its fields.    Out: the sentence, or with `as_json` an object.
# Not here: which events there are (crew.py, scenario.py, run.py).

import json
import time
from collections.abc import Sequence
from typing import TextIO


class Narrator:
    """Writes each event to `out` at once, with the time since the narrator was made."""

    def __init__(self, out: TextIO, *, as_json: bool) -> None:
        self._out = out
        self._as_json = as_json
        self._began_s = time.monotonic()

    def say(self, event: str, sentence: str, **fields: object) -> None:
        """Tell one event. `fields` are for programs, and JSON can carry them; `sentence` is for people."""
        at_s = time.monotonic() - self._began_s
        if self._as_json:
            line = json.dumps({"event": event, "at_ms": round(at_s * 1000), **fields})
        else:
            line = f"{at_s:7.2f} s  {sentence}"
        print(line, file=self._out, flush=True)

    def advise(self, text: str) -> None:
        """Tell a person, and no program, what to do now."""
        if not self._as_json:
            print(f"\n{text}\n", file=self._out, flush=True)


def took_ms(since_s: float) -> int:
    """Return how long ago `since_s` (monotonic clock) was, whole milliseconds."""
    return round((time.monotonic() - since_s) * 1000)


def things(count: int, noun: str) -> str:
    """Return a count with its noun: 1 session, 2 sessions."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def held(sessions: int, copies: int) -> str:
    """Return how many sessions a replica holds, and how many of them live elsewhere."""
    count = things(sessions, "session")
    if not copies:
        return count
    share = "" if copies == sessions else f"{copies} of "
    return f"{count}, {share}which {'lives' if copies == 1 else 'live'} elsewhere"


def partitions(held: int, share: int) -> str:
    """Return how many partitions a replica holds, and how many it is to hold where these are more."""
    return things(share, "partition") if held == share else f"{held} of {things(share, 'partition')}"


def where(holders: Sequence[str], live: int) -> str:
    """Return on which replicas a session lives. `holders`: their names, the primary first; `live`: how many are up."""
    names = [name.replace("-", " ") for name in holders]
    if len(names) >= live:
        return f"on every replica that is up, {live} of them"
    return f"on {names[0]} (primary)" + "".join(f" and {name} (secondary)" for name in names[1:])
