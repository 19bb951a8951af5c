"""What the manifests hold: valid for Kubernetes, and of one piece with the settings and commands that they name."""

import copy
import re

import kubernetes_validate
import pytest

from gossipsess.cli import asking
from gossipsess.config import PORT, PORT_RANGE, Config
from gossipsess.errors import ConfigError
from gossipsess.model.member import Name
from gossipsess.runtime.portal import CLOSE_S

from .manifests import ROOT, SHOP, Resources, container, environ, image_command, pod, printed

OLDEST, NEWEST = "1.27", kubernetes_validate.latest_version()
"""The oldest Kubernetes that docs/KUBERNETES.md names, and the newest whose schemas the package carries."""

GOSSIP = {
    ("TCP", PORT, PORT + PORT_RANGE - 1),
    ("UDP", PORT, PORT + PORT_RANGE - 1),
}


@pytest.fixture(scope="module", params=[(), ("--overlay", "client-ip")], ids=["base", "client-ip"])
def rendered(request) -> Resources:
    return printed(*request.param)


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
def test_kubernetes_own_schemas_take_every_resource(rendered, version):
    for resource in rendered.values():
        kubernetes_validate.validate(resource, version, strict=True)


@pytest.mark.parametrize(
    "path",
    [
        ("Deployment", "spec", "template", "spec", "terminationGracePeriodSecond"),
        ("Service", "spec", "publishNotReadyAdresses"),
        ("NetworkPolicy", "spec", "ingres"),
        ("PodDisruptionBudget", "spec", "maxUnavaillable"),
    ],
    ids=lambda path: path[-1],
)
def test_a_misspelt_field_does_not_pass(path):
    """Kubernetes would drop it without a word, and the pods would run without what it was to do."""
    kind, *folders, field = path
    resource = copy.deepcopy(next(one for (a_kind, _), one in printed().items() if a_kind == kind))
    inner = resource
    for folder in folders:
        inner = inner[folder]
    inner[field] = True
    with pytest.raises(kubernetes_validate.ValidationError, match=field):
        kubernetes_validate.validate(resource, NEWEST, strict=True)


def test_the_gossip_ports_are_those_of_the_settings(rendered):
    """Another default in the settings, and the nodes would knock at closed ports."""
    policy = rendered["NetworkPolicy", "shop"]["spec"]
    (inside,) = (rule for rule in policy["ingress"] if "from" in rule)
    assert {(port["protocol"], port["port"], port["endPort"]) for port in inside["ports"]} == GOSSIP
    ports = {(port["name"], port["protocol"], port["containerPort"]) for port in container(rendered)["ports"]}
    assert {("gossip-tcp", "TCP", PORT), ("gossip-udp", "UDP", PORT)} < ports
    headless = rendered["Service", "shop-gossip"]["spec"]["ports"]
    assert {(port["protocol"], port["port"], port["targetPort"]) for port in headless} == {
        ("TCP", PORT, "gossip-tcp"),
        ("UDP", PORT, "gossip-udp"),
    }


def test_every_variable_is_a_setting_and_says_what_it_is_to_say(rendered, tmp_path, monkeypatch):
    """A name that is none stops the application at its start, and a wrong one may do so never."""
    (tmp_path / "secret").write_text("s" * 43)
    fields = {"status.podIP": "10.1.2.3", "metadata.name": "shop-1", "spec.nodeName": "machine-1"}
    variables = environ(rendered, fields) | {"GOSSIPSESS_SECRET_FILE": str(tmp_path / "secret")}
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.96.0.1")
    config = Config.from_env(variables)
    assert (config.cluster, config.host, config.zone) == ("shop", "shop-1", "machine-1")
    assert (config.secret, config.advertise) == ("s" * 43, "10.1.2.3")
    assert config.discovery_parts().names == (Name("dns", "shop-gossip", PORT, PORT_RANGE),)
    assert not config.discovery_parts().names_when_alone
    assert ("Service", config.service) in rendered


def test_probes_and_the_hook_are_commands_of_ours_with_flags_that_they_take(rendered):
    """A probe that ends with a usage message is one that always fails."""
    own = container(rendered)
    commands = [own[probe]["exec"]["command"] for probe in ("readinessProbe", "livenessProbe")]
    commands.append(own["lifecycle"]["preStop"]["exec"]["command"])
    assert [command[:2] for command in commands] == [["gossipsess", name] for name in ("ready", "live", "drain")]
    for _, name, *flags in commands:
        asking._parser(name).parse_args(flags)
    assert own["startupProbe"]["tcpSocket"]["port"] in [port["name"] for port in own["ports"]]


