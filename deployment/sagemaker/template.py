"""An endpoint file as one CloudFormation template.

Resources are the requests of the plan; names that CloudFormation gives would break the promise that a name says what
it names, so they are the plan's. Those resources refer to each other, which is the order in which they are made.

Source: https://docs.aws.amazon.com/AWSCloudFormation/latest/TemplateReference/AWS_SageMaker.html
"""

from __future__ import annotations

from typing import Any

from policylab.deployment.sagemaker.plan import HostingPlan, Request


def cloudformation_template(plan: HostingPlan, *, description: str) -> dict[str, Any]:
    """Return the template of a plan.

    Bundles must lie at the places that the plan names; a template uploads nothing.

    Args:
        plan: of an endpoint file.
        description: of the template.
    """
    models = {request["ModelName"]: f"Model{i}" for i, request in enumerate(plan.models)}
    resources: dict[str, Any] = {
        models[request["ModelName"]]: _resource("AWS::SageMaker::Model", _model(request)) for request in plan.models
    }
    alarms = {request["AlarmName"]: f"Alarm{i}" for i, request in enumerate(plan.alarms)}
    for request in plan.alarms:
        resources[alarms[request["AlarmName"]]] = _resource("AWS::CloudWatch::Alarm", request)
    resources["Configuration"] = _resource("AWS::SageMaker::EndpointConfig", _configuration(plan, models))
    resources["Endpoint"] = _resource("AWS::SageMaker::Endpoint", _endpoint(plan, alarms))
    for i, (target, policy) in enumerate(zip(plan.targets, plan.policies, strict=True)):
        resources[f"Target{i}"] = {
            **_resource("AWS::ApplicationAutoScaling::ScalableTarget", target),
            "DependsOn": "Endpoint",
        }
        resources[f"Policy{i}"] = _resource("AWS::ApplicationAutoScaling::ScalingPolicy", _policy(policy, f"Target{i}"))
    return {
        "AWSTemplateFormatVersion": "2010-09-09",
        "Description": description,
        "Resources": resources,
        "Outputs": {
            "EndpointName": {"Description": "what clients name", "Value": {"Fn::GetAtt": ["Endpoint", "EndpointName"]}}
        },
    }


def _resource(kind: str, properties: Request) -> dict[str, Any]:
    return {"Type": kind, "Properties": properties}


def _model(request: Request) -> Request:
    return dict(request)


def _configuration(plan: HostingPlan, models: dict[str, str]) -> Request:
    def linked(variants: list[Request]) -> list[Request]:
        return [{**one, "ModelName": {"Fn::GetAtt": [models[one["ModelName"]], "ModelName"]}} for one in variants]

    found = dict(plan.configuration)
    for key in ("ProductionVariants", "ShadowProductionVariants"):
        if key in found:
            found[key] = linked(found[key])
    return found


def _endpoint(plan: HostingPlan, alarms: dict[str, str]) -> Request:
    found = {**plan.create, "EndpointConfigName": {"Fn::GetAtt": ["Configuration", "EndpointConfigName"]}}
    deployment = plan.update.get("DeploymentConfig")
    if deployment is None:
        return found
    rollback = deployment.get("AutoRollbackConfiguration")
    if rollback is not None:
        names = [one["AlarmName"] for one in rollback["Alarms"]]
        linked = [{"AlarmName": {"Ref": alarms[name]} if name in alarms else name} for name in names]
        deployment = {**deployment, "AutoRollbackConfiguration": {"Alarms": linked}}
    return {**found, "DeploymentConfig": deployment}


def _policy(request: Request, target: str) -> Request:
    place = ("ServiceNamespace", "ResourceId", "ScalableDimension")
    return {
        **{name: value for name, value in request.items() if name not in place},
        "ScalingTargetId": {"Ref": target},
    }
