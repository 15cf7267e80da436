"""What an endpoint file becomes on SageMaker: literal requests, valid by the service models and by our rules."""

import json
import re
import subprocess
import sys

import pytest

from policylab.agents.bundle import load_bundle
from policylab.cli.main import main
from policylab.deployment.endpoint import load_endpoint
from policylab.deployment.sagemaker.plan import hosting_plan
from policylab.errors import ConfigError

pytest.importorskip("botocore")
BOTH = [{"name": "stable", "weight": 3}, {"name": "next", "weight": 1, "exploration": False}]


def two(bundles):
    return [{**one, "bundle": str(bundles[name])} for one, name in zip(BOTH, ("left", "soft"), strict=True)]


def plan_of(path, *overrides):
    return hosting_plan(load_endpoint(path, overrides=overrides))


def told(capsys, *arguments, code=0):
    assert main(["endpoint", *map(str, arguments), "--json"]) == code
    return json.loads(capsys.readouterr().out)


FULL = {
    "capture": {"folder": "data", "sampling": 0.5},
    "limits": {"deadline_ms": 50},
    "fallback": {"action": 0},
    "guardrail": {"kind": "linear", "size": 0.25, "bake_s": 600, "alarms": {"error_rate": 0.01, "latency_ms": 20}},
    "sagemaker": {
        "instances": {"next": {"instance_type": "ml.c5.xlarge", "instance_count": 2}},
        "volume_gb": 20,
        "startup_timeout_s": 300,
        "download_timeout_s": 120,
        "vpc": {"subnets": ["subnet-1a2b3c4d"], "security_group_ids": ["sg-1a2b3c4d"]},
        "network_isolation": True,
        "volume_kms_key": "alias/volumes",
        "output_kms_key": "alias/output",
        "environment": {"LOG_LEVEL": "info"},
        "tags": {"team": "rl"},
        "alarms": ["pager"],
        "termination_wait_s": 300,
        "max_update_s": 7200,
        "autoscaling": {"min_capacity": 1, "max_capacity": 4, "requests_per_s": 50},
        "transform": {"input": "s3://bucket/observations/", "join_input": True},
    },
}


def test_many_models_share_a_variant(write, bundles):
    path = write(variants=[], models={"folder": str(bundles["left"].parent), "memory_mb": 256},
                 sagemaker={"models": "s3://bucket/zoo"})  # fmt: skip
    plan = plan_of(path).require_valid()
    container = plan.models[0]["PrimaryContainer"]
    assert (container["Mode"], container["ModelDataUrl"]) == ("MultiModel", "s3://bucket/zoo/")
    assert json.loads(container["Environment"]["POLICYLAB_ENDPOINT"])["models"] == {
        "folder": "/opt/ml/models", "memory_mb": 256.0, "exploration": True,
    }  # fmt: skip
    assert [one["VariantName"] for one in plan.configuration["ProductionVariants"]] == ["AllTraffic"]
    assert plan.uploads == {}
    with pytest.raises(ConfigError, match=r"sagemaker\.models: must name the prefix in S3"):
        plan_of(write(variants=[], models={"folder": str(bundles["left"].parent)}))


def test_an_asynchronous_endpoint_is_one_there_too(write):
    section = {"folder": "s3", "output": "s3://answers/lake", "max_concurrent": 8}
    plan = plan_of(write(asynchronous=section)).require_valid()
    told = plan.configuration["AsyncInferenceConfig"]
    assert told["ClientConfig"] == {"MaxConcurrentInvocationsPerInstance": 8}
    assert told["OutputConfig"] == {
        "S3OutputPath": "s3://answers/lake", "S3FailurePath": "s3://bucket/policylab/async/lake/failures",
    }  # fmt: skip
    plan = plan_of(write(asynchronous=section, sagemaker={"serverless": {}}))
    assert any(found.path == "asynchronous" for found in plan.findings)


def test_a_serverless_endpoint_is_one_there_too(write):
    plan = plan_of(write(serverless={"max_concurrency": 7})).require_valid()
    (variant,) = plan.configuration["ProductionVariants"]
    assert variant["ServerlessConfig"] == {"MemorySizeInMB": 2048, "MaxConcurrency": 7}


@pytest.fixture
def full(write, bundles):
    return write(variants=two(bundles), **FULL)


