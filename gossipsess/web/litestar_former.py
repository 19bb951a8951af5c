# Litestar's former cookies: what its CookieBackendConfig has left in a browser begins a session of ours, once.
#
# In:    the headers of a request, and the secret that sealed the cookie.   Out: a `Former`.
# Form:  base64 of a nonce, the session's JSON sealed by AES-GCM, a fixed text, and JSON of when it ends, which the seal
#        covers. What is too long for one cookie is cut into several, `session-0`, `session-1` and so on.
# Rule:  nothing is parsed before the seal is opened. Nonce and tag are its name, since base64 has several spellings.
# Age:   it says when it ends, and not when it was made: that was `max_age` before, as long as that is what it was then.
#        Less a second, since Litestar rounds: a revocation that came after it must reach it.
# Not here: how it becomes a session (adoption.py).

import binascii
import json
import time
from base64 import b64decode
from collections.abc import Iterable
from itertools import takewhile
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from gossipsess.web.adoption import FORMER_CHARACTERS_MAX, Former
from gossipsess.web.cookie import cookie_values_untrusted

SECRET_BYTES: Final = (16, 24, 32)
PIECES_MAX: Final = 10
"""Of more, Litestar itself does not read the session any more: it puts `session-10` before `session-2`."""
_NONCE_BYTES: Final = 12
_TAG_BYTES: Final = 16
_ENDS_MARK: Final = b"additional_authenticated_data="
_CLEARED: Final = {"null", ""}

Headers = Iterable[tuple[bytes, bytes]]


class SealedCookies:
    """Reads the sessions that a CookieBackendConfig with these settings has sealed.

    Args:
        secret: its secret, of 16, 24 or 32 bytes.
        name: its `key`, the name of the cookie.
        max_age_s: its `max_age`, seconds.
    """

    def __init__(self, secret: bytes, name: str, max_age_s: int) -> None:
        self._cipher = AESGCM(secret)
        self._name = name
        self._max_age_s = max_age_s
        self._pieces = [f"{name}-{number}" for number in range(PIECES_MAX)]

    def session_untrusted(self, headers: Headers) -> Former | None:
        """Return the session that the Cookie headers of a request hold; None where there is none that is authentic."""
        try:
            sealed, _, ends = b64decode(self._text_untrusted(headers)).partition(_ENDS_MARK)
        except binascii.Error:
            return None
        nonce, sealed = sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:]
        if len(sealed) < _TAG_BYTES:
            return None
        try:
            opened = self._cipher.decrypt(nonce, sealed, ends)
        except InvalidTag:
            return None
        try:
            values, ends_at = json.loads(opened), json.loads(ends)["expires_at"]
        except (ValueError, LookupError, TypeError, RecursionError):  # sealed by the same key, but not as a session
            return None
        if not isinstance(values, dict) or not values or not isinstance(ends_at, int):
            return None
        sealed_at, now = max(0, ends_at - self._max_age_s - 1), time.time()  # Litestar rounds, also up
        if not sealed_at <= now < ends_at:
            return None
        return Former(nonce + sealed[-_TAG_BYTES:], sealed_at, ends_at, values)

    def pieces_untrusted(self, headers: Headers) -> list[str]:
        """Return the names of the pieces that a request brings, whatever is in them, up to the first that it lacks."""
        return list(takewhile(lambda name: any(True for _ in cookie_values_untrusted(headers, name)), self._pieces))

    def _text_untrusted(self, headers: Headers) -> str:
        """Return the text of the one cookie, or that of its pieces together; "" where there are none."""
        values = self._values_untrusted(headers, self._name)
        if values:
            return values.pop() if len(values) == 1 else ""
        text = ""
        for name in self._pieces:
            values = self._values_untrusted(headers, name)
            if len(values) != 1:  # there is no further piece; or there are two, and nothing tells which it is
                break
            text += values.pop()
        return text

    def _values_untrusted(self, headers: Headers, name: str) -> set[str]:
        values = {value for value in cookie_values_untrusted(headers, name) if len(value) <= FORMER_CHARACTERS_MAX}
        return values - _CLEARED
