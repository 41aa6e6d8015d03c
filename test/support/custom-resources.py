"""Checks custom resources of a manifest against their definitions: custom-resources.py FILE DIRECTORY..."""

import pathlib
import sys

import jsonschema
import yaml

# YAML 1.1 has a type for a bare "=", which the loader does not know.
yaml.SafeLoader.add_constructor("tag:yaml.org,2002:value", lambda _loader, node: node.value)


def strict(node):
    """A structural schema that refuses unknown keys, as the API server does with strict field validation."""
    if isinstance(node, list):
        return [strict(one) for one in node]
    if not isinstance(node, dict):
        return node
    closed = {key: strict(value) for key, value in node.items()}
    is_open = node.get("x-kubernetes-preserve-unknown-fields") or "additionalProperties" in node
    if isinstance(node.get("properties"), dict) and "type" in node and not is_open:
        closed["additionalProperties"] = False
    return closed


def schemas(directories, kinds):
    for directory in directories:
        for path in pathlib.Path(directory).glob("*.yaml"):
            # A definition's file is named like its kind, in the plural.
            if not any(f"{kind.lower()}s.yaml" in path.name for kind in kinds):
                continue
            for definition in yaml.safe_load_all(path.read_text()):
                if not definition or definition.get("kind") != "CustomResourceDefinition":
                    continue
                spec = definition["spec"]
                for version in spec["versions"]:
                    name = f"{spec['group']}/{version['name']}"
                    schema = strict(version["schema"]["openAPIV3Schema"])
                    # The API server checks what every object has.
                    schema["properties"].update({"metadata": {"type": "object"}})
                    yield (name, spec["names"]["kind"]), schema


resources = [one for one in yaml.safe_load_all(pathlib.Path(sys.argv[1]).read_text()) if one]
known = dict(schemas(sys.argv[2:], {resource["kind"] for resource in resources}))
failed = False
for resource in resources:
    schema = known.get((resource["apiVersion"], resource["kind"]))
    if schema is None:
        continue
    problems = [error.message for error in jsonschema.Draft202012Validator(schema).iter_errors(resource)]
    failed = failed or bool(problems)
    print(f"{resource['kind']}: {'; '.join(problems) or 'valid'}")
sys.exit(1 if failed else 0)
