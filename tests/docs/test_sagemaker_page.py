"""What the page on SageMaker says of policies and settings is what the code needs."""

import json
import re
from pathlib import Path

import pytest

from policylab.config import parse
from policylab.experiments.processing.description import Description
from policylab.experiments.project import Project
from policylab.launchers.sagemaker.settings import SageMakerSettings

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "sagemaker.md").read_text()


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", PAGE, flags=re.DOTALL)


def actions(policy):
    (text,) = blocks(f"json policy={policy}")
    statements = json.loads(text)["Statement"]
    return {
        action
        for one in statements
        for action in ([one["Action"]] if isinstance(one["Action"], str) else one["Action"])
    }


def test_the_callers_policy_allows_each_call_that_is_made_and_no_other():
    from policylab.launchers.sagemaker import training_jobs
    from policylab.launchers.sagemaker.service import PatientService

    calls = {name for name in vars(PatientService) if not name.startswith("_")}
    wanted = {"sagemaker:" + "".join(part.title() for part in name.split("_")) for name in calls}
    source = Path(training_jobs.__file__).read_text()
    wanted |= {
        "logs:" + "".join(part.title() for part in name.split("_")) for name in re.findall(r"_logs\.(\w+)", source)
    }
    wanted |= {"iam:PassRole", "s3:ListBucket", "s3:GetObject", "s3:PutObject", "s3:DeleteObject"}
    assert actions("caller") == wanted | {"sagemaker:AddTags"}


def test_the_roles_policy_covers_what_a_container_reads_and_writes():
    assert {"s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:ListBucket", "logs:PutLogEvents"} <= actions("role")
    assert not any(action.startswith(("sagemaker:", "iam:")) or action.endswith("*") for action in actions("role"))


def test_the_project_file_is_valid():
    (text,) = blocks("yaml file=policylab.yaml")
    project = Project.model_validate(parse(text, "policylab.yaml").data)
    SageMakerSettings.model_validate(project.launchers["sagemaker"])


@pytest.mark.parametrize("name", ["reviews", "evaluate"])
def test_the_descriptions_of_processing_are_valid(name):
    (text,) = blocks(f"yaml file={name}.yaml")
    assert Description.model_validate(parse(text, name).data).process.output


@pytest.mark.parametrize("name", sorted(set(SageMakerSettings.model_fields) - {"kind"}))
def test_every_setting_is_named(name):
    assert f"`{name}`" in PAGE or f"`{name}:" in PAGE or f"    {name}:" in PAGE


def test_every_scenario_names_a_test_that_exists():
    folder = Path(__file__).resolve().parents[1] / "launchers" / "sagemaker"
    sources = "".join(file.read_text() for file in folder.rglob("test_*.py"))
    table = PAGE[PAGE.index("What may befall a job") :]
    named = re.findall(r"::(test_\w+)", table)
    assert len(named) >= 13
    assert [name for name in named if f"def {name}(" not in sources] == []
    assert all((folder / file).exists() for file in re.findall(r"`([\w/]+\.py)", table))