def test_every_request_is_valid_and_every_setting_is_in_one(full, bundles):
    plan = plan_of(full)
    assert plan.findings == ()
    assert plan.unchecked is None
    stable, after = plan.models
    data = f"s3://bucket/policylab/models/{load_bundle(bundles['left']).digest}/model.tar.gz"
    assert stable["PrimaryContainer"]["ModelDataUrl"] == data
    assert stable["VpcConfig"] == {"Subnets": ["subnet-1a2b3c4d"], "SecurityGroupIds": ["sg-1a2b3c4d"]}
    assert stable["EnableNetworkIsolation"] is True
    assert {"Key": "team", "Value": "rl"} in stable["Tags"]
    inside = json.loads(after["PrimaryContainer"]["Environment"]["POLICYLAB_ENDPOINT"])
    assert inside["variants"] == [{"name": "next", "bundle": "/opt/ml/model", "exploration": False}]
    assert (inside["limits"], inside["fallback"]) == ({"deadline_ms": 50.0}, {"action": 0})
    configuration = plan.configuration
    assert [
        (one["VariantName"], one["InitialVariantWeight"], one["InstanceType"], one["InitialInstanceCount"])
        for one in configuration["ProductionVariants"]
    ] == [("stable", 3.0, "ml.m5.large", 1), ("next", 1.0, "ml.c5.xlarge", 2)]
    assert configuration["ProductionVariants"][0]["ContainerStartupHealthCheckTimeoutInSeconds"] == 300
    assert configuration["ProductionVariants"][0]["ModelDataDownloadTimeoutInSeconds"] == 120
    assert configuration["ProductionVariants"][0]["VolumeSizeInGB"] == 20
    assert configuration["KmsKeyId"] == "alias/volumes"
    capture = configuration["DataCaptureConfig"]
    assert (capture["InitialSamplingPercentage"], capture["KmsKeyId"]) == (50, "alias/output")
    deployment = plan.update["DeploymentConfig"]
    assert deployment["BlueGreenUpdatePolicy"] == {
        "TrafficRoutingConfiguration": {
            "Type": "LINEAR",
            "WaitIntervalInSeconds": 600,
            "LinearStepSize": {"Type": "CAPACITY_PERCENT", "Value": 25},
        },
        "TerminationWaitInSeconds": 300,
        "MaximumExecutionTimeoutInSeconds": 7200,
    }
    watched = [one["AlarmName"] for one in deployment["AutoRollbackConfiguration"]["Alarms"]]
    assert watched == [*(alarm["AlarmName"] for alarm in plan.alarms), "pager"]
    (job,) = [call.request for call in plan.calls() if call.operation == "CreateTransformJob"]
    assert job["DataProcessing"] == {"JoinSource": "Input"}
    assert job["TransformOutput"]["KmsKeyId"] == "alias/output"
    assert job["TransformResources"]["VolumeKmsKeyId"] == "alias/volumes"
    assert [target["ResourceId"] for target in plan.targets] == [
        "endpoint/lake/variant/stable",
        "endpoint/lake/variant/next",
    ]
    # the metric counts requests per minute: 50 requests/s
    tracking = plan.policies[0]["TargetTrackingScalingPolicyConfiguration"]
    assert tracking["TargetValue"] == 3000.0


def test_alarms_judge_the_new_machines_alone_in_the_units_of_the_metrics(full):
    plan = plan_of(full)
    errors, latency = plan.alarms[:2]
    place = {"EndpointName": "lake", "VariantName": "stable"}
    place["EndpointConfigName"] = plan.configuration["EndpointConfigName"]
    assert {one["Name"]: one["Value"] for one in latency["Dimensions"]} == place
    assert (latency["MetricName"], latency["ExtendedStatistic"]) == ("ModelLatency", "p99")
    assert latency["Threshold"] == 20_000.0  # microseconds
    assert errors["Threshold"] == 0.01
    assert ">= 20," in errors["Metrics"][0]["Expression"]  # alarms.min_requests


