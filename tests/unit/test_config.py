"""Settings: where they come from, and that what cannot work is refused with what to write instead."""

from dataclasses import fields

import pytest

from gossipsess.config import Config
from gossipsess.discovery import MULTICAST_GROUP, Discovery
from gossipsess.errors import ConfigError
from gossipsess.model.member import Name

SECRET = "correct-horse-battery"
NAME = Name("dns", "gossipsess", 7950, 16)

FRAMEWORKS = "what the web framework says, else"

FROM_ENV = {
    "cluster": ("shop", "shop"),
    "secret": (SECRET, SECRET),
    "secret_fallbacks": (f"{SECRET}-1,{SECRET}-2", (f"{SECRET}-1", f"{SECRET}-2")),
    "discovery": ("none", "none"),
    "service": ("shop-gossip:8000", "shop-gossip:8000"),
    "bind": ("127.0.0.2", "127.0.0.2"),
    "advertise": ("10.0.0.7", "10.0.0.7"),
    "port": ("8000", 8000),
    "port_range": ("4", 4),
    "host": ("pod-1", "pod-1"),
    "zone": ("eu-1a", "eu-1a"),
    "node_name": ("web-1", "web-1"),
    "confirm": ("2", 2),
    "confirm_timeout_s": ("0.5", 0.5),
    "idle_timeout_s": ("60", 60.0),
    "absolute_timeout_s": ("3600", 3600.0),
    "memory_limit_mb": ("64", 64),
    "all_to_all_below": ("3", 3),
    "secondaries": ("2", 2),
    "count_by": ("host", "host"),
    "on_unavailable": ("empty", "empty"),
    "login_keys": ("account, member", ("account", "member")),
    "adopt": ("off", "off"),
}


@pytest.mark.parametrize("field", fields(Config), ids=lambda field: field.name)
def test_every_setting_can_come_from_the_environment(field):
    """Containers are configured that way; a setting that is forgotten here could not be set at all."""
    text, value = FROM_ENV[field.name]
    config = Config.from_env({"GOSSIPSESS_SECRET": SECRET, f"GOSSIPSESS_{field.name.upper()}": text})
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
        ("memory_limit_mb", 0),
        ("memory_limit_mb", 10**9),
        ("all_to_all_below", 1),
        ("all_to_all_below", 10**9),
        ("secondaries", 0),
        ("secondaries", 10**9),
        ("count_by", "zone"),
        ("on_unavailable", "none"),
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
        ("discovery", "multicast://[ff02::1]:7949"),
        ("cluster", ""),
        ("cluster", "x" * 256),
        ("cluster", "shop\ud800"),
        ("host", ""),
        ("host", "é" * 51),
        ("host", "pod\n1"),
        ("zone", ""),
        ("zone", "x" * 101),
        ("node_name", ""),
        ("node_name", "x" * 101),
        ("node_name", "web\udcff"),
        ("secret", ""),
        ("secret", "x" * 15),
        ("secret", "\ud800" * 16),
        ("secret_fallbacks", ("x" * 15,)),
    ],
)
def test_a_value_that_cannot_work_is_refused_by_name(name, value):
    """Before a socket is opened, and not one hour later by a cluster that never formed."""
    with pytest.raises(ConfigError, match=name):
        Config(**({"secret": SECRET} | {name: value}))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("cluster", "x" * 255),
        ("host", "é" * 50),
        ("zone", "é" * 50),
        ("node_name", "x" * 100),
        ("all_to_all_below", 2),
        ("secondaries", 1),
        ("node_name", "web 1"),
        ("secret", "x" * 16),
    ],
)
def test_the_longest_names_and_the_shortest_secret_are_taken(name, value):
    """A bound that is off by one refuses what the documentation allows."""
    assert getattr(Config(**{name: value}), name) == value


