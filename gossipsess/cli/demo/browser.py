# Browser: as much of one as a scenario needs, from the standard library: cookies, forms, one request at a time.

import asyncio
import http.client
import http.cookies
import json
import urllib.parse
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from gossipsess.cli.demo.ports import LOOPBACK

REQUEST_S: Final = 5.0


class Answer(NamedTuple):
    """What came back."""

    status: int
    replica: int
    """Number of the replica that answered; 0 where none did."""
    body: bytes


class Browser:
    """A client of the page at `port`, with its cookies. Redirects are not followed."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.cookies: dict[str, str] = {}

    async def post(self, path: str, form: Mapping[str, str], headers: Mapping[str, str] | None = None) -> Answer:
        """Send a form; `headers` besides a browser's own.

        Raises:
            OSError, HTTPException: no answer.
        """
        return await asyncio.to_thread(self._request, "POST", path, self.port, form, more=headers)

    async def session(self, port: int | None = None, *, with_cookies: bool = True) -> dict[str, Any]:
        """Return the session as JSON, through the balancer, or from the replica at `port` itself.

        Raises:
            OSError, HTTPException, ValueError: no answer, or not the session.
        """
        answer = await asyncio.to_thread(self._request, "GET", "/session", port or self.port, with_cookies=with_cookies)
        if answer.status != http.client.OK:
            raise ValueError(f"GET /session answered {answer.status}: {answer.body[:200]!r}")
        seen: dict[str, Any] = json.loads(answer.body)
        return seen

    async def holders(self, port: int, session_id: str) -> tuple[tuple[str, ...], bool]:
        """Return where a session lives, as the replica at `port` says, and whether it holds the session itself.

        Raises:
            OSError, HTTPException, ValueError: no answer, or not that.
        """
        answer = await asyncio.to_thread(
            self._request, "GET", "/holders", port, with_cookies=False, more={"X-Session": session_id}
        )
        said = json.loads(answer.body)
        return tuple(said["holders"]), said["holds"]

    def _request(
        self,
        method: str,
        path: str,
        port: int,
        form: Mapping[str, str] | None = None,
        *,
        with_cookies: bool = True,
        more: Mapping[str, str] | None = None,
    ) -> Answer:
        headers = dict(more or {})
        if form is not None:
            headers["Content-Type"] = "application/x-www-form-urlencoded"
        if with_cookies and self.cookies:
            headers["Cookie"] = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        connection = http.client.HTTPConnection(LOOPBACK, port, timeout=REQUEST_S)
        try:
            connection.request(method, path, urllib.parse.urlencode(form) if form is not None else None, headers)
            response = connection.getresponse()
            for line in response.headers.get_all("Set-Cookie", ()):
                for name, cookie in http.cookies.SimpleCookie(line).items():
                    self.cookies[name] = cookie.value
            return Answer(response.status, int(response.headers.get("X-Replica", "0")), response.read())
        finally:
            connection.close()
