"""`gossipsess k8s render` and `gossipsess keygen`: what comes out, and what is refused."""

import json
import subprocess
from pathlib import Path

import pytest
import yaml

from .manifests import KUBECTL, container, gossipsess, kustomized, needs_kubectl, pod, printed, resources, text_of

VARIANTS = [
    (),
    ("--overlay", "client-ip"),
    ("--name", "a-b", "--image", "registry.example:5000/team/app:1.2_x@sha256:" + "0" * 64, "--namespace", "123"),
    ("--name", "null", "--port", "1", "--replicas", "1000", "--namespace", "on", "--overlay", "client-ip"),
]


@needs_kubectl
@pytest.mark.parametrize("options", VARIANTS, ids=" ".join)
def test_what_is_printed_and_what_kustomize_makes_of_the_folder_are_equal(options, tmp_path):
    """Two ways to the same application: who changes from one to the other must see nothing change."""
    said = text_of(*options, "--into", str(tmp_path / "k8s")).split()
    assert said[:3] == ["kubectl", "apply", "-k"]
    assert kustomized(Path(said[3])) == printed(*options)


def test_without_an_overlay_no_request_has_to_come_back_to_its_pod():
    """Not to need sticky sessions is what the library is for."""
    assert "sessionAffinity" not in printed()["Service", "shop"]["spec"]


def test_an_overlay_changes_one_resource_and_nothing_else():
    plain, sticky = printed(), printed("--overlay", "client-ip")
    assert sticky.pop(("Service", "shop"))["spec"].pop("sessionAffinity") == "ClientIP"
    assert plain.pop(("Service", "shop"))
    assert sticky == plain


def test_the_options_are_where_they_belong():
    made = printed(
        "--name", "cart", "--image", "r.example/c:2", "--port", "9000", "--replicas", "6", "--namespace", "eu"
    )
    assert {name for _, name in made} == {"cart", "cart-gossip"}
    assert {resource["metadata"]["namespace"] for resource in made.values()} == {"eu"}
    assert container(made)["image"] == "r.example/c:2"
    assert made["Deployment", "cart"]["spec"]["replicas"] == 6
    assert [port["containerPort"] for port in container(made)["ports"] if port["name"] == "http"] == [9000]
    assert all("namespace" not in resource["metadata"] for resource in printed().values())


@pytest.mark.parametrize("name", ["on", "no", "null", "true", "y", "e", "a" * 56])
def test_a_name_stays_a_name_where_yaml_would_read_something_else(name):
    """`on` is a word to a person, and true to YAML."""
    made = printed("--name", name, "--namespace", "0")
    assert set(made) == {
        ("Service", f"{name}-gossip"),
        ("Service", name),
        ("Deployment", name),
        ("PodDisruptionBudget", name),
        ("NetworkPolicy", name),
    }
    assert {resource["metadata"]["namespace"] for resource in made.values()} == {"0"}
    assert pod(made)["volumes"][0]["secret"]["secretName"] == f"{name}-gossipsess"


@pytest.mark.parametrize(
    ("option", "value", "instead"),
    [
        ("--name", "My_Shop", "my-shop"),
        ("--name", "1shop", "shop"),
        ("--name", "shop-", "shop"),
        ("--name", "a" * 57, "a" * 56),
        ("--name", "", "shop"),
        ("--name", "sh\nop", "sh-op"),
        ("--name", "\u017fhop", "hop"),
        ("--namespace", "Prod EU", "prod-eu"),
        ("--namespace", "a" * 64, "a" * 63),
        ("--image", "", "registry.example/shop:1"),
        ("--image", "Shop", "registry.example/shop:1"),
        ("--image", 'a"\nkind: Secret', "registry.example/shop:1"),
        ("--image", "shop:", "registry.example/shop:1"),
        ("--image", "a-" * 251, "registry.example/shop:1"),
        ("--port", "0", "8000"),
        ("--port", "65536", "8000"),
        ("--port", "http", "8000"),
        ("--port", "٨", "8000"),
        ("--port", "7950", "8000"),
        ("--port", "7965", "8000"),
        ("--replicas", "0", "3"),
        ("--replicas", "1" * 5000, "3"),
    ],
)
def test_what_kubernetes_would_refuse_is_refused_here_with_what_to_write_instead(option, value, instead):
    """There it comes back as a schema's error about a resource that nobody wrote by hand."""
    done = gossipsess("k8s", "render", option, value)
    assert done.returncode == 2
    assert done.stdout == ""
    assert f"argument {option}: " in done.stderr
    assert done.stderr.endswith(f"; write, say, {instead}\n")