def test_names_are_functions_of_what_they_name(full, write, bundles):
    plan, again = plan_of(full), plan_of(full)
    assert plan == again
    names = [request["ModelName"] for request in plan.models]
    assert all(re.fullmatch(r"lake-(stable|next)-[0-9a-f]{10}", name) for name in names)
    other_weights = plan_of(full, "variants.0.weight=5")
    assert [request["ModelName"] for request in other_weights.models] == names
    assert other_weights.configuration["EndpointConfigName"] != plan.configuration["EndpointConfigName"]
    other_bundle = plan_of(full, f"variants.0.bundle={bundles['right']}")
    assert other_bundle.models[0]["ModelName"] != names[0]
    assert other_bundle.models[1]["ModelName"] == names[1]


def test_long_names_stay_within_the_services_limit(write):
    plan = plan_of(write(name="a" * 30 + "-" * 20 + "b" * 13))
    assert plan.findings == ()
    assert len(plan.models[0]["ModelName"]) <= 63


def test_a_shadow_gets_its_share_of_the_traffic(write, bundles):
    plan = plan_of(write(shadows=[{"name": "after", "bundle": str(bundles["soft"]), "sampling": 0.5}]))
    assert plan.findings == ()
    (shadow,) = plan.configuration["ShadowProductionVariants"]
    assert (shadow["VariantName"], shadow["InitialVariantWeight"]) == ("after", 0.5)
    assert any(text.startswith("shadows: ") for text in plan.losses)


BROKEN = {
    "variants": [
        {"name": "a", "weight": 1},
        {"name": "b", "weight": 1},
    ],
    "guardrail": {"kind": "linear", "size": 0.1, "bake_s": 3600},
    "sagemaker": {
        "instance_type": "ml.t2.mediun",
        "instances": {"c": {"instance_count": 2}},
        "role_arn": "arn:aws:iam::1234:role/x",
        "environment": {"API_KEY": "hush"},
        "autoscaling": {"min_capacity": 0, "max_capacity": 2, "backlog": 5},
        "transform": {
            "input": "s3://bucket/in/",
            "max_concurrent": 50,
            "max_payload_mb": 6,
            "strategy": "MultiRecord",
            "split": False,
        },
    },
}


def test_every_violation_is_told_at_once(write, bundles, capsys):
    variants = [{**one, "bundle": str(bundles["left"])} for one in BROKEN["variants"]]
    shadows = [{"name": "s", "bundle": str(bundles["soft"])}]
    path = write(**{**BROKEN, "variants": variants, "shadows": shadows})
    document = told(capsys, "to-sagemaker", path, code=2)
    text = "\n".join(document["errors"])
    for words in (
        "sagemaker.instances.c: must name a variant or a shadow",
        "shadows: SageMaker takes one shadow, beside one variant",
        "sagemaker.autoscaling.min_capacity: only asynchronous endpoints scale to 0",
        "sagemaker.autoscaling.backlog: only asynchronous",
        "guardrail: all waits of an update must end before its longest time of 28800 s, got '36000 s'",
        "sagemaker.environment.API_KEY: a request holds no secrets",
        "sagemaker.transform: max_concurrent times max_payload_mb is at most 100 MB, got 300",
        "sagemaker.transform.strategy: records are put together only if the input is split",
        "CreateModel.ExecutionRoleArn: must match",
        "CreateEndpointConfig.ProductionVariants[0].InstanceType: must be a known value",
    ):
        assert words in text
    assert "hush" not in "\n".join(document["errors"] + document["warnings"])


@pytest.mark.parametrize(
    ("section", "words"),
    [
        ({"capture": {"folder": "data"}}, "capture: serverless endpoints have no data capture"),
        ({"guardrail": {"kind": "canary"}}, "guardrail.kind: serverless endpoints have no guardrails"),
        (
            {"sagemaker": {"vpc": {"subnets": ["subnet-1a2b3c4d"], "security_group_ids": ["sg-1a2b3c4d"]}}},
            "sagemaker.vpc: serverless endpoints have no private network",
        ),
        (
            {"sagemaker": {"autoscaling": {"max_capacity": 5, "requests_per_s": 5}}},
            "sagemaker.autoscaling.requests_per_s: serverless variants scale by",
        ),
        (
            {"sagemaker": {"autoscaling": {"max_capacity": 5, "utilization": 0.7}}},
            "sagemaker.autoscaling.utilization: is of provisioned concurrency, and there is none",
        ),
    ],
    ids=["capture", "guardrail", "vpc", "requests", "utilization"],
)
def test_what_serverless_endpoints_do_not_have_is_refused(write, section, words):
    sections = {**section, "sagemaker": {"serverless": {}, **section.get("sagemaker", {})}}
    assert words in "\n".join(map(str, plan_of(write(**sections)).findings))


