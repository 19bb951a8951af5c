# Kubernetes manifests: `gossipsess k8s render`, from the templates in deploy/.
#
# In:     a name, an image, a port, how many replicas, a namespace, an overlay.
# Out:    one multi-document YAML, or with --into a folder for kustomize; an exit code.
# Rule:   an overlay's file is a whole resource. Printed, it takes the place of the base's file of that name; in the
#         folder it is a patch, and a whole resource is one that sets everything. So both ways give the same resources
#         (a test compares them), and nothing here has to understand YAML.
# Rule:   what comes in is refused unless Kubernetes would take it, so that nothing can change a document's structure.
# Choice: string.Template over a YAML library, which every application would have to install with gossipsess.
# Not here: the secret. It is made where it is kept (RENDER says how), and is in no file.

import argparse
import re
import shlex
import sys
from collections.abc import Iterator, Sequence
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path, PurePosixPath
from string import Template
from typing import Final

from gossipsess.config import PORT, PORT_RANGE

NAME_CHARACTERS_MAX: Final = 56
"""A Service's name has 63 at most, and the headless one is called NAME-gossip."""
NAMESPACE_CHARACTERS_MAX: Final = 63
IMAGE_CHARACTERS_MAX: Final = 500
REPLICAS_MAX: Final = 1000
GOSSIP_PORTS: Final = range(PORT, PORT + PORT_RANGE)
KUSTOMIZATION: Final = "kustomization.yaml"
DONE, REFUSED = 0, 2

RENDER: Final = """\
Prints what a web application needs to run on Kubernetes as several replicas that share their sessions: a Deployment,
a Service for users, a headless Service by whose DNS name the nodes find each other, a PodDisruptionBudget and a
NetworkPolicy. No role, no token, no operator. The image is yours; its own command serves the application on --port,
and `gossipsess` is on its PATH (pip install puts it there).

The secret that the nodes share is made once, before the first pod starts:

  gossipsess keygen | kubectl create secret generic NAME-gossipsess --from-file=secret=/dev/stdin

examples:
  gossipsess k8s render --name shop --image registry.example/shop:1 | kubectl apply -f -
  gossipsess k8s render --name shop --image registry.example/shop:1 --overlay client-ip | kubectl apply -f -
  gossipsess k8s render --name shop --image registry.example/shop:1 --into shop-k8s
  kubectl apply -k shop-k8s/base                  # or shop-k8s/overlays/client-ip; kubectl 1.21 or newer

exit codes:
  0  printed, or written
  2  wrong arguments, or a folder in which something is already, or which cannot be written
"""

_LABEL = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_NAME: Final = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
_NAMESPACE: Final = re.compile(_LABEL)
_COMPONENT = r"[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*"
_DOMAIN = r"[A-Za-z0-9]([-A-Za-z0-9]*[A-Za-z0-9])?(\.[A-Za-z0-9]([-A-Za-z0-9]*[A-Za-z0-9])?)*(:[0-9]+)?"
_IMAGE: Final = re.compile(
    rf"({_DOMAIN}/)?{_COMPONENT}(/{_COMPONENT})*(:[A-Za-z0-9_][A-Za-z0-9_.-]{{0,127}})?(@sha256:[0-9a-f]{{64}})?"
)


