"""What the manifests hold: valid for Kubernetes, and of one piece with the settings and commands that they name."""

import copy

import kubernetes_validate
import pytest

from gossipsess.config import PORT, PORT_RANGE, Config

from .manifests import Resources, container, pod, printed

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
    """A Service called gossipsess would set GOSSIPSESS_PORT to tcp://10.0.0.1:80, and no pod would start."""
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