@pytest.mark.parametrize(
    ("name", "value", "write"),
    [
        ("cluster", None, "cluster='shop'"),
        ("secret", 12345678901234567890, "secret=os.environ"),
        ("secret_fallbacks", SECRET, r"secret_fallbacks=\(former_secret,\)"),
        ("secret_fallbacks", [SECRET], r"secret_fallbacks=\(former_secret,\)"),
        ("secret_fallbacks", (SECRET, None), r"secret_fallbacks=\(former_secret,\)"),
        ("discovery", None, "discovery='auto'"),
        ("bind", 2130706433, "bind='127.0.0.1'"),
        ("advertise", b"10.0.0.1", "advertise='10.0.0.1'"),
        ("port", "7950", "port=7950"),
        ("port", 7950.0, "port=7950"),
        ("port_range", True, "port_range=16"),
        ("host", 1, "host='pod-1'"),
        ("node_name", 1, "node_name='web-1'"),
        ("confirm", True, "confirm=1"),
        ("confirm", None, "confirm=1"),
        ("confirm_timeout_s", None, "confirm_timeout_s=0.25"),
        ("idle_timeout_s", "1", "idle_timeout_s=1800"),
        ("absolute_timeout_s", True, "absolute_timeout_s=43200"),
        ("memory_limit_mb", 0.5, "memory_limit_mb=512"),
        ("zone", 1, "zone='eu-1a'"),
        ("all_to_all_below", "4", "all_to_all_below=4"),
        ("secondaries", True, "secondaries=1"),
        ("count_by", None, "count_by='node'"),
        ("on_unavailable", None, "on_unavailable='error'"),
    ],
)
def test_a_value_of_another_type_is_refused_with_what_to_write(name, value, write):
    """A number in quotes is the usual slip; a TypeError from inside the library would not say where it was made."""
    with pytest.raises(ConfigError, match=f"^{name}.*{write}") as refused:
        Config(**{name: value})
    assert SECRET not in str(refused.value)


@pytest.mark.parametrize("text", ["soon", "3.5x", ""])
@pytest.mark.parametrize(
    ("variable", "allowed", "default"),
    [
        ("PORT", "a whole number from 0 to 65535", "7950"),
        ("PORT_RANGE", "a whole number from 1 to 1000", "16"),
        ("CONFIRM", "0, 1, 2, ... or all", "1"),
        ("CONFIRM_TIMEOUT_S", "a number of seconds, above 0 and below 1000000000", "0.25"),
        (
            "IDLE_TIMEOUT_S",
            "a number of seconds, above 0 and below 1000000000",
            f"{FRAMEWORKS} 1800",
        ),
        (
            "ABSOLUTE_TIMEOUT_S",
            "a number of seconds, above 0 and below 1000000000",
            f"{FRAMEWORKS} 43200",
        ),
        ("MEMORY_LIMIT_MB", "a whole number of MiB from 1 to 999999999", "512"),
        ("ALL_TO_ALL_BELOW", "a whole number from 2 to 999999999", "4"),
        ("SECONDARIES", "a whole number from 1 to 999999999", "1"),
    ],
)
def test_text_that_is_not_the_number_it_should_be_is_refused_with_what_is_allowed(variable, text, allowed, default):
    """The name the operator wrote, what was there, and what to write instead."""
    variable = f"GOSSIPSESS_{variable}"
    says = f"^{variable}={text!r} must be {allowed}. Write .*, or leave it out for {default}.$"
    with pytest.raises(ConfigError, match=says):
        Config.from_env({variable: text})