def test_an_unknown_overlay_is_refused_with_those_that_there_are():
    done = gossipsess("k8s", "render", "--overlay", "sticky")
    assert done.returncode == 2
    assert "invalid choice: 'sticky'" in done.stderr
    assert "client-ip" in done.stderr.splitlines()[-1]


def test_a_folder_with_something_in_it_is_left_as_it_is(tmp_path):
    """It may be yesterday's manifests, with changes that somebody made by hand."""
    (tmp_path / "notes.txt").write_text("mine")
    done = gossipsess("k8s", "render", "--into", str(tmp_path))
    assert done.returncode == 2
    assert "notes.txt is there already, and nothing was written." in done.stderr
    assert done.stderr.endswith(f"as in --into {tmp_path / 'shop-k8s'}\n")
    assert [file.name for file in tmp_path.iterdir()] == ["notes.txt"]
    assert text_of("--into", str(tmp_path / "shop-k8s"))  # what it said works
    assert gossipsess("k8s", "render", "--into", str(tmp_path / "shop-k8s")).returncode == 2  # nor is its own replaced


@pytest.mark.parametrize("below", [("notes.txt",), ("notes.txt", "k8s")])
def test_a_folder_that_cannot_be_made_is_said_to_be_so(below, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    done = gossipsess("k8s", "render", "--into", str(tmp_path.joinpath(*below)))
    assert done.returncode == 2
    assert "cannot be written" in done.stderr
    assert "Traceback" not in done.stderr
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_the_next_command_can_be_pasted_as_it_is_printed(tmp_path):
    said = text_of("--into", str(tmp_path / "my shop"))
    assert said == f"kubectl apply -k '{tmp_path / 'my shop' / 'base'}'\n"


def test_no_secret_is_in_what_is_printed_and_the_help_says_how_to_make_it():
    """Manifests are kept in repositories."""
    assert all(kind != "Secret" for kind, _ in printed())
    done = gossipsess("k8s", "render", "--help")
    assert "gossipsess keygen | kubectl create secret generic NAME-gossipsess --from-file=secret=" in done.stdout


def test_each_new_secret_is_another_one_and_long_enough():
    from gossipsess import Config

    first, second = gossipsess("keygen").stdout, gossipsess("keygen").stdout
    assert first != second
    assert Config(secret=first.removesuffix("\n")).secret == first.strip()
    assert len(first.strip()) == 43
    assert list(json.loads(gossipsess("keygen", "--json").stdout)) == ["secret"]


@needs_kubectl
def test_the_secret_is_made_by_the_command_that_the_help_shows():
    """It is what the Deployment mounts: the same name, and the key that its variable names as a file."""
    assert KUBECTL is not None
    command = [KUBECTL, "create", "secret", "generic", "shop-gossipsess", "--from-file=secret=/dev/stdin"]
    done = subprocess.run(
        [*command, "--dry-run=client", "-o", "yaml"], input="s" * 43, capture_output=True, text=True, check=True
    )
    ((kind, name), secret) = next(iter(resources(done.stdout).items()))
    made = printed()
    assert kind == "Secret"
    assert pod(made)["volumes"][0]["secret"]["secretName"] == name
    (mount,) = (one for one in container(made)["volumeMounts"] if one["name"] == "secret")
    (variable,) = (one["value"] for one in container(made)["env"] if one["name"] == "GOSSIPSESS_SECRET_FILE")
    assert [f"{mount['mountPath']}/{key}" for key in secret["data"]] == [variable]


@pytest.mark.parametrize("command", [("k8s",), ("k8s", "render", "extra")])
def test_a_wrong_command_shows_how_it_is_called(command):
    done = gossipsess(*command)
    assert done.returncode == 2
    assert done.stderr.startswith("usage: gossipsess k8s ") or "unrecognized arguments: extra" in done.stderr


def test_what_is_printed_has_one_document_for_each_file_of_the_base():
    assert len(list(yaml.safe_load_all(text_of()))) == len(printed()) == 5