def test_a_serverless_endpoint_has_memory_and_no_machines(write):
    serverless = {"memory_mb": 3072, "max_concurrency": 20, "provisioned_concurrency": 4}
    scaling = {"min_capacity": 1, "max_capacity": 10, "utilization": 0.7}
    plan = plan_of(write(sagemaker={"serverless": serverless, "autoscaling": scaling}))
    assert plan.findings == ()
    (variant,) = plan.configuration["ProductionVariants"]
    wanted = {"MemorySizeInMB": 3072, "MaxConcurrency": 20, "ProvisionedConcurrency": 4}
    assert variant["ServerlessConfig"] == wanted
    assert not {"InstanceType", "InitialInstanceCount"} & set(variant)
    assert plan.targets[0]["ScalableDimension"] == "sagemaker:variant:DesiredProvisionedConcurrency"
    assert "DeploymentConfig" not in plan.update


def test_an_asynchronous_endpoint_answers_in_s3_and_scales_to_nothing(write):
    topic = "arn:aws:sns:eu-west-1:123456789012:answers"
    asynchronous = {"max_concurrent_per_instance": 4, "success_topic": topic}
    scaling = {"min_capacity": 0, "max_capacity": 3, "backlog": 5}
    plan = plan_of(write(sagemaker={"asynchronous": asynchronous, "autoscaling": scaling}))
    assert plan.findings == ()
    settings = plan.configuration["AsyncInferenceConfig"]
    assert settings["OutputConfig"]["S3OutputPath"] == "s3://bucket/policylab/async/lake/output"
    assert settings["OutputConfig"]["NotificationConfig"] == {"SuccessTopic": topic}
    assert settings["ClientConfig"] == {"MaxConcurrentInvocationsPerInstance": 4}
    tracking = plan.policies[0]["TargetTrackingScalingPolicyConfiguration"]
    assert tracking["CustomizedMetricSpecification"]["MetricName"] == "ApproximateBacklogSizePerInstance"


def test_topics_of_the_queue_here_are_those_of_sagemaker(write):
    topics = {f"{kind}_topic": f"arn:aws:sns:eu-west-1:123456789012:{kind}" for kind in ("success", "error")}
    included = ["ERROR_NOTIFICATION_TOPIC"]
    plan = plan_of(write(asynchronous={"folder": "s3", **topics, "include_response_in": included}, shadows=[]))
    assert plan.findings == ()
    assert plan.configuration["AsyncInferenceConfig"]["OutputConfig"]["NotificationConfig"] == {
        "SuccessTopic": topics["success_topic"],
        "ErrorTopic": topics["error_topic"],
        "IncludeInferenceResponseIn": included,
    }


def test_the_target_of_ray_serve_is_one_of_sagemaker_too(write):
    scaling = {"max_capacity": 3, "concurrent_requests": 8, "scale_in_cooldown_s": 120}
    plan = plan_of(write(autoscaling=scaling))
    assert plan.findings == ()
    assert {(one["MinCapacity"], one["MaxCapacity"]) for one in plan.targets} == {(1, 3)}
    tracking = plan.policies[0]["TargetTrackingScalingPolicyConfiguration"]
    metric = {"PredefinedMetricType": "SageMakerVariantConcurrentRequestsPerModelHighResolution"}
    assert tracking["PredefinedMetricSpecification"] == metric
    assert (tracking["TargetValue"], tracking["ScaleInCooldown"], tracking["ScaleOutCooldown"]) == (8.0, 120, 60)
    findings = plan_of(write(autoscaling=scaling, sagemaker={"serverless": {}})).findings
    assert "autoscaling.concurrent_requests: serverless variants scale by" in "\n".join(map(str, findings))


def test_many_models_are_one_prefix(write):
    plan = plan_of(write(sagemaker={"models": "s3://bucket/policies", "cache_models": False}))
    assert plan.findings == ()
    container = plan.models[0]["PrimaryContainer"]
    assert (container["Mode"], container["ModelDataUrl"]) == ("MultiModel", "s3://bucket/policies/")
    assert container["MultiModelConfig"] == {"ModelCacheSetting": "Disabled"}
    assert plan.uploads == {}


