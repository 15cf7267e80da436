"""``policylab process``: data sets prepared, policies evaluated, and the same as a processing job's request."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from botocore.exceptions import ClientError

from policylab.agents.build import make_agent
from policylab.agents.bundle import Lineage, write_bundle
from policylab.agents.bundle_archive import pack
from policylab.aws.service_model import structure_findings
from policylab.cli.main import main
from policylab.envs.make import make_env
from policylab.envs.settings import EnvSettings
from policylab.errors import RunError
from policylab.experiments.processing.description import read_description
from policylab.experiments.processing.tables import read_table
from policylab.launchers.sagemaker.object_store import FolderStore, S3Store
from policylab.launchers.sagemaker.processing_jobs import follow, send
from policylab.launchers.sagemaker.processing_request import outgoing_process
from policylab.launchers.sagemaker.service import client
from policylab.launchers.sagemaker.settings import SageMakerSettings
from policylab.launchers.sagemaker.source_bundle import build

parquet = pytest.importorskip("pyarrow.parquet")

REVIEWS = """stars,colour,text
5,red,"The cat, the hat: quixotic"
5,red,"The cat, the hat: quixotic"
3,blue,A dog and a cat
,green,lost
4,red,
1,blue,dog DOG dog
"""
PREPARE = """
process:
  kind: prepare
  name: reviews
  input: reviews.csv
  output: prepared
  categorical: [colour]
  text: [{column: text}]
"""


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "reviews.csv").write_text(REVIEWS)
    (tmp_path / "reviews.yaml").write_text(PREPARE)
    return tmp_path


def processed(capsys, *options, file="reviews.yaml", code=0):
    assert main(["process", file, "--json", *options]) == code
    return json.loads(capsys.readouterr().out)


def test_missing_values_and_duplicates_go_and_columns_become_numbers(capsys):
    done = processed(capsys)
    assert (done["rows_read"], done["rows_missing"], done["rows_duplicate"], done["rows"]) == (6, 2, 1, 3)
    table = parquet.read_table(done["data"]).to_pydict()
    encoding = json.loads(Path(done["encoding"]).read_text())
    assert table["stars"] == [5, 3, 1]
    assert encoding["colour"] == ["blue", "red"]
    assert table["colour"] == [1, 0, 0]
    assert encoding["text"] == ["cat", "dog", "hat", "quixotic"]  # no stop words, but the word that occurs once
    assert table["text.words"] == [[0, 2, 3], [0, 1], [1]]
    assert table["text.counts"] == [[1, 1, 1], [1, 1], [3]]


def test_missing_values_are_filled_or_kept(capsys):
    filled = processed(capsys, "--set", "process.fill={stars: 0, text: nothing}")
    assert (filled["rows_missing"], filled["rows"]) == (0, 5)
    kept = processed(capsys, "--set", "process.drop_missing=false", "--set", "process.drop_duplicates=false")
    assert kept["rows"] == 6
    assert parquet.read_table(kept["data"]).to_pydict()["text.words"][4] == []


def test_what_was_written_is_read_again_and_equal_data_gives_equal_bytes(capsys, folder):
    first = processed(capsys)
    content = Path(first["data"]).read_bytes()
    assert read_table(folder / "prepared" / "data.parquet")["colour"] == [1, 0, 0]
    assert Path(processed(capsys)["data"]).read_bytes() == content


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ("process.categorical=[color]", "there is no column 'color'; did you mean 'colour'?"),
        ("process.categorical=[text]", "column 'text' is to be encoded twice"),
        ("process.input=none.csv", "none.csv: no such file"),
        ("process.input=reviews.txt", "a table ends in .csv, .jsonl, .parquet"),
        ("process.kind=clean", "unknown kind 'clean'"),
        ("process.outptu=x", "did you mean 'output'?"),
    ],
)
def test_mistakes_are_told_in_one_sentence_and_nothing_is_written(capsys, folder, changes, words):
    assert words in processed(capsys, "--set", changes, code=2)["error"]["message"]
    assert not (folder / "prepared").exists()


def test_nothing_left_is_an_error(capsys, folder):
    (folder / "reviews.csv").write_text("stars,colour,text\n,,\n")
    assert "no row is left of 1" in processed(capsys, code=2)["error"]["message"]


@pytest.fixture
def bundle(folder):
    settings = EnvSettings(id="FrozenLake-v1")
    agent = make_agent({"kind": "q_learning", "execution": "plain"}, settings, seed=1, budget_steps=500)
    agent.learn(500)
    env = make_env(settings)
    write_bundle(folder / "bundle", agent.policy(), env=env, lineage=Lineage(seeds=(1,)), metrics={})
    env.close()
    pack(folder / "bundle", folder / "model.tar.gz")
    (folder / "evaluate.yaml").write_text(
        "process: {kind: evaluate, name: lake, input: model.tar.gz, output: evaluated, episodes: 20}"
    )


def test_a_policy_is_evaluated(bundle, capsys):
    done = processed(capsys, file="evaluate.yaml")
    assert 0.0 <= done["value"] <= 1.0
    assert "exact" in done["measure"]
    assert json.loads(Path(done["evaluation"]).read_text())["value"] == done["value"]


SETTINGS = """
launchers:
  sagemaker:
    role_arn: arn:aws:iam::123456789012:role/policylab
    image: 123456789012.dkr.ecr.eu-west-1.amazonaws.com/policylab:1
    s3_prefix: s3://bucket/policylab
    vpc: {subnets: [subnet-0123456789abcdef0], security_group_ids: [sg-0123456789abcdef0]}
