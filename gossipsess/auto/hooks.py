# Hooks: which modules of frameworks are changed, in which versions, by which function of patches.py.
#
# Here is only data, which every Python of an application reads when it starts. Versions are those that the hooks were
# run with, from the first to the newest's line: what is newer may have moved what a hook changes, and is left alone.
# A hook is for the module in whose namespace applications look; so it comes before they have looked.
# Not here: what is changed (patches.py), and when it is called (finder.py).


class Hook:
    """What is done to one framework.

    Attributes:
        name: what GOSSIPSESS_AUTO calls it, and its function in patches.py.
        module: after whose import.
        package: whose version counts.
        since, below: the versions it is for, as tuples of numbers.
        by_name: only where GOSSIPSESS_AUTO names it.
    """

    def __init__(
        self,
        name: str,
        module: str,
        package: str,
        since: tuple[int, ...],
        below: tuple[int, ...],
        *,
        by_name: bool = False,
    ) -> None:
        self.name = name
        self.module = module
        self.package = package
        self.since = since
        self.below = below
        self.by_name = by_name

    @property
    def versions(self) -> str:
        """The versions that this is for, as people write them."""
        since, below = [".".join(map(str, one)) for one in (self.since, self.below)]
        return f">={since},<{below}"

    def takes(self, version: str) -> bool:
        """Say whether a version is one that this is for."""
        return self.since <= numbers(version) < self.below


def numbers(version: str) -> tuple[int, ...]:
    """Return the release of a version, without what tells a pre-release from it."""
    parts: list[int] = []
    for part in version.split("."):
        digits = part[: len(part) - len(part.lstrip("0123456789"))]
        if digits:
            parts.append(int(digits))
        if digits != part:
            break
    return tuple(parts)


HOOKS = (
    Hook("starlette", "starlette.middleware.sessions", "starlette", (0, 40), (2,)),
    Hook("flask", "flask", "flask", (3, 0), (4,)),
    Hook("flask_session", "flask_session", "flask-session", (0, 6), (1,), by_name=True),
    Hook("quart", "quart", "quart", (0, 20), (1,)),
    Hook("django", "django.conf", "django", (5, 1), (7,)),
    Hook("litestar", "litestar.middleware.session.base", "litestar", (2, 15), (3,)),
)
ALIASES = {"fastapi": "starlette"}
"""Other names for some of them: of frameworks whose sessions are another's."""
