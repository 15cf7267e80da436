"""The verbs of an endpoint on SageMaker, by the command line, against a moto server over HTTP.

What moto cannot show: it takes nearly any request, its endpoints are InService at once, and it has no UpdateEndpoint,
which is added here in its place and only notes the configuration. So waiting, roll-back by alarms and refusals of the
service are shown on records that the test makes; that traffic moves is SageMaker's alone to prove.
"""

import json

import pytest

from policylab.agents.bundle import load_bundle
from policylab.cli.main import main
from policylab.deployment.endpoint import load_endpoint
from policylab.deployment.sagemaker.plan import hosting_plan
from policylab.deployment.sagemaker.verbs import Clients, HostedEndpoint
from policylab.errors import RunError, UserError
from policylab.launchers.sagemaker.object_store import S3Store
from policylab.launchers.sagemaker.service import client

pytest.importorskip("moto")
ON = ("--on", "sagemaker")


def _update_endpoint(self):
    endpoint = self.sagemaker_backend.endpoints[self._get_param("EndpointName")]
    endpoint.endpoint_config_name = self._get_param("EndpointConfigName")
    return json.dumps({"EndpointArn": endpoint.arn})


@pytest.fixture
def sagemaker(aws, monkeypatch):
    """A client, and a moto that updates endpoints."""
    from moto.sagemaker.responses import SageMakerResponse

    monkeypatch.setattr(SageMakerResponse, "update_endpoint", _update_endpoint, raising=False)
    return client("sagemaker", region=None)


def told(capsys, verb, *arguments, code=0):
    assert main(["endpoint", verb, *map(str, arguments), *ON, "--json"]) == code
    return json.loads(capsys.readouterr().out)


SCALED = {"autoscaling": {"min_capacity": 1, "max_capacity": 3, "requests_per_s": 10}}


def test_an_endpoint_is_created_updated_rolled_back_and_deleted(sagemaker, write, bundles, capsys, tmp_path):
    first, scaling = write(sagemaker=SCALED), client("application-autoscaling", region=None)
    plan = hosting_plan(load_endpoint(first))
    created = told(capsys, "create", first)
    assert (created["status"], created["configuration"]) == ("InService", plan.configuration["EndpointConfigName"])
    assert told(capsys, "create", first) == created  # again is the same
    model = sagemaker.describe_model(ModelName=plan.models[0]["ModelName"])
    (tmp_path / "back.tar.gz").write_bytes(
        S3Store(client("s3", region=None)).get_bytes(model["PrimaryContainer"]["ModelDataUrl"])
    )
    assert load_bundle(tmp_path / "back.tar.gz").digest == load_bundle(bundles["left"]).digest
    (target,) = scaling.describe_scalable_targets(ServiceNamespace="sagemaker")["ScalableTargets"]
    assert (target["ResourceId"], target["MaxCapacity"]) == ("endpoint/lake/variant/stable", 3)
    assert len(scaling.describe_scaling_policies(ServiceNamespace="sagemaker")["ScalingPolicies"]) == 1

    second = write("second.yaml", sagemaker=SCALED, variants=[{"name": "stable", "bundle": str(bundles["soft"])}])
    updated = told(capsys, "update", second)
    assert updated["configuration"] != created["configuration"]
    alarms = client("cloudwatch", region=None).describe_alarms()["MetricAlarms"]
    assert {one["AlarmName"] for one in alarms} >= {f"{updated['configuration']}-stable-errors"}
    assert told(capsys, "rollback", "--name", "lake")["configuration"] == created["configuration"]

    assert set(told(capsys, "delete", "--name", "lake")["deleted"]) >= {"lake", created["configuration"]}
    assert sagemaker.list_endpoints()["Endpoints"] == []
    assert sagemaker.list_endpoint_configs()["EndpointConfigs"] == []
    assert sagemaker.list_models()["Models"] == []
    assert client("cloudwatch", region=None).describe_alarms()["MetricAlarms"] == []
    assert scaling.describe_scalable_targets(ServiceNamespace="sagemaker")["ScalableTargets"] == []
    assert "no endpoint lake" in told(capsys, "delete", "--name", "lake", code=2)["error"]["message"]


def test_weights_move_traffic(sagemaker, write, bundles, capsys):
    variants = [{"name": name, "bundle": str(bundles[name]), "weight": 1} for name in ("left", "right")]
    told(capsys, "create", write(variants=variants))
    told(capsys, "weights", "left=3", "right=1", "--name", "lake")
    status = told(capsys, "status", "--name", "lake")
    assert [(one["name"], one["share"]) for one in status["variants"]] == [("left", 0.75), ("right", 0.25)]
    message = told(capsys, "weights", "lefd=1", "--name", "lake", code=2)["error"]["message"]
    assert "did you mean 'left'" in message


