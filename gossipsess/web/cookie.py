# Cookies: the two that carry a session, read and written.
#
# `<name>` carries the session's id and is set when the id is new; `<name>-v` carries the version token and is set
# by responses that wrote. Two cookies and not one: a slow response that comes in after a login's rotation would
# put the dead id back with its token.
# Whatever a client sends that is not plainly one session of ours counts as no cookie.
# Not here: whether such a session exists (store.py), and when cookies are set (adapter.py).

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Final, Literal

from gossipsess.errors import ConfigError
from gossipsess.model.identity import ID_CHARACTERS, is_session_id
from gossipsess.tokens import TOKEN_CHARACTERS_MAX

SameSite = Literal["lax", "strict", "none"]
Named = tuple[str, str]
"""What `SessionStore.load_named` takes: an id, by its form, and a version token or ""."""

REMEMBERED_MAX: Final = 1024
REMEMBERED_BYTES_MAX: Final = 1024
"""Cookie headers of which is remembered what session they name, and how long one is at most; a megabyte and a half.
Browsers send the same one until something is written, and one search costs as much as half of the rest."""

_EXPIRED: Final = "expires=Thu, 01 Jan 1970 00:00:00 GMT"
_NAME_FORM: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_ATTRIBUTE_FORM: Final = re.compile(r"[ -:<-~]*")  # printable ASCII without the semicolon


def token_name(name: str) -> str:
    """Return the name of the cookie that carries the version token."""
    return f"{name}-v"


def session_of_untrusted(ids: Iterable[str], tokens: Iterable[str]) -> Named | None:
    """Return the session that a client names, from all values that it sent under the two names; or None.

    None where no value has the form of an id, and where two different ones do: a neighbouring site of the same
    domain may have planted one of them, and nothing tells which. A token only helps, so a doubtful one is
    left out.
    """
    found = set(filter(is_session_id, ids))
    if len(found) != 1:
        return None
    [session_id] = found
    proofs = {value for value in tokens if 0 < len(value) <= TOKEN_CHARACTERS_MAX}
    return session_id, proofs.pop() if len(proofs) == 1 else ""


def session_in_untrusted(line: bytes, name: str) -> Named | None:
    """Return the same, from the value of a request's Cookie header; of several, joined by semicolons."""
    return (_remembered if len(line) <= REMEMBERED_BYTES_MAX else _session_in_untrusted)(line, name)


def _session_in_untrusted(line: bytes, name: str) -> Named | None:
    session_id = token = b""
    is_doubtful = False  # which token
    for its_id, its_token in _cookies_of_ours(name).findall(line):
        if its_id:
            if session_id and its_id != session_id:
                return None
            session_id = its_id
        else:
            is_doubtful = is_doubtful or (token != b"" and its_token != token)
            token = its_token
    if not session_id:
        return None
    return session_id.decode("ascii"), "" if is_doubtful else token.decode("ascii")


_remembered: Final = lru_cache(maxsize=REMEMBERED_MAX)(_session_in_untrusted)


@lru_cache(maxsize=64)  # names are the application's, not a client's
def _cookies_of_ours(name: str) -> re.Pattern[bytes]:
    # Each request asks, and one search costs a fifth of taking the line apart in Python.
    form = rb"(?:^|;)\s*%b(?:\s*=\s*([0-9a-z]{%d})|-v\s*=\s*([0-9a-z]{1,%d}))\s*(?=;|\Z)"
    return re.compile(form % (re.escape(name.encode("ascii")), ID_CHARACTERS, TOKEN_CHARACTERS_MAX))


def cookie_values_untrusted(headers: Iterable[tuple[bytes, bytes]], name: str) -> Iterator[str]:
    """Yield every value that the Cookie headers of a request give to `name`; those beyond ASCII are left out."""
    wanted = name.encode("ascii")
    for header, line in headers:
        if header.lower() != b"cookie":
            continue
        for pair in line.split(b";"):
            key, equals, value = pair.partition(b"=")
            if equals and key.strip() == wanted and value.isascii():
                yield value.strip().decode("ascii")


@dataclass(frozen=True, kw_only=True)
class CookieSettings:
    """Name and attributes, the same for both cookies; both are HttpOnly.

    Attributes:
        name: of the id cookie.
        max_age_s: seconds that a browser keeps them; None: until it closes.
        path, domain: where a browser sends them. None: to the very host that set them.
        same_site: whether requests that other sites cause carry them.
        secure: sent over HTTPS only. Browsers take plain http://localhost for safe, most other clients do not.
        partitioned: kept apart for each site that embeds this one.

    Raises:
        ConfigError: no browser would accept such a cookie, or an attribute would break the header.
    """

    name: str
    max_age_s: int | None = None
    path: str = "/"
    domain: str | None = None
    same_site: SameSite = "lax"
    secure: bool = True
    partitioned: bool = False

    def __post_init__(self) -> None:
        if not _NAME_FORM.fullmatch(self.name):
            raise ConfigError(f"cookie name {self.name!r}: use letters, digits, '-' and '_', as in 'session'.")
        for setting, text in (("path", self.path), ("domain", self.domain or "")):
            if not _ATTRIBUTE_FORM.fullmatch(text):
                raise ConfigError(f"cookie {setting} {text!r}: a semicolon or a control character would end it early.")
        if isinstance(self.same_site, str):
            object.__setattr__(self, "same_site", self.same_site.lower())  # frameworks take `Lax` too
        if self.same_site not in ("lax", "strict", "none"):
            raise ConfigError(f"same_site={self.same_site!r}: allowed are 'lax', 'strict' and 'none'.")
        if self.name.startswith("__Host-") and not (self.secure and self.path == "/" and self.domain is None):
            raise ConfigError(
                f"cookie name {self.name!r}: browsers accept the prefix __Host- only with secure=True, path='/' and "
                "no domain. Choose another name, such as 'gsid', or leave these as they are."
            )

    @property
    def token_name(self) -> str:
        """Name of the token cookie."""
        return token_name(self.name)

    def session_untrusted(self, headers: Iterable[tuple[bytes, bytes]]) -> Named | None:
        """Return the session that a client names, from the headers of a request; None where there is none."""
        lines: list[bytes] = []  # HTTP/2 may split it
        for header, line in headers:
            if len(header) == 6 and header.lower() == b"cookie":
                lines.append(line)
        return session_in_untrusted(b";".join(lines), self.name)

    def header(self, name: str, value: str) -> str:
        """Return the value of the Set-Cookie header that sets one of the two, or with value "" removes it."""
        return f"{name}={value}{self._kept}" if value else f"{name}=null{self._removed}"

    @cached_property
    def _kept(self) -> str:
        return self._attributes(f"Max-Age={self.max_age_s}" if self.max_age_s is not None else "")

    @cached_property
    def _removed(self) -> str:
        return self._attributes(_EXPIRED)

    def _attributes(self, ends: str) -> str:
        parts = ["", f"path={self.path}", *([ends] if ends else []), "httponly", f"samesite={self.same_site}"]
        if self.secure:
            parts.append("secure")
        if self.domain is not None:
            parts.append(f"domain={self.domain}")
        if self.partitioned:
            parts.append("partitioned")
        return "; ".join(parts)