def test_half_a_node_is_not_called_no_number():
    """It is one, of a kind that cannot be: what helps is what is allowed."""
    for name in ("ALL_TO_ALL_BELOW", "SECONDARIES"):
        with pytest.raises(ConfigError, match=f"^GOSSIPSESS_{name}='3.5' must be a whole number"):
            Config.from_env({f"GOSSIPSESS_{name}": "3.5"})


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("secondaries", "0", "^GOSSIPSESS_SECONDARIES=0 must be a whole number from 1"),
        ("all_to_all_below", "1", "^GOSSIPSESS_ALL_TO_ALL_BELOW=1 must be a whole number from 2"),
        ("count_by", "zone", "^GOSSIPSESS_COUNT_BY='zone' must be 'node' or 'host'"),
        ("on_unavailable", "none", "^GOSSIPSESS_ON_UNAVAILABLE='none' must be 'error' or 'empty'"),
        ("adopt", "true", "^GOSSIPSESS_ADOPT='true' must be 'on' or 'off'"),
        ("port", "-1", "^GOSSIPSESS_PORT=-1 must"),
        ("confirm", "-1", "^GOSSIPSESS_CONFIRM=-1 must"),
        ("idle_timeout_s", "0", "^GOSSIPSESS_IDLE_TIMEOUT_S=0.0 must"),
        ("zone", " ", "^GOSSIPSESS_ZONE=' ' must.*as in GOSSIPSESS_ZONE='eu-1a'"),
        ("cluster", "", "^GOSSIPSESS_CLUSTER='' must.*as in GOSSIPSESS_CLUSTER='shop'"),
        ("secret", "short", "^GOSSIPSESS_SECRET: 5 characters"),
        ("secret_fallbacks", "short", "^GOSSIPSESS_SECRET_FALLBACKS: 5 characters"),
        ("bind", "localhost", "^GOSSIPSESS_BIND: 'localhost' is not an IP address"),
        ("bind", "10.0.0.7", "^GOSSIPSESS_BIND='10.0.0.7' needs a secret"),
        ("advertise", "0.0.0.0", "^GOSSIPSESS_ADVERTISE='0.0.0.0'"),
        ("advertise", "10.0.0.7", "^GOSSIPSESS_ADVERTISE='10.0.0.7': 10.0.0.7 is not on this machine"),
        ("discovery", "dns", "^GOSSIPSESS_DISCOVERY='dns': allowed are"),
        ("discovery", "static://shop:7950", "^GOSSIPSESS_DISCOVERY='static://shop:7950': 'shop' is not"),
        ("discovery", "static://10.0.0.7:7950", "^GOSSIPSESS_DISCOVERY='static.*': 10.0.0.7 is not on this machine"),
    ],
)
def test_a_value_is_refused_under_the_name_by_which_its_user_knows_it(name, text, says):
    """Who set a variable in a container's description searches for that; who wrote an argument, for the argument."""
    variable = f"GOSSIPSESS_{name.upper()}"
    with pytest.raises(ConfigError, match=says):
        Config.from_env({variable: text})
    value = {"secret_fallbacks": (text,)}.get(name, int(text) if text.lstrip("-").isdigit() else text)
    with pytest.raises(ConfigError, match=f"^{name}"):
        Config(**{name: value})


def test_an_argument_that_wins_over_a_variable_is_named_as_an_argument():
    """The variable is right; to look there would be in vain."""
    with pytest.raises(ConfigError, match=r"^secondaries=0 must"):
        Config.from_env({"GOSSIPSESS_SECONDARIES": "2"}, secondaries=0)


@pytest.mark.parametrize("name", ["host", "zone", "node_name"])
def test_a_blank_name_is_refused(name):
    """Nobody means it, and nobody would see it in a log: a variable that is set from another one that is not."""
    with pytest.raises(ConfigError, match=f"^{name}='  ' must be .*, not blank"):
        Config(**{name: "  "})


def test_a_name_where_an_address_belongs_is_told_that_names_are_not_looked_up():
    """``static://shop:7950`` works in other tools; here it would otherwise look like a typing error."""
    with pytest.raises(ConfigError, match=r"'shop' is not an IP address, and names are not looked up.*10\.0\.0\.1"):
        Config(discovery="static://shop:7950")


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
    assert Config(bind=bind, secret=SECRET, discovery="none").bind_address == bind


@pytest.mark.parametrize(
    "settings",
    [
        {"advertise": "10.0.0.1"},
        {"discovery": "static://127.0.0.1:7950,10.0.0.1:7950"},
        {"discovery": "static://[fd00::1]:7950"},
    ],
)
def test_without_a_secret_another_machine_can_neither_be_dialed_nor_told_of(settings):
    """A cluster of two machines that forgot the secret would be two nodes that wait for each other in silence."""
    with pytest.raises(ConfigError, match=r"is not on this machine.*GOSSIPSESS_SECRET"):
        Config(**settings)
    Config(secret=SECRET, **settings)
    Config(advertise="127.0.0.9", discovery="static://127.0.0.1:7950,[::1]:7950")


@pytest.mark.parametrize("bind", ["::", "::1", "fd00::7"])
def test_multicast_on_an_ipv6_address_is_refused(bind):
    """Beacons are IPv4; the node would look for others where none can answer."""
    with pytest.raises(ConfigError, match=r"multicast is IPv4 only.*static://"):
        Config(bind=bind, secret=SECRET, discovery="multicast://239.1.2.3:99")
    Config(bind=bind, secret=SECRET, discovery="static://[fd00::1]:7950")


