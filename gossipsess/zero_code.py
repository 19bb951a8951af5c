# Zero code: what the environment asks of it, and what it did in this process.
#
# In:    GOSSIPSESS_AUTO, GOSSIPSESS_AUTO_STRICT.    Out: names, yes or no.
# Every Python of an application reads this when it starts, so nothing is imported.
# Not here: whether this process is to be touched (boot.py), and how frameworks are (auto/).

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

AUTO, STRICT, FOR = "GOSSIPSESS_AUTO", "GOSSIPSESS_AUTO_STRICT", "GOSSIPSESS_AUTO_FOR"
"""Variables; the last, of `gossipsess run`, says for which Python it is (auto/boot/sitecustomize.py)."""
OFF = ("", "0", "off", "no", "false", "none")
ALL = ("1", "on", "yes", "true", "all")
TOOLS = frozenset(
    """
    pip pipx uv uvx poetry pdm hatch tox nox virtualenv venv ensurepip build twine pre-commit compileall
    pytest py.test unittest coverage doctest mypy dmypy pyright ruff black isort flake8 pylint bandit
    celery ipython jupyter pydoc pdb alembic gossipsess
    """.split()  # noqa: SIM905  # thirty quoted words are harder to read
) | {"manage.py test", "django-admin test"}
"""Programs by name, or by name and first argument, that serve nothing, though they may import what does. They are left
alone unless GOSSIPSESS_AUTO names them."""

LEFT_ALONE = "left alone: "
"""How a note begins on what keeps its own sessions."""
NOTES_MAX = 32
"""A process may make any number of applications."""
notes: list[str] = []
"""What was done here, a sentence each, in that order, first how it was asked for; empty where zero code is not at work.
A node's answers carry them (runtime/admin.py), and `gossipsess doctor` shows them."""


def note(sentence: str) -> None:
    """Add to the notes, once."""
    if sentence not in notes and len(notes) < NOTES_MAX:
        notes.append(sentence)


def asked(environ: "Mapping[str, str]") -> tuple[str, ...]:
    """Return the names that GOSSIPSESS_AUTO gives, ``all`` for every framework; none where it is off or not set."""
    names = [name.strip().lower() for name in environ.get(AUTO, "").split(",")]
    if names[0] in OFF:
        return ()
    return tuple("all" if name in ALL else name for name in names if name)


def is_strict(environ: "Mapping[str, str]") -> bool:
    """Say whether what would be left alone with a warning is to end the process."""
    return environ.get(STRICT, "").lower() not in OFF
