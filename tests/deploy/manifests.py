# What the manifests say, for the tests: rendered by the command itself, read as YAML.
#
# Out:    `printed` and `kustomized`, each a mapping from (kind, name) to a resource; `pod`, `container`, `environ` of
#         one; `image_command`, which the recipe of the example says.
# Choice: kubectl's kustomize is asked, not a copy of its rules. `needs_kubectl` skips where there is none, and says so.

import contextlib
import io
import json
import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from gossipsess.cli.__main__ import main

Resource = dict[str, Any]
Resources = dict[tuple[str, str], Resource]

ROOT: Final = Path(__file__).parents[2]
SHOP: Final = ROOT / "docs" / "examples" / "shop"
KUBECTL: Final = shutil.which("kubectl")
needs_kubectl = pytest.mark.skipif(KUBECTL is None, reason="kubectl is not installed (kubernetes-client on Debian)")


@dataclass(frozen=True)
class Ended:
    """How a command ended, and what it printed."""

    returncode: int
    stdout: str
    stderr: str


def gossipsess(*arguments: str) -> Ended:
    """Run the command line, in this process: a new one costs half a second."""
    stdout, stderr = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(stdout), contextlib.redirect_stderr(stderr):
        try:
            code = main(arguments)
        except SystemExit as ended:
            code = int(ended.code or 0)
    return Ended(code, stdout.getvalue(), stderr.getvalue())


def text_of(*arguments: str) -> str:
    done = gossipsess("k8s", "render", *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


def printed(*arguments: str) -> Resources:
    return resources(text_of(*arguments))


def kustomized(folder: Path) -> Resources:
    """Return what `kubectl apply -k` would apply. Skips where kubectl is too old for the folder's syntax."""
    assert KUBECTL is not None
    done = subprocess.run(
        [KUBECTL, "kustomize", str(folder)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={"PATH": os.environ["PATH"], "HOME": "/nonexistent", "KUBECONFIG": "/nonexistent"},
    )
    if done.returncode != 0 and "patchesStrategicMerge of type patch.StrategicMerge" in done.stderr:
        pytest.skip("this kubectl is older than 1.21 and reads no `patches` with a path")
    assert done.returncode == 0, done.stderr
    assert "deprecated" not in done.stderr, done.stderr
    return resources(done.stdout)


def resources(text: str) -> Resources:
    documents = list(yaml.safe_load_all(text))
    found = {(document["kind"], document["metadata"]["name"]): document for document in documents}
    assert len(found) == len(documents), "a resource is there twice"
    return found


def pod(rendered: Resources) -> Resource:
    """Return the specification of the one kind of pod."""
    (deployment,) = (resource for (kind, _), resource in rendered.items() if kind == "Deployment")
    return deployment["spec"]["template"]["spec"]


def container(rendered: Resources) -> Resource:
    (only,) = pod(rendered)["containers"]
    return only


def environ(rendered: Resources, fields: Mapping[str, str]) -> dict[str, str]:
    """Return the container's variables as Kubernetes would set them, for a pod with these fields."""
    return {
        one["name"]: one["value"] if "value" in one else fields[one["valueFrom"]["fieldRef"]["fieldPath"]]
        for one in container(rendered)["env"]
    }


def image_command() -> list[str]:
    """Return the command of the example's image."""
    (command,) = re.findall(r"^CMD (\[.*\])$", (SHOP / "Containerfile").read_text(), re.MULTILINE)
    words: list[str] = json.loads(command)
    return words
