"""Settings: where they come from, and that what cannot work is refused with what to write instead."""

from dataclasses import fields

import pytest

from gossipsess.config import MULTICAST_GROUP, Config, Discovery
from gossipsess.errors import ConfigError

SECRET = "correct-horse-battery"

FROM_ENV = {
    "cluster": ("shop", "shop"),
    "secret": (SECRET, SECRET),
    "secret_fallbacks": (f"{SECRET}-1,{SECRET}-2", (f"{SECRET}-1", f"{SECRET}-2")),
    "discovery": ("none", "none"),
    "bind": ("127.0.0.2", "127.0.0.2"),
    "advertise": ("10.0.0.7", "10.0.0.7"),
    "port": ("8000", 8000),
    "port_range": ("4", 4),
    "host": ("pod-1", "pod-1"),
    "node_name": ("web-1", "web-1"),
    "confirm": ("2", 2),
    "confirm_timeout_s": ("0.5", 0.5),
    "idle_timeout_s": ("60", 60.0),
    "absolute_timeout_s": ("3600", 3600.0),
}


@pytest.mark.parametrize("field", fields(Config), ids=lambda field: field.name)
def test_every_setting_can_come_from_the_environment(field):
    """Containers are configured that way; a setting that is forgotten here could not be set at all."""
    text, value = FROM_ENV[field.name]
    config = Config.from_env({f"GOSSIPSESS_{field.name.upper()}": text})
    assert getattr(config, field.name) == value
    assert value != field.default, "a value that is the default proves nothing"


def test_arguments_win_over_the_environment_and_that_over_the_defaults():
    """A test's or a command line's wish is the nearer one; None is no wish."""
    environ = {"GOSSIPSESS_PORT": "8000", "GOSSIPSESS_CLUSTER": "shop", "PATH": "/bin"}
    config = Config.from_env(environ, port=9000, cluster=None)
    assert (config.port, config.cluster, config.port_range) == (9000, "shop", 16)


def test_confirm_may_be_all():
    """The one setting that is a number or a word."""
    assert Config.from_env({"GOSSIPSESS_CONFIRM": "all"}).confirm == "all"


@pytest.mark.parametrize(
    ("environ", "arguments", "says"),
    [
        ({"GOSSIPSESS_SECRT": SECRET}, {}, "GOSSIPSESS_SECRT is not a setting. Did you mean GOSSIPSESS_SECRET"),
        ({"GOSSIPSESS_IDLE_TIMEOUT": "60"}, {}, "GOSSIPSESS_IDLE_TIMEOUT_S"),
        ({"GOSSIPSESS_ZZZ": "1"}, {}, r"GOSSIPSESS_ZZZ is not a setting\.$"),
        ({}, {"ports": 1}, r"Did you mean GOSSIPSESS_PORT \(port\)"),
    ],
)
def test_an_unknown_name_is_an_error_with_the_nearest_right_one(environ, arguments, says):
    """A misspelt secret that is passed over would leave a cluster of lone nodes."""
    with pytest.raises(ConfigError, match=says):
        Config.from_env(environ, **arguments)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("port", 65536),
        ("port", -1),
        ("port_range", 0),
        ("port_range", 1001),
        ("confirm", -1),
        ("confirm", "some"),
        ("confirm", 1.5),
        ("confirm_timeout_s", 0),
        ("idle_timeout_s", -1),
        ("absolute_timeout_s", float("nan")),
        ("absolute_timeout_s", float("inf")),
        ("bind", "localhost"),
        ("advertise", "shop.example"),
        ("advertise", "0.0.0.0"),
        ("discovery", ""),
        ("discovery", "dns"),
        ("discovery", "static://10.0.0.1"),
        ("discovery", "static://10.0.0.1:0"),
        ("discovery", "static://10.0.0.1:70000"),
        ("discovery", "static://10.0.0.1:²"),
        ("discovery", "static://shop:7950"),
        ("discovery", "static://10.0.0.1:7950,"),
        ("discovery", "multicast://10.0.0.1:7949"),
    ],
)
def test_a_value_that_cannot_work_is_refused_by_name(name, value):
    """Before a socket is opened, and not one hour later by a cluster that never formed."""
    with pytest.raises(ConfigError, match=name):
        Config(secret=SECRET, **{name: value})


@pytest.mark.parametrize("variable", ["PORT", "CONFIRM", "IDLE_TIMEOUT_S"])
def test_text_that_is_no_number_is_refused_under_the_variables_name(variable):
    """The name the operator wrote, and what was there."""
    with pytest.raises(ConfigError, match=f"GOSSIPSESS_{variable}='soon' is not a number"):
        Config.from_env({f"GOSSIPSESS_{variable}": "soon"})


def test_the_secrets_are_in_no_repr_and_no_error():
    """Settings are logged, and errors are shown."""
    config = Config(secret=SECRET, secret_fallbacks=(SECRET + "-old",))
    assert SECRET not in repr(config)
    assert "secret='***'" in repr(config)
    assert "secret=None" in repr(Config())
    with pytest.raises(ConfigError) as refused:
        Config(secret=SECRET, port=-1)
    assert SECRET not in str(refused.value)


@pytest.mark.parametrize("bind", ["0.0.0.0", "10.0.0.7", "::"])
def test_without_a_secret_only_loopback_may_be_bound(bind):
    """An open port would hand sessions to whoever asks."""
    with pytest.raises(ConfigError, match="GOSSIPSESS_SECRET"):
        Config(bind=bind)
    assert Config(bind=bind, secret=SECRET).bind_address == bind


def test_without_a_bind_the_secret_decides():
    """Nothing leaves a developer's machine by accident, and a deployment needs one setting only."""
    assert Config().bind_address == "127.0.0.1"
    assert Config(bind="127.0.0.9").bind_address == "127.0.0.9"
    assert Config(secret=SECRET).bind_address == "0.0.0.0"


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("auto", Discovery(MULTICAST_GROUP, ())),
        ("none", Discovery(None, ())),
        ("multicast://239.1.2.3:99", Discovery(("239.1.2.3", 99), ())),
        ("static://10.0.0.1:1,10.0.0.2:2", Discovery(None, (("10.0.0.1", 1), ("10.0.0.2", 2)))),
        ("static://[fd00::1]:7950", Discovery(None, (("fd00::1", 7950),))),
        ("auto, static://10.0.0.1:1, 10.0.0.2:2", Discovery(MULTICAST_GROUP, (("10.0.0.1", 1), ("10.0.0.2", 2)))),
        ("static://10.0.0.1:1,multicast://239.1.2.3:99", Discovery(("239.1.2.3", 99), (("10.0.0.1", 1),))),
    ],
)
def test_discovery_is_read_as_it_is_documented(text, parts):
    """Several ways may be joined: a list of seeds goes on after a comma."""
    assert Config(discovery=text).discovery_parts() == parts