def test_without_a_bind_the_secret_decides():
    """Nothing leaves a developer's machine by accident, and a deployment needs one setting only."""
    assert Config().bind_address == "127.0.0.1"
    assert Config(bind="127.0.0.9").bind_address == "127.0.0.9"
    assert Config(secret=SECRET).bind_address == "0.0.0.0"


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("auto", Discovery(MULTICAST_GROUP, (), (NAME,), names_when_alone=True)),
        ("dns://gossipsess", Discovery(None, (), (NAME,))),
        ("auto,dns://gossipsess", Discovery(MULTICAST_GROUP, (), (NAME,))),
        ("auto,dns://shop", Discovery(MULTICAST_GROUP, (), (NAME, NAME._replace(host="shop")))),
        ("dns://shop.example.:99", Discovery(None, (), (Name("dns", "shop.example.", 99, 16),))),
        ("srv://_gossip._tcp.shop", Discovery(None, (), (Name("srv", "_gossip._tcp.shop", 0, 1),))),
        ("dns://shop,static://10.0.0.1:1", Discovery(None, (("10.0.0.1", 1),), (NAME._replace(host="shop"),))),
        ("none", Discovery(None, ())),
        ("multicast://239.1.2.3:99", Discovery(("239.1.2.3", 99), ())),
        ("static://10.0.0.1:1,10.0.0.2:2", Discovery(None, (("10.0.0.1", 1), ("10.0.0.2", 2)))),
        ("static://[fd00::1]:7950", Discovery(None, (("fd00::1", 7950),))),
        ("static://[FD00:0::1]:7950", Discovery(None, (("fd00::1", 7950),))),
        (
            "auto, static://10.0.0.1:1, 10.0.0.2:2",
            Discovery(MULTICAST_GROUP, (("10.0.0.1", 1), ("10.0.0.2", 2)), (NAME,), names_when_alone=True),
        ),
        ("static://10.0.0.1:1,multicast://239.1.2.3:99", Discovery(("239.1.2.3", 99), (("10.0.0.1", 1),))),
    ],
)
def test_discovery_is_read_as_it_is_documented(text, parts):
    """Several ways may be joined: a list of seeds goes on after a comma."""
    assert Config(secret=SECRET, discovery=text).discovery_parts() == parts


def test_in_kubernetes_the_name_is_looked_up_from_the_start(monkeypatch):
    """Multicast reaches no pod: waiting for it first would only make each start slower."""
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.96.0.1")
    parts = Config(secret=SECRET, service="shop-gossip:8000", port_range=4).discovery_parts()
    assert parts == Discovery(MULTICAST_GROUP, (), (Name("dns", "shop-gossip", 8000, 4),))


@pytest.mark.parametrize("changes", [{}, {"bind": "127.0.0.2", "secret": SECRET}], ids=["no secret", "loopback"])
def test_a_node_on_loopback_asks_no_name_service(changes, monkeypatch):
    """A query would leave the machine, for addresses that could not be reached."""
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.96.0.1")
    assert Config(**changes).discovery_parts().names == ()


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"discovery": "dns://"}, "'' is not a name"),
        ({"discovery": "dns://a..b"}, "is not a name that can be looked up, as in gossipsess"),
        ({"discovery": "dns://shop:0"}, "'0' is not a port, as in shop:7950"),
        ({"discovery": "dns://shop:x"}, "'x' is not a port"),
        ({"discovery": "dns://[fd00::1]"}, "is not a name"),
        ({"discovery": "srv://shop:80"}, "SRV records tell theirs. Write srv://shop"),
        ({"service": "shop gossip"}, r"service='shop gossip'.* is not a name"),
        ({"discovery": "dns://shop", "secret": None}, "Set GOSSIPSESS_SECRET to the same value on every node"),
        ({"advertise": "127.0.0.1"}, "other machines that dial it would reach themselves"),
    ],
)
def test_a_name_that_cannot_be_looked_up_is_refused(changes, says):
    """Found out in the first second, and not by a cluster that never forms."""
    with pytest.raises(ConfigError, match=says):
        Config(**{"secret": SECRET, **changes})


