"""Endpoints on SageMaker: ``policylab endpoint VERB --on sagemaker``, ``to-sagemaker`` and ``to-cloudformation``."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from policylab.cli.output import columns, emit
from policylab.cli.region import region_of
from policylab.errors import UserError

if TYPE_CHECKING:
    from policylab.deployment.endpoint import EndpointConfig
    from policylab.deployment.sagemaker.plan import HostingPlan
    from policylab.deployment.sagemaker.verbs import HostedEndpoint


def to_sagemaker(arguments: argparse.Namespace) -> int:
    """Print the requests of an endpoint file; exit code 2 if SageMaker would refuse one."""
    _, plan = _planned(arguments)
    return print_plan(arguments, plan.document())


def to_cloudformation(arguments: argparse.Namespace) -> int:
    """Print the template of an endpoint file; exit code 2 if SageMaker would refuse what it makes."""
    from policylab.deployment.sagemaker.template import cloudformation_template

    config, plan = _planned(arguments)
    document = plan.document()
    _tell(document)
    template = cloudformation_template(plan, description=f"policylab endpoint {config.name}")
    sys.stdout.write(json.dumps(template, indent=1) + "\n")
    return 2 if document["errors"] else 0


def create(arguments: argparse.Namespace) -> int:
    """Create the endpoint of a file, and wait until it answers."""
    return _sent(arguments, "create")


def update(arguments: argparse.Namespace) -> int:
    """Update an endpoint to a file by its guardrail, and wait for the end of that."""
    return _sent(arguments, "update")


def status(arguments: argparse.Namespace) -> int:
    """Say how an endpoint stands."""
    return _shown(arguments, _named(arguments).status())


def weights(arguments: argparse.Namespace) -> int:
    """Change the weights of variants."""
    from policylab.cli.endpoint import weight_pair

    return _shown(arguments, _named(arguments).weights(dict(map(weight_pair, arguments.weights))))


def rollback(arguments: argparse.Namespace) -> int:
    """Return to the version before the last update."""
    return _shown(arguments, _named(arguments).rollback())


def delete(arguments: argparse.Namespace) -> int:
    """Delete an endpoint with its configurations, models and alarms."""
    document = _named(arguments).delete()
    emit(arguments, document, text=lambda: "\n".join(f"deleted {name}" for name in document["deleted"]))
    return 0


def invoke(arguments: argparse.Namespace) -> int:
    """Ask for a decision."""
    from policylab.cli.endpoint import observation_body
    from policylab.launchers.sagemaker.service import client, patiently

    request: dict[str, Any] = {
        "EndpointName": _name(arguments),
        "Body": json.dumps(observation_body(arguments)).encode(),
        "ContentType": "application/json",
        "Accept": "application/json",
        "TargetVariant": arguments.variant,
        "TargetModel": arguments.model,
        "InferenceId": arguments.inference_id,
        "SessionId": arguments.session,
    }
    runtime = client("sagemaker-runtime", region=region_of(arguments))
    given = {name: value for name, value in request.items() if value is not None}
    answer = patiently(runtime.invoke_endpoint, **given)["Body"].read()
    try:
        document = json.loads(answer)
    except ValueError:
        raise UserError(f"{_name(arguments)} answered no JSON; is it an endpoint of policylab?") from None
    rows = [[str(key), str(value)] for key, value in document.items()] if isinstance(document, dict) else []
    emit(arguments, document, text=lambda: columns(rows))
    return 0


def _planned(arguments: argparse.Namespace) -> tuple[EndpointConfig, HostingPlan]:
    from policylab.deployment.endpoint import load_endpoint
    from policylab.deployment.sagemaker.plan import hosting_plan

    file = vars(arguments).get("file") or arguments.source
    config = load_endpoint(Path(file), overrides=arguments.overrides)
    return config, hosting_plan(config)


def _sent(arguments: argparse.Namespace, verb: str) -> int:
    config, plan = _planned(arguments)
    if arguments.dry_run:
        return print_plan(arguments, plan.document())
    assert config.sagemaker is not None
    _tell(plan.document())
    plan.require_valid()
    hosted = _hosted(config.name, region=arguments.region or config.sagemaker.region or region_of(arguments))
    return _shown(arguments, getattr(hosted, verb)(plan))


def _name(arguments: argparse.Namespace) -> str:
    if not arguments.name:
        raise UserError("which endpoint? give --name, as in its file")
    return str(arguments.name)


def _named(arguments: argparse.Namespace) -> HostedEndpoint:
    return _hosted(_name(arguments), region=region_of(arguments))


def _hosted(name: str, *, region: str | None) -> HostedEndpoint:
    from policylab.deployment.endpoint import valid_name
    from policylab.deployment.sagemaker.verbs import Clients, HostedEndpoint
    from policylab.launchers.sagemaker.object_store import S3Store
    from policylab.launchers.sagemaker.service import client

    try:
        valid_name(name)
    except ValueError as error:
        raise UserError(f"--name: {error}, got {name!r}") from None
    opened = {
        service: client(service, region=region)
        for service in ("sagemaker", "cloudwatch", "application-autoscaling", "s3")
    }
    clients = Clients(
        opened["sagemaker"], opened["cloudwatch"], opened["application-autoscaling"], S3Store(opened["s3"])
    )
    return HostedEndpoint(name, clients, changed=lambda status: sys.stderr.write(f"{name}: {status}\n"))


def print_plan(arguments: argparse.Namespace, document: dict[str, Any]) -> int:
    """Print the requests of a plan, and what is wrong with them; exit code 2 if one would be refused."""
    _tell(document)
    emit(arguments, document, text=lambda: "\n".join(map(_request_text, document["requests"])))
    return 2 if document["errors"] else 0


def _request_text(call: dict[str, Any]) -> str:
    return f"{call['service']} {call['operation']}\n{json.dumps(call['request'], indent=1)}"


def _tell(document: dict[str, Any]) -> None:
    lines = [f"not expressible: {text}" for text in document["not_expressible"]]
    lines += [f"{kind}: {text}" for kind in ("error", "warning") for text in document[f"{kind}s"]]
    if document["unchecked"]:
        lines.append(f"warning: not checked against the service models: {document['unchecked']}")
    sys.stderr.write("".join(f"{line}\n" for line in lines))


def _shown(arguments: argparse.Namespace, document: dict[str, Any]) -> int:
    heads = ["variant", "weight", "share", "machines"]
    rows = [
        [one["name"], f"{one['weight']:g}", f"{one['share']:.1%}", str(one["instances"] or "-")]
        for one in document["variants"]
    ]
    lines = [f"{document['name']}: {document['status']}, {document['configuration']}", columns([heads, *rows])]
    if document["update"]:
        lines.append(f"update to {document['update']} under way")
    if document["reason"]:
        lines.append(f"reason: {document['reason']}")
    emit(arguments, document, text=lambda: "\n".join(lines))
    return 0
