"""What the chart uses of kinds that Kubernetes itself does not have, as closed JSON schemas.

KEDA 2 (https://keda.sh/docs/2.17/reference/scaledobject-spec/, scalers/apache-kafka) and the
Prometheus operator (https://prometheus-operator.dev/docs/api-reference/api/): only fields that
stand here may be used, so that a new one is looked up there first.
"""

from __future__ import annotations

from typing import Any

Schema = dict[str, Any]
TEXT: Schema = {"type": "string", "minLength": 1}
COUNT: Schema = {"type": "integer", "minimum": 0}


def closed(required: Schema, optional: Schema | None = None) -> Schema:
    """An object with these fields and no other."""
    properties = required | (optional or {})
    return {
        "type": "object",
        "required": sorted(required),
        "properties": properties,
        "additionalProperties": False,
    }


def listed(one: Schema) -> Schema:
    return {"type": "array", "minItems": 1, "items": one}


def kind(api_version: str, spec: Schema) -> Schema:
    name = {"name": {"type": "string", "pattern": "^[a-z0-9-]{1,63}$"}}
    labels = {"labels": {"type": "object", "additionalProperties": TEXT}}
    return closed(
        {
            "apiVersion": {"const": api_version},
            "kind": TEXT,
            "metadata": closed(name, labels),
            "spec": spec,
        }
    )


# Metadata of a trigger are texts, whatever they mean.
KAFKA_TRIGGER = closed(
    {
        "bootstrapServers": TEXT,
        "consumerGroup": TEXT,
        "topic": TEXT,
        "lagThreshold": {"type": "string", "pattern": "^[1-9][0-9]*$"},
    },
    {
        "offsetResetPolicy": {"enum": ["earliest", "latest"]},
        "version": {"type": "string", "pattern": r"^\d+\.\d+\.\d+$"},
        "sasl": {"enum": ["plaintext", "scram_sha256", "scram_sha512"]},
        "tls": {"enum": ["enable", "disable"]},
    },
)

KINDS: dict[str, Schema] = {
    "ScaledObject": kind(
        "keda.sh/v1alpha1",
        closed(
            {
                "scaleTargetRef": closed(
                    {"apiVersion": TEXT, "kind": {"enum": ["StatefulSet"]}, "name": TEXT}
                ),
                "triggers": listed(
                    closed(
                        {"type": {"const": "kafka"}, "metadata": KAFKA_TRIGGER},
                        {"authenticationRef": closed({"name": TEXT})},
                    )
                ),
            },
            {
                "minReplicaCount": COUNT,
                "maxReplicaCount": COUNT,
                "pollingInterval": COUNT,
                "cooldownPeriod": COUNT,
                "fallback": closed({"failureThreshold": COUNT, "replicas": COUNT}),
                "advanced": closed(
                    {"horizontalPodAutoscalerConfig": closed({"behavior": {"type": "object"}})}
                ),
            },
        ),
    ),
    "TriggerAuthentication": kind(
        "keda.sh/v1alpha1",
        closed(
            {
                "secretTargetRef": listed(
                    closed(
                        {
                            "parameter": {
                                "enum": ["username", "password", "ca", "cert", "key", "keyPassword"]
                            },
                            "name": TEXT,
                            "key": TEXT,
                        }
                    )
                )
            }
        ),
    ),
    "ServiceMonitor": kind(
        "monitoring.coreos.com/v1",
        closed(
            {
                "selector": closed({"matchLabels": {"type": "object"}}),
                "endpoints": listed(
                    closed(
                        {"port": TEXT},
                        {
                            "path": TEXT,
                            "interval": {"type": "string", "pattern": "^[0-9]+s$"},
                            "relabelings": listed(
                                closed({"sourceLabels": listed(TEXT), "targetLabel": TEXT})
                            ),
                        },
                    )
                ),
            }
        ),
    ),
}