def test_a_dry_run_sends_nothing(sagemaker, write, capsys):
    document = told(capsys, "create", write(), "--dry-run")
    assert [call["operation"] for call in document["requests"]][:1] == ["CreateModel"]
    assert sagemaker.list_models()["Models"] == []
    assert S3Store(client("s3", region=None)).list("s3://bucket/") == []


def test_an_invalid_file_sends_nothing(sagemaker, write, capsys):
    path = write(sagemaker={"instances": {"nobody": {}}})
    assert "must name a variant" in told(capsys, "create", path, code=2)["error"]["message"]
    assert sagemaker.list_models()["Models"] == []


def test_a_transform_job_is_taken(sagemaker, write):
    plan = hosting_plan(load_endpoint(write(sagemaker={"transform": {"input": "s3://bucket/in/"}})))
    sagemaker.create_model(**plan.models[0])
    sagemaker.create_transform_job(**plan.transform)
    name = plan.transform["TransformJobName"]
    sent = sagemaker.describe_transform_job(TransformJobName=name)
    assert sent["ModelName"] == plan.models[0]["ModelName"]


def test_another_file_under_the_same_name_is_not_created_over_it(sagemaker, write, bundles, capsys):
    told(capsys, "create", write())
    other = write("other.yaml", variants=[{"name": "stable", "bundle": str(bundles["soft"])}])
    assert "policylab endpoint update" in told(capsys, "create", other, code=2)["error"]["message"]


@pytest.mark.parametrize("verb", ["status", "rollback", "delete"])
def test_what_is_not_there_and_what_has_no_name_are_user_errors(sagemaker, capsys, verb):
    assert "there is no endpoint lake" in told(capsys, verb, "--name", "lake", code=2)["error"]["message"]
    assert "give --name" in told(capsys, verb, code=2)["error"]["message"]
    assert "--name: a name has" in told(capsys, verb, "--name", "../x", code=2)["error"]["message"]


class Scripted:
    """A SageMaker whose endpoint is described by one record after another; the last one stays."""

    def __init__(self, *statuses, configuration="lake-0123456789"):
        self.statuses = list(statuses)
        self.configuration = configuration
        self.alarmed = []

    def describe_endpoint(self, *, EndpointName):
        status = self.statuses.pop(0) if len(self.statuses) > 1 else self.statuses[0]
        return {
            "EndpointStatus": status,
            "EndpointArn": "arn",
            "EndpointConfigName": self.configuration,
            "FailureReason": "the ping failed",
            "ProductionVariants": [{"VariantName": "stable", "CurrentWeight": 1.0}],
            "LastDeploymentConfig": {"AutoRollbackConfiguration": {"Alarms": [{"AlarmName": "new-stable-errors"}]}},
        }

    def update_endpoint_weights_and_capacities(self, **request):
        return {}

    def set_alarm_state(self, **request):
        self.alarmed.append(request["AlarmName"])
        return {}


def hosted(service):
    pauses, statuses = [], []
    clients = Clients(service, service, service, None)
    return HostedEndpoint("lake", clients, sleep=pauses.append, changed=statuses.append), pauses, statuses


def test_waiting_pauses_ever_longer_and_tells_each_status():
    endpoint, pauses, statuses = hosted(Scripted("InService", *["Updating"] * 12, "InService"))
    assert endpoint.weights({"stable": 1.0})["status"] == "InService"
    assert statuses == ["Updating", "InService"]
    assert pauses == sorted(pauses)
    assert pauses[-1] == 30.0


def test_a_failed_endpoint_is_told_with_its_reason():
    endpoint, _, _ = hosted(Scripted("InService", "Updating", "Failed"))
    with pytest.raises(RunError, match="lake is Failed: the ping failed"):
        endpoint.weights({"stable": 1.0})


def test_nothing_is_changed_while_an_update_is_under_way():
    endpoint, _, _ = hosted(Scripted("Updating"))
    with pytest.raises(UserError, match="lake is Updating and cannot be weighed now"):
        endpoint.weights({"stable": 1.0})


def test_an_update_under_way_is_rolled_back_by_its_alarm():
    service = Scripted("Updating", "RollingBack", "InService")
    endpoint, _, statuses = hosted(service)
    endpoint.rollback()
    assert service.alarmed == ["new-stable-errors"]
    assert statuses == ["RollingBack", "InService"]