"""


def test_the_same_description_is_a_processing_job(folder, bundle, capsys):
    (folder / "policylab.yaml").write_text(SETTINGS)
    for file in ("reviews.yaml", "evaluate.yaml"):
        document = processed(capsys, "--launcher", "sagemaker", "--dry-run", file=file)
        assert document["errors"] == []
        request = document["request"]
        assert structure_findings("CreateProcessingJob", request) == []
        assert request["NetworkConfig"]["VpcConfig"]["Subnets"] == ["subnet-0123456789abcdef0"]
        assert processed(capsys, "--launcher", "sagemaker", "--dry-run", file=file)["request"] == request
    assert not (folder / "prepared").exists()


def test_a_processing_job_does_what_its_description_says(folder, monkeypatch):
    """The job's container, without the container: its folders are here, and its first program is started."""
    config = load_description(folder)
    bundle = build(extras=["offline"])
    outgoing = outgoing_process(
        config, read_description(folder / "reviews.yaml").model_dump(mode="json"), bundle=bundle
    )
    root = folder / "processing"
    for one in outgoing.request["ProcessingInputs"]:
        source, local = one["S3Input"]["S3Uri"], root / one["S3Input"]["LocalPath"].removeprefix("/opt/ml/processing/")
        local.mkdir(parents=True)
        for uri, content in outgoing.files.items():
            if uri == source or uri.startswith(f"{source}/"):
                held = content.read_bytes() if isinstance(content, Path) else content
                text = held.replace(b"/opt/ml/processing", str(root).encode()) if uri.endswith(".yaml") else held
                (local / uri.rpartition("/")[2]).write_bytes(text)
    described = outgoing.request["Environment"]["POLICYLAB_PROCESS"].replace("/opt/ml/processing", str(root))
    done = subprocess.run(
        [sys.executable, "bootstrap.py"],
        cwd=root / "input" / "code",
        env={**os.environ, "POLICYLAB_PROCESS": described},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert read_table(root / "output" / "data.parquet")["stars"] == [5, 3, 1]


def load_description(folder):
    (folder / "policylab.yaml").write_text(SETTINGS)
    return SageMakerSettings.model_validate(yaml.safe_load(SETTINGS)["launchers"]["sagemaker"])


def test_a_processing_job_is_sent_waited_for_and_its_output_brought(folder, capsys, aws):
    (folder / "policylab.yaml").write_text(SETTINGS)
    sending = ("--launcher", "sagemaker")
    failed = processed(capsys, *sending, code=1)["error"]["message"]  # moto completes jobs without doing anything
    assert "completed, but left nothing in s3://bucket/policylab/processing/reviews-" in failed
    store, output = S3Store(client("s3", region=None)), failed.rpartition(" ")[2]
    description = yaml.safe_load(store.get_bytes(f"{output.removesuffix('/output')}/description/process.yaml"))
    assert description["process"]["input"] == "/opt/ml/processing/input/data/reviews.csv"
    store.put_bytes(b"{}", f"{output}/encoding.json")
    done = processed(capsys, *sending)
    assert output == f"s3://bucket/policylab/processing/{done['job']}/output"
    assert (folder / "prepared" / "encoding.json").read_bytes() == b"{}"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--dry-run"], "--dry-run is for a processing job; add --launcher sagemaker"),
        (["--launcher", "ray"], "launcher.kind=ray is for a processing job"),
        (["--launcher", "sagemaker", "--emulate"], "processing jobs are not emulated; leave --launcher out"),
        (["--launcher", "sagemaker", "--set", "launcher.max_cost_usd=0.1"], "a job may cost up to 5.52, got 0.1"),
        (["--launcher", "sagemaker", "--set", "launcher.environment={API_KEY: x}"], "a request holds no secrets"),
        (["--launcher", "sagemaker", "--set", "launcher.instance_typ=x"], "did you mean 'instance_type'?"),
    ],
)
def test_nothing_is_done_or_sent_with_an_option_that_does_not_fit(folder, capsys, aws, options, words):
    (folder / "policylab.yaml").write_text(SETTINGS)
    assert words in processed(capsys, *options, code=2)["error"]["message"]
    assert not (folder / "prepared").exists()
    assert "Contents" not in client("s3", region=None).list_objects_v2(Bucket="bucket")


