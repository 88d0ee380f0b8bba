"""Values files in, the chart's manifests out, as Helm's own library renders them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.deploy.conftest import ROOT, Render

CHART = ROOT / "infra" / "helm" / "headrace"
VALUES = Path(__file__).parent / "values"
KUBERNETES = "1.33.0"
Manifest = dict[str, Any]

SECRETS = {
    "HEADRACE_RPC": "https://rpc.example/KEY",
    "HEADRACE_CLICKHOUSE__URL": "clickhouses://headrace:secret@clickhouse.example.net:9440",
    "HEADRACE_KAFKA__SASL_USERNAME": "headrace",
    "HEADRACE_KAFKA__SASL_PASSWORD": "secret",
    "HEADRACE_KAFKA__SSL_KEY_PASSWORD": "secret",
}
"""What the Secrets would hold for each variable."""


@dataclass(frozen=True, slots=True)
class Charted:
    """The manifests of one release."""

    manifests: tuple[Manifest, ...]

    def of(self, *kinds: str) -> list[Manifest]:
        return [one for one in self.manifests if one["kind"] in kinds]

    @property
    def roles(self) -> dict[str, Manifest]:
        """Deployments and StatefulSets by the role's name."""
        return {component(one): one for one in self.of("Deployment", "StatefulSet")}

    @property
    def pods(self) -> Iterator[tuple[str, Manifest]]:
        """The pod of each role and hook by its name."""
        for one in self.of("Deployment", "StatefulSet", "Job"):
            yield component(one), one["spec"]["template"]


def component(manifest: Manifest) -> str:
    name: str = manifest["metadata"]["labels"]["app.kubernetes.io/component"]
    return name


def chart(render: Render, *values: str | Path, kubernetes: str = KUBERNETES) -> Charted:
    """The chart with values files; a bare name is one of values/."""
    files = [VALUES / f"{one}.yaml" if isinstance(one, str) else one for one in values]
    done = render("chart", CHART, kubernetes, *files)
    assert done.returncode == 0, done.stderr
    parts = done.stdout.split("\n---\n# Source: ")
    texts = [part for part in parts if not part.splitlines()[0].endswith("NOTES.txt")]
    loaded = [one for text in texts for one in yaml.safe_load_all(f"# {text}")]
    return Charted(tuple(one for one in loaded if isinstance(one, dict)))


def container_of(pod: Manifest) -> Manifest:
    (one,) = pod["spec"]["containers"]
    found: Manifest = one
    return found


def environment_of(pod: Manifest, name: str = "test-0") -> dict[str, str]:
    """The variables of a pod's container, its Secrets and its own name filled in."""
    found: dict[str, str] = {}
    for one in container_of(pod)["env"]:
        assert one["name"] not in found, f"{one['name']} is given twice"
        if "value" in one:
            found[one["name"]] = one["value"]
        elif "secretKeyRef" in one["valueFrom"]:
            found[one["name"]] = SECRETS[one["name"]]
        else:
            found[one["name"]] = name
    return found
