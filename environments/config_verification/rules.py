"""The rules that a file is held to: what breaks each, what mends it, and who decides.

A rule with `checks` is decided by these checks of checkov, one without by the Rego policy of its kind
(`policies/`), which denies under the rule's own name. `broken` and `sound` are choices
of settings for the generator (None: the setting is absent); `{app}`, `{word}` and `{number}` are filled in.
"""

import math
from dataclasses import dataclass
from typing import Any, Literal

Kind = Literal["kubernetes", "terraform"]
Severity = Literal["low", "medium", "high"]
Settings = dict[str, Any]

KUBERNETES: Kind = "kubernetes"
TERRAFORM: Kind = "terraform"

SEVERITY_WEIGHTS: dict[Severity, float] = {"low": 0.3, "medium": 0.6, "high": 1.0}

ANYWHERE = "0.0.0.0/0"


@dataclass(frozen=True)
class Rule:
    """A rule of one kind of file; `part` is the Terraform resource that it speaks of, or "Pod"."""

    name: str
    severity: Severity
    part: str
    broken: tuple[Settings, ...]
    sound: tuple[Settings, ...]
    mend: Settings
    checks: tuple[str, ...] = ()

    @property
    def kind(self) -> Kind:
        return KUBERNETES if self.part == "Pod" else TERRAFORM

    @property
    def weight(self) -> float:
        return SEVERITY_WEIGHTS[self.severity]


def _flag(
    name: str,
    severity: Severity,
    part: str,
    setting: str,
    check: str,
    *,
    safe: bool,
    absent: Literal["safe", "unsafe", "never"] = "never",
) -> Rule:
    """A rule on a true-or-false setting; `absent` says what its absence means, "never" that it is not used."""
    sound: list[Settings] = [{setting: safe}]
    broken: list[Settings] = [{setting: not safe}]
    if absent != "never":
        (sound if absent == "safe" else broken).append({setting: None})
    checks = (check,) if check else ()
    return Rule(name, severity, part, tuple(broken), tuple(sound), {setting: safe}, checks)


def _open_port(name: str, ports: tuple[int, ...], checks: tuple[str, ...] = ()) -> Rule:
    """A rule on a port that the whole internet reaches; port 443 may stand open."""
    return Rule(
        name,
        "high",
        "aws_security_group",
        tuple({"port": port, "cidr_blocks": [ANYWHERE]} for port in ports),
        ({"port": ports[0], "cidr_blocks": ["10.{number}.0.0/16"]}, {"port": 443, "cidr_blocks": [ANYWHERE]}),
        {"cidr_blocks": ["10.0.0.0/16"]},
        checks,
    )


def _limit(name: str, severity: Severity, setting: str, values: tuple[str, ...], check: str) -> Rule:
    sound = tuple({setting: value} for value in values)
    return Rule(name, severity, "Pod", ({setting: None},), sound, {setting: values[0]}, (check,))


