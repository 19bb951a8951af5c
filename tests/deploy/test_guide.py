"""docs/KUBERNETES.md: what it has people write works, and the commands that it names are there."""

import logging
import re
import runpy
from pathlib import Path

import kubernetes_validate
import pytest
import yaml
from starlette.testclient import TestClient

from gossipsess.cli.others import _parser

from .manifests import ROOT, container, kustomized, needs_kubectl, printed, text_of

GUIDE = (ROOT / "docs" / "KUBERNETES.md").read_text()
BLOCKS = re.findall(r"^```yaml\n(.*?)^```$", GUIDE, re.MULTILINE | re.DOTALL)


@needs_kubectl
def test_the_guides_own_overlay_changes_what_it_says_and_nothing_else(tmp_path):
    """Who needs one more variable keeps the files that were written as they are."""
    folder = tmp_path / "shop-k8s"
    text_of("--into", str(folder))
    for block in BLOCKS:
        if block.startswith("# shop-k8s/"):
            file = tmp_path / block.partition("\n")[0].removeprefix("# ")
            file.parent.mkdir(exist_ok=True)
            file.write_text(block)
    made, plain = kustomized(folder / "overlays" / "own"), printed()
    added = [one for one in container(made)["env"] if one not in container(plain)["env"]]
    assert added == [{"name": "GOSSIPSESS_IDLE_TIMEOUT_S", "value": "3600"}]
    container(plain)["env"] = container(made)["env"]
    assert made == plain


def test_the_guides_policy_for_what_pods_connect_to_opens_the_gossip_ports():
    """It is copied by those whose connections are closed, and they have no other place to look."""
    (policy,) = (yaml.safe_load(block) for block in BLOCKS if "kind: NetworkPolicy" in block)
    kubernetes_validate.validate(policy, kubernetes_validate.latest_version(), strict=True)
    ours = printed()["NetworkPolicy", "shop"]["spec"]
    (inside,) = (rule for rule in ours["ingress"] if "from" in rule)
    assert {"to": inside["from"], "ports": inside["ports"]} in policy["spec"]["egress"]
    assert policy["spec"]["podSelector"] == ours["podSelector"]


def test_the_example_answers_whoever_comes_first_and_keeps_what_they_do(monkeypatch, tmp_path):
    """It is the first thing that anybody sees of all this: a page, before there is any session."""
    for name, value in {"DISCOVERY": "none", "CLUSTER": "example", "PORT": "0", "HOST": "shop-1"}.items():
        monkeypatch.setenv(f"GOSSIPSESS_{name}", value)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    app = runpy.run_path(str(ROOT / "docs" / "examples" / "shop" / "app.py"))["app"]
    logging.getLogger("gossipsess").setLevel(logging.NOTSET)  # of all tests' logger
    with TestClient(app) as client:
        assert "Not logged in.<p>Answered by shop-1." in client.get("/").text
        assert "Logged in as &lt;kim&gt;. In the cart: nothing." in client.post("/login", data={"user": "<kim>"}).text
        assert "In the cart: book." in client.post("/cart", data={"item": "book"}).text
        assert "Not logged in." in client.post("/logout").text


@pytest.mark.parametrize("page", ["docs/KUBERNETES.md", "README.md", "docs/examples/shop/Containerfile"])
def test_every_command_that_is_named_is_one(page):
    """Nobody tries the commands of a table until the night in which they are needed."""
    (commands,) = (action.choices for action in _parser()._actions if action.dest == "command")
    named = set(re.findall(r"(?:`|-- |\| |\.{3} |^    )gossipsess ([a-z0-9]+)\b", (ROOT / page).read_text(), re.M))
    assert named <= set(commands), named - set(commands)


def test_every_file_that_the_guide_leads_to_is_there():
    for target in re.findall(r"\]\(([^)#]+)\)", GUIDE):
        assert (ROOT / "docs" / Path(target)).exists(), target


def test_every_setting_that_the_guide_names_is_one():
    """Or names the file that a secret is in; and one stands there because it is none."""
    from gossipsess import Config

    names = set(re.findall(r"GOSSIPSESS_([A-Z_]+)\b", GUIDE)) - {"SECRET_FILE", "SECRET_FALLBACKS_FILE", "DEMO_PORT"}
    assert {name.lower() for name in names} <= set(Config.__dataclass_fields__)
