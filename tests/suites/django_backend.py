"""Django's tests of a session engine, for the one that is to be measured: `django_child.py` names it.

Imported by Django's test runner, once its applications are loaded.
"""

import os

from django.test import TestCase
from django.utils.module_loading import import_string
from sessions_tests.tests import SessionTestsMixin


class EngineTests(SessionTestsMixin, TestCase):
    backend = import_string(os.environ["SUITE_ENGINE"] + ".SessionStore")
