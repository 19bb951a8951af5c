# docs/FROM_TOMCAT.md: what it calls a setting is one, and what it gives as its default is that.

import re
from pathlib import Path

from gossipsess.config import Config
from gossipsess.discovery import MULTICAST_GROUP

DOC = Path(__file__).parents[2] / "docs" / "FROM_TOMCAT.md"
DEFAULTS = {
    "IDLE_TIMEOUT_S": "the web framework's, else 1800",
    "DISCOVERY": f"auto, whose group is multicast://{MULTICAST_GROUP[0]}:{MULTICAST_GROUP[1]}",
}
"""In more words than the default itself."""


def ours() -> list[str]:
    """What the table of names says in its second column."""
    rows = [line.split(" | ")[1] for line in DOC.read_text().splitlines() if line.startswith("| ") and " | " in line]
    return rows[: next(index for index, row in enumerate(rows) if row.startswith("instead"))]


def test_each_setting_that_stands_for_one_of_tomcats_exists() -> None:
    """Who comes with a list of names finds no one to ask for them."""
    settings = set(re.findall(r"`([A-Z][A-Z_]+)(?:=[^`]*)?`", " ".join(ours())))
    assert len(settings) > 12
    assert settings <= {name.upper() for name in Config.__dataclass_fields__}


def test_each_default_that_is_given_is_the_default() -> None:
    """A page that says another one is worse than none."""
    given = dict(re.findall(r"`([A-Z][A-Z_]+)(?:=[^`]*)?` \(([^)]*)\)", " ".join(ours())))
    assert len(given) > 8
    for name, default in given.items():
        told = default.replace("`", "").removesuffix(" by default")
        assert told in (str(getattr(Config(), name.lower())), "default", DEFAULTS.get(name)), name
    assert given["CONFIRM"] == "default"
    assert Config().confirm == 1