RULES = (
    _flag("privileged", "high", "Pod", "privileged", "CKV_K8S_16", safe=False, absent="safe"),
    _flag("host-network", "high", "Pod", "hostNetwork", "CKV_K8S_19", safe=False, absent="safe"),
    _flag("host-pid", "high", "Pod", "hostPID", "CKV_K8S_17", safe=False, absent="safe"),
    _flag("escalation", "medium", "Pod", "allowPrivilegeEscalation", "CKV_K8S_20", safe=False),
    _flag("root-user", "medium", "Pod", "runAsNonRoot", "CKV_K8S_23", safe=True, absent="unsafe"),
    _flag("writable-root", "low", "Pod", "readOnlyRootFilesystem", "CKV_K8S_22", safe=True, absent="unsafe"),
    _flag("api-token", "low", "Pod", "automountServiceAccountToken", "CKV_K8S_38", safe=False),
    _limit("memory-limit", "medium", "memory", ("256Mi", "128Mi", "512Mi"), "CKV_K8S_13"),
    _limit("cpu-limit", "low", "cpu", ("500m", "250m", "1"), "CKV_K8S_11"),
    Rule(
        "latest-tag",
        "low",
        "Pod",
        ({"image": "{app}:latest"}, {"image": "{app}"}),
        ({"image": "{app}:1.{number}"}, {"image": "{app}:2.{number}"}),
        {"image": "{app}:1.0"},
        ("CKV_K8S_14",),
    ),
    Rule(
        "host-port",
        "medium",
        "Pod",
        ({"hostPort": 8080}, {"hostPort": 9090}),
        ({"hostPort": None},),
        {"hostPort": None},
        ("CKV_K8S_26",),
    ),
    Rule(
        "sys-admin",
        "high",
        "Pod",
        ({"add": ["SYS_ADMIN"]}, {"add": ["NET_BIND_SERVICE", "SYS_ADMIN"]}),
        ({"add": ["NET_BIND_SERVICE"]}, {"add": None}),
        {"add": ["NET_BIND_SERVICE"]},
        ("CKV_K8S_39",),
    ),
    Rule(
        "host-path",
        "high",
        "Pod",
        ({"path": "/etc"}, {"path": "/var/run/docker.sock"}, {"path": "/root"}, {"path": "/"}),
        ({"path": "/srv/{app}"}, {"path": "/data"}),
        {"path": "/data"},
    ),
    Rule(
        "plain-secret",
        "high",
        "Pod",
        ({"value": "{word}{number}"}, {"value": "Welcome-{word}"}),
        ({"value": None},),
        {"value": None},
    ),
    Rule(
        "public-acl",
        "high",
        "aws_s3_bucket",
        ({"acl": "public-read"}, {"acl": "public-read-write"}),
        ({"acl": "private"},),
        {"acl": "private"},
        ("CKV_AWS_20", "CKV_AWS_57"),
    ),
    _flag("no-versioning", "low", "aws_s3_bucket", "enabled", "CKV_AWS_21", safe=True),
    _flag("force-destroy", "medium", "aws_s3_bucket", "force_destroy", "", safe=False, absent="safe"),
    _open_port("open-ssh", (22,), ("CKV_AWS_24",)),
    _open_port("open-rdp", (3389,), ("CKV_AWS_25",)),
    _open_port("open-db", (5432, 3306)),
    _flag("plain-volume", "medium", "aws_ebs_volume", "encrypted", "CKV_AWS_3", safe=True, absent="unsafe"),
    _flag("plain-db", "medium", "aws_db_instance", "storage_encrypted", "CKV_AWS_16", safe=True),
    _flag(
        "public-db", "high", "aws_db_instance", "publicly_accessible", "CKV_AWS_17", safe=False, absent="safe"
    ),
    _flag("deletable", "low", "aws_db_instance", "deletion_protection", "CKV_AWS_293", safe=True),
    Rule(
        "plain-password",
        "high",
        "aws_db_instance",
        ({"password": "{word}{number}"}, {"password": "Welcome-{word}"}),
        ({"password": "var.password"}, {"password": "var.db_password"}),
        {"password": "var.password"},
    ),
    Rule(
        "iam-wildcard",
        "high",
        "aws_iam_policy",
        ({"Action": ["*"]}, {"Action": ["s3:GetObject", "*"]}),
        ({"Action": ["s3:GetObject"]}, {"Action": ["sqs:SendMessage"]}),
        {"Action": ["s3:GetObject"]},
        ("CKV_AWS_63",),
    ),
    Rule(
        "metadata-v1",
        "medium",
        "aws_instance",
        ({"http_tokens": "optional"}, {"http_tokens": None}),
        ({"http_tokens": "required"},),
        {"http_tokens": "required"},
        ("CKV_AWS_79",),
    ),
    _flag(
        "public-ip",
        "medium",
        "aws_instance",
        "associate_public_ip_address",
        "CKV_AWS_88",
        safe=False,
        absent="safe",
    ),
)

DEMONSTRATION_RULES = (
    _flag("host-ipc", "high", "Pod", "hostIPC", "CKV_K8S_18", safe=False, absent="safe"),
    _flag("key-rotation", "medium", "aws_kms_key", "enable_key_rotation", "CKV_AWS_7", safe=True),
)
"""Shown in the prompt's example and in no task, so that repeating the example earns nothing."""

RULE_OF = {rule.name: rule for rule in (*RULES, *DEMONSTRATION_RULES)}


def weight_of(names: set[str] | frozenset[str]) -> float:
    """Sum of the severities, whatever the order of the set; a name that is no rule weighs as a medium one."""
    return math.fsum(
        RULE_OF[name].weight if name in RULE_OF else SEVERITY_WEIGHTS["medium"] for name in names
    )