def main(arguments: Sequence[str]) -> int:
    """Print the manifests or write them, and return the exit code.

    Raises:
        SystemExit: the arguments are wrong (2), or only help was wanted (0).
    """
    options = _parser().parse_args(arguments)
    values = {
        "name": options.name,
        "image": options.image or f"{options.name}:1",
        "port": str(options.port),
        "replicas": str(options.replicas),
        "namespace_line": f'\n  namespace: "{options.namespace}"' if options.namespace else "",
        "gossip_port": str(GOSSIP_PORTS[0]),
        "gossip_port_last": str(GOSSIP_PORTS[-1]),
    }
    tree = {path: Template(text).substitute(values) for path, text in _templates(_deploy(), PurePosixPath())}
    if options.into is None:
        sys.stdout.write(_printed(tree, options.overlay))
        return DONE
    return _write(tree, options.into, options)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="gossipsess k8s", description="Manifests for Kubernetes.")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    render = verbs.add_parser(
        "render",
        help="print manifests, or write them for kustomize",
        description=RENDER,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = render.add_argument
    add("--name", type=_name, default="shop", help="of the application, and of all that is made (default: %(default)s)")
    add("--image", type=_image, help="of the application (default: NAME:1)")
    add("--port", type=_port, default=8000, help="on which the image serves the application (default: %(default)s)")
    add("--replicas", type=_replicas, default=3, help="pods (default: %(default)s)")
    add("--namespace", type=_namespace, help="written into each resource (default: kubectl's own)")
    add(
        "--overlay",
        choices=_overlays(),
        help="client-ip: requests from one address go to one pod while it lives; sessions do not need it",
    )
    add("--into", type=Path, metavar="DIR", help="write a base and overlays for kustomize there, into a new folder")
    return parser


def _overlays() -> list[str]:
    return sorted(entry.name for entry in _deploy().joinpath("overlays").iterdir() if entry.is_dir())


def _printed(tree: dict[PurePosixPath, str], overlay: str | None) -> str:
    """Return one YAML of all documents, in the order of the base's kustomization."""
    base = PurePosixPath("base")
    over = None if overlay is None else PurePosixPath("overlays", overlay)
    names = re.findall(r"^  - (\S+\.yaml)$", tree[base / KUSTOMIZATION], re.MULTILINE)
    documents = [tree.get(over / name if over else base / name, tree[base / name]) for name in names]
    return "---\n".join(documents)


def _write(tree: dict[PurePosixPath, str], folder: Path, options: argparse.Namespace) -> int:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        there = next(folder.iterdir(), None)
        if there is not None:
            print(
                f"--into {folder}: {there.name} is there already, and nothing was written. Name a folder that is new "
                f"or empty, as in --into {folder / f'{options.name}-k8s'}",
                file=sys.stderr,
            )
            return REFUSED
        for path, text in tree.items():
            file = folder / path
            file.parent.mkdir(parents=True, exist_ok=True)
            with file.open("x", encoding="utf-8") as new:
                new.write(text)
    except OSError as error:
        print(f"--into {folder} cannot be written ({error}). Name a folder in one of yours.", file=sys.stderr)
        return REFUSED
    chosen = folder / "overlays" / options.overlay if options.overlay else folder / "base"
    print(f"kubectl apply -k {shlex.quote(str(chosen))}")
    return DONE


def _templates(folder: Traversable, path: PurePosixPath) -> Iterator[tuple[PurePosixPath, str]]:
    """Yield the path below deploy/ of each template in this folder and those below, and its text."""
    for entry in folder.iterdir():
        if entry.is_dir():
            yield from _templates(entry, path / entry.name)
        elif entry.name.endswith(".yaml"):
            yield path / entry.name, entry.read_text("utf-8")


def _deploy() -> Traversable:
    return files("gossipsess").joinpath("deploy")


def _name(text: str) -> str:
    if len(text) <= NAME_CHARACTERS_MAX and _NAME.fullmatch(text):
        return text
    raise _refused(
        text,
        f"1 to {NAME_CHARACTERS_MAX} small letters of a to z, digits and hyphens, that begin with a letter and end "
        "with no hyphen",
        _legal(text.lstrip("0123456789-"), NAME_CHARACTERS_MAX) or "shop",
    )


def _namespace(text: str) -> str:
    if len(text) <= NAMESPACE_CHARACTERS_MAX and _NAMESPACE.fullmatch(text):
        return text
    raise _refused(
        text,
        f"1 to {NAMESPACE_CHARACTERS_MAX} small letters of a to z, digits and hyphens, none of them at an end",
        _legal(text, NAMESPACE_CHARACTERS_MAX) or "default",
    )


def _image(text: str) -> str:
    if len(text) <= IMAGE_CHARACTERS_MAX and _IMAGE.fullmatch(text):
        return text
    raise _refused(text, "the name of an image, with its registry and tag", "registry.example/shop:1")


def _port(text: str) -> int:
    port = _number(text, range(1, 65536), "8000")
    if port in GOSSIP_PORTS:
        raise argparse.ArgumentTypeError(
            f"{port} is one of the gossip's own ports ({GOSSIP_PORTS[0]} to {GOSSIP_PORTS[-1]}); write, say, 8000"
        )
    return port


def _replicas(text: str) -> int:
    return _number(text, range(1, REPLICAS_MAX + 1), "3")


def _number(text: str, allowed: range, example: str) -> int:
    if text.isascii() and text.isdecimal() and len(text) < 10 and int(text) in allowed:
        return int(text)
    raise _refused(text, f"a whole number from {allowed[0]} to {allowed[-1]}", example)


def _refused(text: str, allowed: str, instead: str) -> argparse.ArgumentTypeError:
    return argparse.ArgumentTypeError(f"{text!r} is not {allowed}; write, say, {instead}")


def _legal(text: str, most: int) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:most].strip("-")
