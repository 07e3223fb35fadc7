"""Every object that an overlay applies has the form that its API asks for, checked without a server."""

import json
from functools import cache
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from components.errors import StageError
from k8s.devcluster.build import module_folder
from tests.manifests import KUEUE, OVERLAYS, Object, objects_of

VERSION = "1.34"
VARIANTS = [(overlay, ()) for overlay in OVERLAYS] + [("gpu", ("managed-postgres",))]


def distinct(is_kueue: bool) -> list[Object]:
    """Of all overlays, each different object once."""
    found = {
        json.dumps(one, sort_keys=True): one
        for overlay, components in VARIANTS
        for one in objects_of(overlay, components)
        if (one["apiVersion"] == KUEUE) == is_kueue
    }
    return list(found.values())


def complaints(one: Object) -> list[str]:
    """What a strict reader says of a built-in kind: also of fields that it does not know."""
    try:
        kubernetes_validate.validate(one, VERSION, strict=True)
    except kubernetes_validate.ValidationError as error:
        path = "/".join(map(str, error.absolute_path))
        return [f"{one['kind']} {one['metadata']['name']} {path}: {error.message}"]
    return []


def test_every_built_in_object_has_the_form_of_kubernetes_1_34() -> None:
    objects = distinct(is_kueue=False)
    assert len(objects) > 70
    assert [line for one in objects for line in complaints(one)] == []


def test_a_misspelled_field_of_a_built_in_object_is_found() -> None:
    (claim, *_) = (one for one in objects_of("dev") if one["kind"] == "PersistentVolumeClaim")
    broken = claim | {"spec": claim["spec"] | {"acessModes": ["ReadWriteMany"]}}
    assert "acessModes" in "".join(complaints(broken))


@cache
def kueue_schemas() -> dict[str, Any]:
    """Kind: the schema of the pinned Kueue's custom resource, with unknown fields refused."""
    try:
        folder = module_folder("sigs.k8s.io/kueue")
    except StageError as error:
        pytest.skip(f"Kueue's definitions are not here: {error.message}")
    found = {}
    for path in (folder / "config" / "components" / "crd" / "bases").glob("*.yaml"):
        definition = yaml.load(path.read_text(encoding="utf-8"), yaml.CSafeLoader)
        for version in definition["spec"]["versions"]:
            if f"{definition['spec']['group']}/{version['name']}" == KUEUE:
                schema = version["schema"]["openAPIV3Schema"]
                schema["properties"]["metadata"] = {"type": "object"}
                found[definition["spec"]["names"]["kind"]] = _strict(schema)
    return found


def _strict(schema: Any) -> Any:
    """What the API server prunes or warns of is an error here."""
    if isinstance(schema, list):
        return [_strict(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {key: _strict(value) for key, value in schema.items()}
    if isinstance(schema.get("properties"), dict) and schema.get("type") == "object":
        closed |= {"additionalProperties": False}
    return closed


def kueue_complaints(one: Object) -> list[str]:
    validator = jsonschema.Draft7Validator(kueue_schemas()[one["kind"]])
    return [
        f"{one['kind']} {error.json_path}: {error.message}" for error in validator.iter_errors(one)
    ]


def test_every_kueue_object_has_the_form_of_the_pinned_kueue() -> None:
    objects = distinct(is_kueue=True)
    assert {one["kind"] for one in objects} == {
        "Topology", "ResourceFlavor", "Cohort", "ClusterQueue", "LocalQueue", "WorkloadPriorityClass",
    }  # fmt: skip
    assert [line for one in objects for line in kueue_complaints(one)] == []


@pytest.mark.parametrize(
    ("kind", "spec"),
    [
        ("ClusterQueue", {"preemption": {"withinClusterQueue": "LowestPriority"}}),
        ("ClusterQueue", {"cohort": "headrace"}),  # its name in v1beta1
        ("Topology", {"levels": []}),
    ],
)
def test_a_wrong_kueue_object_is_found(kind: str, spec: Object) -> None:
    one = {"apiVersion": KUEUE, "kind": kind, "metadata": {"name": "x"}, "spec": spec}
    assert len(kueue_complaints(one)) == 1
