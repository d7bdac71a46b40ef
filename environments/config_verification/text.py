"""Rendering settings as a Kubernetes manifest or a Terraform file. A setting that is None is left out."""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from environments.config_verification.rules import Settings

_PLAIN = re.compile(r"[A-Za-z/][\w./-]*(:[\w.-]+)?|\d+(Mi|Gi|m)", re.ASCII)
_YAML_WORDS = {"true", "false", "null", "yes", "no", "on", "off", "y", "n"}
_REFERENCE = re.compile(r"var\.[a-z_]{1,30}")


def kubernetes_text(kind: str, app: str, settings: Settings) -> str:
    """A Pod, or a Deployment of such pods, with one container."""
    get = settings.get
    container: dict[str, Any] = {"name": "app", "image": get("image", f"{app}:1.0")}
    if get("hostPort") is not None:
        container["ports"] = [{"containerPort": 8080, "hostPort": get("hostPort")}]
    if "value" in settings:
        secret = {"valueFrom": {"secretKeyRef": {"name": app, "key": "db"}}}
        plain = {"value": get("value")}
        container["env"] = [{"name": "DB_PASSWORD", **(secret if get("value") is None else plain)}]
    container["resources"] = {"limits": {"memory": get("memory"), "cpu": get("cpu")}}
    container_flags = ("privileged", "allowPrivilegeEscalation", "runAsNonRoot", "readOnlyRootFilesystem")
    container["securityContext"] = {
        **{name: get(name) for name in container_flags},
        "capabilities": {"add": get("add")},
    }
    pod_flags = ("hostNetwork", "hostPID", "automountServiceAccountToken")
    pod: dict[str, Any] = {**{name: get(name) for name in pod_flags}, "containers": [container]}
    if "path" in settings:
        source = {"emptyDir": "{}"} if get("path") is None else {"hostPath": {"path": get("path")}}
        container["volumeMounts"] = [{"name": "data", "mountPath": "/data"}]
        pod["volumes"] = [{"name": "data", **source}]
    head = {
        "apiVersion": "apps/v1" if kind == "Deployment" else "v1",
        "kind": kind,
        "metadata": {"name": app},
    }
    if kind == "Deployment":
        labels = {"app": app}
        template = {"metadata": {"labels": labels}, "spec": pod}
        pod = {"selector": {"matchLabels": labels}, "template": template}
    return "\n".join(_yaml({**head, "spec": pod}, ""))


def terraform_text(resources: Sequence[str], app: str, settings: Settings) -> str:
    """The resources, one after another, all under the application's name."""
    name = app.replace("-", "_")
    blocks = [
        "\n".join([f'resource "{each}" "{name}" {{', *_hcl(_body(each, app, settings), "  "), "}"])
        for each in resources
    ]
    return "\n".join(blocks)


def _body(resource: str, app: str, settings: Settings) -> dict[str, Any]:
    get = settings.get
    if resource == "aws_s3_bucket":
        return {
            "bucket": app,
            "acl": get("acl"),
            "force_destroy": get("force_destroy"),
            "versioning": {"enabled": get("enabled")},
        }
    if resource == "aws_security_group":
        ports = {"from_port": get("port"), "to_port": get("port"), "protocol": "tcp"}
        return {"ingress": {**ports, "cidr_blocks": get("cidr_blocks")}}
    if resource == "aws_ebs_volume":
        return {"availability_zone": "eu-west-1a", "size": 20, "encrypted": get("encrypted")}
    if resource == "aws_db_instance":
        names = ("password", "storage_encrypted", "publicly_accessible", "deletion_protection")
        return {"engine": "postgres", **{name: get(name) for name in names}}
    if resource == "aws_iam_policy":
        return {"policy": {"Action": get("Action")}}
    if resource == "aws_instance":
        return {
            "instance_type": "t3.micro",
            "associate_public_ip_address": get("associate_public_ip_address"),
            "metadata_options": {"http_tokens": get("http_tokens")},
        }
    raise KeyError(resource)


def _yaml(tree: Mapping[str, Any], indent: str) -> list[str]:
    lines: list[str] = []
    for key, value in tree.items():
        if isinstance(value, Mapping):
            inner = _yaml(value, indent + "  ")
            lines += [f"{indent}{key}:", *inner] if inner else []
        elif isinstance(value, list) and value and isinstance(value[0], Mapping):
            lines.append(f"{indent}{key}:")
            for item in value:
                first, *rest = _yaml(item, indent + "  ")
                lines += [f"{indent}- {first.lstrip()}", *rest]
        elif value is not None:
            lines.append(f"{indent}{key}: {_yaml_value(value)}")
    return lines


def _yaml_value(value: Any) -> str:
    plain = isinstance(value, str) and _PLAIN.fullmatch(value) and value.lower() not in _YAML_WORDS
    return value if plain or value == "{}" else json.dumps(value)


def _hcl(tree: Mapping[str, Any], indent: str) -> list[str]:
    lines: list[str] = []
    for key, value in tree.items():
        if key == "policy":
            statement = f'{{ Effect = "Allow", Action = {json.dumps(value["Action"])}, Resource = "*" }}'
            lines.append(f"{indent}policy = jsonencode({{ Statement = [{statement}] }})")
        elif isinstance(value, Mapping):
            inner = _hcl(value, indent + "  ")
            lines += [f"{indent}{key} {{", *inner, f"{indent}}}"] if inner else []
        elif value is not None:
            reference = isinstance(value, str) and _REFERENCE.fullmatch(value)
            lines.append(f"{indent}{key} = {value if reference else json.dumps(value)}")
    return lines
