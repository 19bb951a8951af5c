# Django middleware: in place of Django's own, with a second cookie, and without a thread under ASGI.
#
# In:    a request, and Django's settings of sessions.   Out: `request.session`; its cookies on the response, or a 503.
# Why:   an engine cannot set a second cookie. Without one nothing says what the client has seen, so a save then waits
#        for all holders. And Django's middleware loads and saves a session for an async view in a thread; this one
#        awaits both, the load before the view runs, and answers 503 where a session cannot be had.
# Not here: how a session is loaded and saved (django_engine.py).

import logging
import time
from typing import Any, Final

from asgiref.sync import sync_to_async
from django.conf import settings
from django.contrib.sessions.backends.base import UpdateError
from django.contrib.sessions.exceptions import SessionInterrupted
from django.contrib.sessions.middleware import SessionMiddleware as DjangosMiddleware
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.utils.cache import patch_cache_control, patch_vary_headers
from django.utils.http import http_date

from gossipsess.errors import SessionUnavailable
from gossipsess.waiting import Steps, steps_blocking, steps_on_any_loop
from gossipsess.web.adapter import UNAVAILABLE
from gossipsess.web.cookie import token_name
from gossipsess.web.django_engine import SessionStore
from gossipsess.web.django_sessions import launch_with_application

log = logging.getLogger("gossipsess")

ENGINE: Final = "gossipsess.web.django"
"""What SESSION_ENGINE is to name."""


class SessionMiddleware(DjangosMiddleware):  # type: ignore[misc]  # Django has no types
    """Django's session middleware, for sessions of the cluster; its name stands in MIDDLEWARE in place of Django's.

    It sets a second cookie, ``<SESSION_COOKIE_NAME>-v``, by which the next replica knows what the client has seen; so
    a response waits for as many others as `Config.confirm` says, and no longer for all. The session is loaded before
    the view runs, and under ASGI loaded and saved without a thread. A login that does not call Django's `login` changes
    the key too (`Config.login_keys`).

    Where it cannot be known in time whether the session exists, no view runs: the answer is 503 with Retry-After, and
    the cookie stays. With `Config.on_unavailable` ``empty`` the view runs, its session is empty and
    `SessionStore.unavailable`, and the answer is that 503 only where the view lets the error pass that a change raises.
    It is the same where there is no room for a new session. The cookie of a session that is no more stays until the
    next one is set: a slow answer would else remove the one that a login has just set.

    The node starts with the application object, which is made once it has met the others, or nobody for two seconds;
    not for a command that serves nothing. With another SESSION_ENGINE it does what Django's does.

    Raises:
        ConfigError: a setting of the node is wrong, or no port is free.
    """

    def __init__(self, get_response: Any) -> None:
        super().__init__(get_response)
        self._is_ours = issubclass(self.SessionStore, SessionStore)
        if self._is_ours:
            launch_with_application()
        else:
            log.warning(
                "SESSION_ENGINE is %r, and its sessions are served as Django does. Write SESSION_ENGINE = %r.",
                settings.SESSION_ENGINE,
                ENGINE,
            )

    async def __acall__(self, request: HttpRequest) -> HttpResponseBase:
        """Serve one request under ASGI."""
        if not self._is_ours:
            return await super().__acall__(request)
        self._name(request)
        try:
            await request.session.aopen()
        except SessionUnavailable:
            return _unavailable()
        response = await self.get_response(request)
        if not isinstance(request.session, SessionStore):
            return await sync_to_async(super().process_response)(request, response)
        return await steps_on_any_loop(self._finishing(request, response))

    def process_request(self, request: HttpRequest) -> HttpResponseBase | None:
        """Give the request its session; return an answer where that cannot be had."""
        if not self._is_ours:
            super().process_request(request)
            return None
        self._name(request)
        try:
            request.session.open()
        except SessionUnavailable:
            return _unavailable()
        return None

    def process_response(self, request: HttpRequest, response: HttpResponseBase) -> HttpResponseBase:
        """Save the session, and set its cookies.

        Raises:
            SessionInterrupted: another request has ended it meanwhile, and this one has changed it.
        """
        if not isinstance(request.session, SessionStore):  # another engine's, put there by the application
            return super().process_response(request, response)
        return steps_blocking(self._finishing(request, response))

    def process_exception(self, request: HttpRequest, exception: Exception) -> HttpResponseBase | None:
        """Answer for a view that let it pass that a stand-in cannot be changed, or that there is no room."""
        return _unavailable() if isinstance(exception, SessionUnavailable) else None

    def _name(self, request: HttpRequest) -> None:
        request.session = self.SessionStore(request.COOKIES.get(settings.SESSION_COOKIE_NAME))
        request.session.token = request.COOKIES.get(token_name(settings.SESSION_COOKIE_NAME), "")

    def _finishing(self, request: HttpRequest, response: HttpResponseBase) -> Steps[HttpResponseBase]:
        session = request.session
        accessed, modified = session.accessed, session.modified
        if accessed:
            patch_vary_headers(response, ("Cookie",))
        if session.unavailable:
            if accessed:  # an answer made without knowing the visitor is good for this once only
                response["Cache-Control"] = "no-store"
            return response
        if session.is_empty():
            if modified and settings.SESSION_COOKIE_NAME in request.COOKIES:
                _delete_cookies(response)
            return response
        if not (modified or settings.SESSION_SAVE_EVERY_REQUEST):
            return response
        if response.status_code >= 500:
            if session.adopted:
                _set_cookies(response, session)
            return response
        try:
            yield from session.saving(may_rotate=True)
        except SessionUnavailable:  # no room for it
            return _unavailable()
        except UpdateError:
            if not modified:
                return response  # the answer to whoever ended it has removed the cookies
            raise SessionInterrupted(
                "The request's session was deleted before the request completed. The user may have logged out in a "
                "concurrent request, for example."
            ) from None
        _set_cookies(response, session)
        return response


def _set_cookies(response: HttpResponseBase, session: SessionStore) -> None:
    max_age: int | None = None
    expires: str | None = None
    if not session.get_expire_at_browser_close():
        max_age = session.get_expiry_age()
        expires = http_date(time.time() + max_age)
    name = settings.SESSION_COOKIE_NAME
    for cookie, value in ((name, session.session_key), (token_name(name), session.new_token)):
        if value:
            response.set_cookie(
                cookie,
                value,
                max_age=max_age,
                expires=expires,
                domain=settings.SESSION_COOKIE_DOMAIN,
                path=settings.SESSION_COOKIE_PATH,
                secure=settings.SESSION_COOKIE_SECURE or None,
                httponly=settings.SESSION_COOKIE_HTTPONLY or cookie != name,
                samesite=settings.SESSION_COOKIE_SAMESITE,
            )
    patch_vary_headers(response, ("Cookie",))
    if not response.has_header("Cache-Control"):
        patch_cache_control(response, private=True)


def _delete_cookies(response: HttpResponseBase) -> None:
    name = settings.SESSION_COOKIE_NAME
    for cookie in (name, token_name(name)):
        response.delete_cookie(
            cookie,
            path=settings.SESSION_COOKIE_PATH,
            domain=settings.SESSION_COOKIE_DOMAIN,
            samesite=settings.SESSION_COOKIE_SAMESITE,
        )
    patch_vary_headers(response, ("Cookie",))


def _unavailable() -> HttpResponse:
    headers = {"Retry-After": "1", "Cache-Control": "no-store"}
    return HttpResponse(
        f"{UNAVAILABLE}\n",
        status=503,
        content_type="text/plain; charset=utf-8",
        headers=headers,
    )
