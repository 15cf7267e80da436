"""The same verbs on MLflow's registry and on SageMaker's (a moto server over HTTP)."""

import json

import pytest

from policylab.agents.build import make_agent
from policylab.agents.bundle import Lineage, load_bundle, write_bundle
from policylab.agents.bundle_archive import pack
from policylab.aws.service_model import structure_findings
from policylab.cli.main import main
from policylab.envs.make import make_env
from policylab.envs.settings import EnvSettings
from policylab.launchers.sagemaker.object_store import S3Store
from policylab.launchers.sagemaker.service import client

pytestmark = pytest.mark.filterwarnings("ignore")  # of MLflow's own libraries, as in the tests of tracking
IMAGE = "123456789012.dkr.ecr.eu-west-1.amazonaws.com/policylab:1"
PREFIX = "s3://bucket/policylab"


@pytest.fixture(scope="session")
def bundles(tmp_path_factory):
    """Two different policies for one environment."""
    folder = tmp_path_factory.mktemp("bundles")
    settings = EnvSettings(id="FrozenLake-v1")
    for seed in (1, 2):
        agent = make_agent(
            {"kind": "q_learning", "learning_rate": 0.5, "execution": "plain"}, settings, seed=seed, budget_steps=500
        )
        agent.learn(500)
        env = make_env(settings)
        lineage = Lineage(config_hash="ab" * 32, seeds=(seed,))
        metrics = {"confirmed": {"value": 0.5 + seed / 10, "ci": [0.4, 0.9]}, "exact": {"optimality_gap": 0.1}}
        write_bundle(folder / str(seed), agent.policy(), env=env, lineage=lineage, metrics=metrics)
        env.close()
    return [folder / "1", folder / "2"]


@pytest.fixture(scope="module")
def mlflow_uri(tmp_path_factory):
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow')}/mlflow.db"


@pytest.fixture(params=["mlflow", "sagemaker"])
def registry(request, capsys):
    """Call a verb of one registry; return the document it printed."""
    if request.param == "sagemaker":
        request.getfixturevalue("aws")
        own = ["--registry", "sagemaker"]
    else:
        own = ["--uri", request.getfixturevalue("mlflow_uri")]

    def call(verb, *arguments, code=0):
        more = ["--s3-prefix", PREFIX, "--image", IMAGE] if (verb, request.param) == ("register", "sagemaker") else []
        assert main(["registry", verb, *map(str, arguments), *own, *more, "--json"]) == code
        return json.loads(capsys.readouterr().out)

    return call


def test_a_bundle_is_registered_once_approved_and_rejected(registry, bundles):
    first = registry("register", bundles[0], "--name", "lake")
    assert (first["version"], first["status"]) == (1, "pending")
    assert first["facts"]["policylab.digest"] == load_bundle(bundles[0]).digest
    assert first["facts"]["policylab.config_hash"] == "ab" * 32
    assert float(first["facts"]["policylab.confirmed"]) == pytest.approx(0.6)
    assert registry("register", bundles[0], "--name", "lake") == first
    assert registry("register", bundles[1], "--name", "lake")["version"] == 2
    approved = registry("approve", "lake", 2, "--reason", "beats the baseline")
    assert (approved["status"], approved["reason"]) == ("approved", "beats the baseline")
    assert registry("reject", "lake", 1)["status"] == "rejected"
    listed = registry("list", "lake")
    assert [(one["version"], one["status"]) for one in listed] == [(2, "approved"), (1, "rejected")]


def test_what_is_not_there_is_a_user_error(registry, bundles):
    assert "'nothing'" in registry("list", "nothing", code=2)["error"]["message"]
    registry("register", bundles[0], "--name", "other")
    message = registry("approve", "other", 7, code=2)["error"]["message"]
    assert message == "other has no version 7 (it has: 1)"


def test_an_alias_follows_the_approved_version(mlflow_uri, bundles, capsys):
    from mlflow import MlflowClient

    aliases = lambda: MlflowClient(tracking_uri=mlflow_uri).get_registered_model("aliased").aliases  # noqa: E731
    own = ["--uri", mlflow_uri]
    assert main(["registry", "register", str(bundles[0]), "--name", "aliased", *own]) == 0
    assert "approved" not in aliases()
    assert main(["registry", "approve", "aliased", "1", *own]) == 0
    assert str(aliases()["approved"]) == "1"
    assert main(["registry", "reject", "aliased", "1", *own]) == 0
    assert "approved" not in aliases()


def test_the_package_names_what_lies_in_s3_and_its_request_is_valid(aws, bundles, tmp_path, monkeypatch):
    import boto3

    sent = []
    plain = boto3.Session.client

    def capturing(session, service, **options):
        made = plain(session, service, **options)
        event = "before-parameter-build.sagemaker.CreateModelPackage"
        made.meta.events.register(event, lambda params, **_: sent.append(json.loads(json.dumps(params))))
        return made

    monkeypatch.setattr(boto3.Session, "client", capturing)
    pack(bundles[0], tmp_path / "model.tar.gz")
    command = ["registry", "register", str(tmp_path / "model.tar.gz"), "--name", "lake", "--registry", "sagemaker"]
    assert main([*command, "--s3-prefix", PREFIX, "--image", IMAGE]) == 0
    (request,) = sent
    assert structure_findings("CreateModelPackage", request) == []
    store = S3Store(client("s3", region=None))
    (container,) = request["InferenceSpecification"]["Containers"]
    assert container["Image"] == IMAGE
    (tmp_path / "back.tar.gz").write_bytes(store.get_bytes(container["ModelDataUrl"]))
    assert load_bundle(tmp_path / "back.tar.gz").digest == load_bundle(bundles[0]).digest
    metrics = json.loads(store.get_bytes(request["ModelMetrics"]["ModelQuality"]["Statistics"]["S3Uri"]))
    assert metrics["exact"] == {"optimality_gap": 0.1}


@pytest.mark.parametrize(
    ("options", "words"),
    [(["--s3-prefix", PREFIX], "give --image"), (["--image", IMAGE], "give --s3-prefix s3://BUCKET/PREFIX")],
)
def test_what_sagemaker_needs_is_asked_for(aws, bundles, capsys, options, words):
    command = ["registry", "register", str(bundles[0]), "--name", "lake", "--registry", "sagemaker", *options]
    assert main(command) == 2
    assert words in capsys.readouterr().err


def test_a_damaged_bundle_is_refused(mlflow_uri, bundles, tmp_path, capsys):
    (tmp_path / "manifest.json").write_text("{}")
    assert main(["registry", "register", str(tmp_path), "--name", "lake", "--uri", mlflow_uri]) == 2
    assert "error: " in capsys.readouterr().err