def test_srv_without_its_package_is_refused_with_what_to_install(monkeypatch):
    """The lookup would fail every few seconds, for ever, in the log of a server."""
    monkeypatch.setattr("gossipsess.discovery.find_spec", lambda _: None)
    with pytest.raises(ConfigError, match=r"pip install 'gossipsess\[dns\]'"):
        Config(secret=SECRET, discovery="srv://shop")


@pytest.mark.parametrize(
    ("environ", "advertise", "bind"),
    [
        ({"GOSSIPSESS_SECRET": SECRET}, "10.1.2.3", "0.0.0.0"),
        ({"GOSSIPSESS_SECRET": SECRET, "POD_IP": "fd00::7"}, "fd00::7", "::"),
        ({"GOSSIPSESS_SECRET": SECRET, "GOSSIPSESS_ADVERTISE": "10.9.9.9"}, "10.9.9.9", "0.0.0.0"),
        ({"GOSSIPSESS_SECRET": SECRET, "GOSSIPSESS_BIND": "10.1.2.4"}, None, "10.1.2.4"),
        ({}, None, "127.0.0.1"),
    ],
    ids=["pod", "pod of IPv6", "said otherwise", "bound to one address", "no secret"],
)
def test_a_pod_advertises_its_own_address(environ, advertise, bind):
    """No route leads from every pod to where its address could be read; and tests run in pods too, without a secret."""
    config = Config.from_env({"POD_IP": "10.1.2.3", **environ})
    assert (config.advertise, config.bind_address) == (advertise, bind)


def test_a_secret_may_be_in_a_file(tmp_path):
    """As Kubernetes mounts one; editors and echo end it with a line's end."""
    (tmp_path / "secret").write_text(f"{SECRET}\n")
    (tmp_path / "former").write_text(f"{SECRET}-1,{SECRET}-2")
    config = Config.from_env(
        {
            "GOSSIPSESS_SECRET_FILE": str(tmp_path / "secret"),
            "GOSSIPSESS_SECRET_FALLBACKS_FILE": str(tmp_path / "former"),
        }
    )
    assert (config.secret, config.secret_fallbacks) == (SECRET, (f"{SECRET}-1", f"{SECRET}-2"))


@pytest.mark.parametrize(
    ("environ", "says"),
    [
        ({"GOSSIPSESS_SECRET_FILE": "/none/there"}, "cannot be read.*Name a file that this user may read"),
        ({"GOSSIPSESS_SECRET_FILE": "/dev/zero"}, "that is no secret"),
        ({"GOSSIPSESS_SECRET_FILE": "/dev/null"}, "GOSSIPSESS_SECRET_FILE: 0 characters"),
        ({"GOSSIPSESS_SECRET_FILE": "/none", "GOSSIPSESS_SECRET": SECRET}, "are both set. Leave one out"),
        ({"GOSSIPSESS_PORT_FILE": "/none"}, "GOSSIPSESS_PORT_FILE is not a setting"),
    ],
)
def test_a_secret_file_that_cannot_be_is_refused(environ, says):
    """With the variable's name, since that is what a manifest sets."""
    with pytest.raises(ConfigError, match=says):
        Config.from_env(environ)


LINKS = {
    "GOSSIPSESS_SERVICE_HOST": "10.96.3.4",
    "GOSSIPSESS_SERVICE_PORT": "8000",
    "GOSSIPSESS_SERVICE_PORT_HTTP": "8000",
    "GOSSIPSESS_PORT": "tcp://10.96.3.4:8000",
    "GOSSIPSESS_PORT_8000_TCP": "tcp://10.96.3.4:8000",
    "GOSSIPSESS_PORT_8000_TCP_ADDR": "10.96.3.4",
}


def test_a_service_called_gossipsess_is_no_setting():
    """Kubernetes tells every pod of every Service by variables that are named after it."""
    config = Config.from_env({"KUBERNETES_SERVICE_HOST": "10.96.0.1", **LINKS})
    assert config == Config()
    with pytest.raises(ConfigError):
        Config.from_env(LINKS)
    with pytest.raises(ConfigError, match="GOSSIPSESS_PORT='eight'"):
        Config.from_env({"KUBERNETES_SERVICE_HOST": "10.96.0.1", "GOSSIPSESS_PORT": "eight"})