def test_what_sagemaker_cannot_express_is_said(write, bundles):
    promotion = {"reward_low": 0, "reward_high": 1}
    guardrail = {"kind": "canary", "bake_s": 60, "promotion": promotion}
    sections = {"guardrail": guardrail, "capture": {"folder": "data", "queue": 5}}
    text = "\n".join(plan_of(write(variants=two(bundles), **sections)).losses)
    for words in (
        "guardrail.promotion: ",
        "capture.folder: ",
        "capture.queue: ",
        "rewards have no route",
        "variants: ",
    ):
        assert words in text


def test_short_bakes_are_warned_of(write, capsys):
    document = told(capsys, "to-sagemaker", write(guardrail={"bake_s": 5}))
    assert any("guardrail.bake_s: alarms have a value every 60 s" in text for text in document["warnings"])


def test_a_file_without_the_section_is_refused(tmp_path, bundles, capsys):
    path = tmp_path / "endpoint.yaml"
    path.write_text(json.dumps({"name": "lake", "variants": [{"name": "a", "bundle": str(bundles["left"])}]}))
    assert main(["endpoint", "to-sagemaker", str(path)]) == 2
    assert "no section `sagemaker`" in capsys.readouterr().err


def test_a_misspelt_setting_is_told_with_its_place(write, capsys):
    assert main(["endpoint", "to-sagemaker", str(write(sagemaker={"instance_typ": "ml.m5.large"}))]) == 2
    assert "sagemaker.instance_typ: unknown key; did you mean 'instance_type'?" in capsys.readouterr().err


# ------------------------------------------------------------------ CloudFormation


@pytest.fixture
def templates(write, bundles, capsys, tmp_path):
    """The endpoint file and the template of each kind of endpoint."""
    kinds = {
        "full": {"variants": two(bundles), **FULL},
        "plain": {},
        "serverless": {"sagemaker": {"serverless": {}}},
        "asynchronous": {"sagemaker": {"asynchronous": {}}},
        "shadow": {"shadows": [{"name": "after", "bundle": str(bundles["soft"])}]},
        "models": {"sagemaker": {"models": "s3://bucket/policies"}},
    }
    found = []
    for kind, sections in kinds.items():
        path, template = write(f"{kind}.yaml", **sections), tmp_path / f"{kind}.json"
        assert main(["endpoint", "to-cloudformation", str(path)]) == 0
        template.write_text(capsys.readouterr().out)
        found.append((path, template))
    return found


def test_templates_pass_cfn_lint_and_a_wrong_one_does_not(templates, tmp_path):
    pytest.importorskip("cfnlint")
    wrong = json.loads(templates[0][1].read_text())
    wrong["Resources"]["Configuration"]["Properties"]["ProductionVariants"][0]["InitialInstanceCount"] = "many"
    (tmp_path / "wrong.json").write_text(json.dumps(wrong))
    files = [str(file) for _, file in templates] + [str(tmp_path / "wrong.json")]
    program = "import sys; from cfnlint.runner import main; sys.argv[0] = 'cfn-lint'; main()"
    command = [sys.executable, "-c", program, "--format", "json", "--regions", "eu-west-1", "--", *files]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    found = json.loads(done.stdout)
    assert {one["Filename"] for one in found} == {str(tmp_path / "wrong.json")}, found
    assert any("InitialInstanceCount" in one["Location"]["Path"] for one in found)


def test_templates_hold_what_the_requests_hold(templates):
    for path, file in templates:
        resources, plan = json.loads(file.read_text())["Resources"], plan_of(path)
        made = [one["Properties"] for one in resources.values() if one["Type"] == "AWS::SageMaker::Model"]
        assert made == list(plan.models)
        configuration = resources["Configuration"]["Properties"]
        for key, value in plan.configuration.items():
            if "Variants" not in key:
                assert configuration[key] == value
        variants = zip(configuration["ProductionVariants"], plan.configuration["ProductionVariants"], strict=True)
        for mine, sent in variants:
            linked, name = mine["ModelName"]["Fn::GetAtt"]
            assert resources[linked]["Properties"][name] == sent["ModelName"]
            assert {**mine, "ModelName": sent["ModelName"]} == sent