def test_a_pod_has_time_to_end_in_order(rendered):
    """When the grace period is over, the kernel kills what has not handed over yet."""
    grace_s = pod(rendered)["terminationGracePeriodSeconds"]
    _, name, *flags = container(rendered)["lifecycle"]["preStop"]["exec"]["command"]
    hook = asking._parser(name).parse_args(flags)
    assert 0 < hook.wait < hook.timeout
    assert hook.wait >= container(rendered)["readinessProbe"]["periodSeconds"]
    server = image_command()
    requests_s = int(server[server.index("--timeout-graceful-shutdown") + 1])
    assert grace_s >= hook.timeout + requests_s + CLOSE_S + 5


def test_only_pods_of_the_application_reach_its_gossip_ports(rendered):
    """And anybody reaches the application."""
    policy = rendered["NetworkPolicy", "shop"]["spec"]
    labels = rendered["Deployment", "shop"]["spec"]["template"]["metadata"]["labels"]
    assert policy["podSelector"]["matchLabels"] == labels
    assert policy["policyTypes"] == ["Ingress"]
    outside, inside = sorted(policy["ingress"], key=lambda rule: "from" in rule)
    assert outside == {"ports": [{"protocol": "TCP", "port": "http"}]}
    assert inside["from"] == [{"podSelector": {"matchLabels": labels}}]


def test_every_selector_finds_the_pods(rendered):
    labels = rendered["Deployment", "shop"]["spec"]["template"]["metadata"]["labels"]
    assert rendered["Deployment", "shop"]["spec"]["selector"]["matchLabels"] == labels
    assert rendered["PodDisruptionBudget", "shop"]["spec"]["selector"]["matchLabels"] == labels
    for name in ("shop", "shop-gossip"):
        assert rendered["Service", name]["spec"]["selector"] == labels
    for constraint in pod(rendered)["topologySpreadConstraints"]:
        assert constraint["labelSelector"]["matchLabels"] == labels


def test_pods_are_in_the_records_before_they_are_ready(rendered):
    """If records waited for readiness, and pods for records, two that start together would never meet."""
    headless = rendered["Service", "shop-gossip"]["spec"]
    assert headless["clusterIP"] == "None"
    assert headless["publishNotReadyAddresses"] is True


def test_nothing_asks_the_kubernetes_api(rendered):
    """No role to review, no token that leaks with a pod."""
    assert {kind for kind, _ in rendered} == {"Service", "Deployment", "PodDisruptionBudget", "NetworkPolicy"}
    assert pod(rendered)["automountServiceAccountToken"] is False
    assert "serviceAccountName" not in pod(rendered)


def test_the_variables_of_services_do_not_reach_the_settings(rendered):
    """Those of a Service called gossipsess-demo begin as settings do, and no pod would start."""
    with pytest.raises(ConfigError, match="GOSSIPSESS_DEMO_PORT is not a setting"):
        Config.from_env({"KUBERNETES_SERVICE_HOST": "10.96.0.1", "GOSSIPSESS_DEMO_PORT": "tcp://10.96.7.7:80"})
    assert pod(rendered)["enableServiceLinks"] is False


def test_sessions_have_room_below_the_containers_memory_limit(rendered):
    """The kernel kills what meets that limit; the node's own limit only turns new sessions away."""
    limit = container(rendered)["resources"]["limits"]["memory"]
    assert limit.endswith("Gi")
    assert int(limit.removesuffix("Gi")) * 1024 >= Config().memory_limit_mb + 256


def test_nothing_in_the_pod_runs_as_root_or_writes_to_the_image(rendered):
    """What Kubernetes calls the restricted Pod Security Standard, and a read-only root besides."""
    assert pod(rendered)["securityContext"]["runAsNonRoot"] is True
    assert pod(rendered)["securityContext"]["runAsUser"] > 0
    assert pod(rendered)["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    own = container(rendered)["securityContext"]
    assert own["readOnlyRootFilesystem"] is True
    assert own["allowPrivilegeEscalation"] is False
    assert own["capabilities"] == {"drop": ["ALL"]}
    mounts = {mount["name"]: mount for mount in container(rendered)["volumeMounts"]}
    assert mounts["tmp"]["mountPath"] == "/tmp"
    assert mounts["secret"]["readOnly"] is True
    assert {volume["name"] for volume in pod(rendered)["volumes"]} == set(mounts)


def test_the_image_of_the_example_is_made_of_files_that_are_here_and_runs_as_the_deployment_says(rendered):
    """Building it takes an engine; what can be read without one is read."""
    recipe = (SHOP / "Containerfile").read_text()
    for line in re.findall(r"^COPY (.*) \S+$", recipe, re.MULTILINE):
        for source in line.split():
            assert (ROOT / source).exists(), source
    context = pod(rendered)["securityContext"]
    assert f"\nUSER {context['runAsUser']}:{context['runAsGroup']}\n" in recipe
    (port,) = (port["containerPort"] for port in container(rendered)["ports"] if port["name"] == "http")
    assert f"\nEXPOSE {port}\n" in recipe
    assert image_command()[image_command().index("--port") + 1] == str(port)
