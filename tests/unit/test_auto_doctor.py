"""The doctor on zero code: what was done in each process, and where it is missing though it was asked for."""

import pytest

from gossipsess.cli.doctor.hooks import check_hooks
from gossipsess.config import Config

ASKED = {"GOSSIPSESS_AUTO": "1"}
DONE = ["GOSSIPSESS_AUTO=1", "flask 3.1.3: applications get replicated sessions unless they bring their own"]


@pytest.fixture
def packages(tmp_path):
    """A folder to which gossipsess was installed with the file that starts zero code."""
    (tmp_path / "gossipsess.pth").touch()
    return str(tmp_path)


def answer(notes, cluster="shop", process=4000):
    return {"cluster": cluster, "process": process, "auto": notes}


def found(answers, environ, packages):
    return check_hooks(Config(cluster="shop"), answers, environ, packages)


@pytest.mark.parametrize("environ", [{}, ASKED])
def test_what_was_done_is_told_for_each_process_of_the_cluster(packages, environ):
    """Behind `gossipsess run` the doctor's own environment has no such variable."""
    answers = [answer(DONE), answer(DONE, process=4001), answer(DONE, cluster="another")]
    findings = found(answers, environ, packages)
    assert [(one.check, one.verdict) for one in findings] == [("auto", "ok")] * 2
    assert findings[1].text == f"process 4001: {DONE[0]}; {DONE[1]}"


def test_what_was_left_alone_is_a_warning(packages):
    """It keeps sessions of its own, and users are logged out when the process dies."""
    (one,) = found([answer([*DONE, "left alone: quart: version 9.0 is not among those that were tried"])], {}, packages)
    assert (one.verdict, one.fault) == ("warn", "auto")
    assert "version 9.0" in one.text


def test_a_process_that_does_without_is_told_where_it_is_asked_for(packages):
    """The variable is set here and not there: a common slip, with deployments that have several containers."""
    (one,) = found([answer([])], ASKED, packages)
    assert (one.verdict, one.fault) == ("warn", "auto")
    assert "process 4000 has a node without it" in one.text
    assert found([answer([])], {}, packages) == []
    assert found([answer([])], {"GOSSIPSESS_AUTO": "off"}, packages) == []


def test_a_node_that_no_hook_has_started_is_no_fault(packages):
    """An application may use the adapter itself, under the same variable."""
    (one,) = found([answer(DONE[:1])], ASKED, packages)
    assert (one.verdict, one.fault) == ("info", "")


def test_that_no_process_has_a_node_is_told_and_what_may_be_missing(packages, tmp_path):
    """Silently absent is what auto-instrumentation is blamed for most."""
    (one,) = found([], ASKED, packages)
    assert "GOSSIPSESS_AUTO_STRICT=1" in one.advice
    elsewhere = tmp_path / "elsewhere"
    (one,) = found([], ASKED, str(elsewhere))
    assert f"there is no gossipsess.pth in {elsewhere}" in one.text
    assert "gossipsess run --" in one.advice
    assert found([], {}, packages) == []


def test_an_older_node_that_says_nothing_of_it_is_taken_for_one_without():
    """While replicas are updated, the doctor meets both."""
    assert found([{"cluster": "shop", "process": 1}], {}, "/nowhere") == []