def test_a_processing_job_is_priced_and_says_which_settings_it_does_not_use(folder, capsys):
    (folder / "policylab.yaml").write_text(SETTINGS)
    options = ["launcher.spot.max_wait_s=90000", "launcher.encrypt_traffic=true", "launcher.max_runtime_s=3600"]
    document = processed(capsys, "--launcher", "sagemaker", "--dry-run", *[a for o in options for a in ("--set", o)])
    assert document["price"]["most"] == pytest.approx(0.23)
    (warning,) = document["warnings"]
    assert warning.startswith("launcher.spot: a processing job of policylab has one machine, on demand")
    assert document["request"]["NetworkConfig"]["EnableInterContainerTrafficEncryption"] is True


class NamesAreTaken:
    """What moto lacks of processing jobs: a name is taken for ever, and a job may fail."""

    def __init__(self, statuses):
        self.statuses = statuses
        self.made = {}

    def create_processing_job(self, **request):
        name = request["ProcessingJobName"]
        if name in self.made:
            details = {"Error": {"Code": "ResourceInUse", "Message": "Job name must be unique"}}
            raise ClientError(details, "CreateProcessingJob")
        self.made[name] = self.statuses.pop(0)

    def describe_processing_job(self, *, ProcessingJobName):
        return {"ProcessingJobStatus": self.made[ProcessingJobName], "ExitMessage": "out of memory"}


def test_after_a_failed_processing_job_the_same_command_sends_the_next_and_no_other(folder):
    store = FolderStore(folder / "s3")
    described = read_description(folder / "reviews.yaml").model_dump(mode="json")
    settings, bundle = load_description(folder), build(extras=["offline"])

    def sent(service):
        def outgoing(attempt):
            return outgoing_process(settings, described, bundle=bundle, attempt=attempt)

        return send(service, store, outgoing=outgoing)

    service = NamesAreTaken(["Failed", "Completed"])
    first = sent(service)
    with pytest.raises(RunError, match="failed: out of memory; sent again, it is a new job"):
        follow(service, store, outgoing=first)
    second = sent(service)
    assert second.name != first.name
    assert sent(service).name == second.name  # it has completed: its output is what is wanted
    assert len(service.made) == 2
