"""A plugin of pytest for suites written for an older one: Flask's takes a name from it that has another there now."""

import _pytest.monkeypatch

if not hasattr(_pytest.monkeypatch, "notset"):
    _pytest.monkeypatch.notset = _pytest.monkeypatch.NOTSET  # type: ignore[attr-defined]
