"""The contract's files: which host leads, and where things lie."""

import json
import re
from pathlib import Path

import pytest

from policylab.errors import UserError
from policylab.launchers.sagemaker.container.failure import ExitCode
from policylab.launchers.sagemaker.container.layout import Layout, natural_order, read_hosts
from policylab.launchers.sagemaker.container.settings import ContainerSettings, read_settings

DOC_EXAMPLE = {  # of the developer guide: algo-1 is not in the first group
    "current_host": "algo-1",
    "current_instance_type": "ml.c5.xlarge",
    "current_group_name": "rollout",
    "hosts": ["algo-3", "algo-10", "algo-1", "algo-2"],
    "instance_groups": [
        {"instance_group_name": "learner", "instance_type": "ml.p3.2xlarge", "hosts": ["algo-10", "algo-2"]},
        {"instance_group_name": "rollout", "instance_type": "ml.c5.xlarge", "hosts": ["algo-3", "algo-1"]},
    ],
    "network_interface_name": "eth0",
}


@pytest.fixture
def layout(tmp_path):
    def make(resources=None, **more):
        config = tmp_path / "input" / "config"
        config.mkdir(parents=True, exist_ok=True)
        if resources is not None:
            (config / "resourceconfig.json").write_text(json.dumps({**resources, **more}))
        return Layout(tmp_path)

    return make


def test_the_head_is_the_first_host_of_its_group_in_natural_order(layout):
    hosts = read_hosts(layout(DOC_EXAMPLE), head_group="learner")
    assert (hosts.head, hosts.leads, hosts.group) == ("algo-2", False, "rollout")
    assert hosts.groups == {"learner": ("algo-2", "algo-10"), "rollout": ("algo-1", "algo-3")}
    assert hosts.all == ("algo-1", "algo-2", "algo-3", "algo-10")
    assert hosts.group_of("algo-10") == "learner"
    leader = layout(DOC_EXAMPLE, current_host="algo-2", current_group_name="learner")
    assert read_hosts(leader, head_group="learner").leads


def test_without_a_group_it_is_the_first_of_all(layout):
    assert read_hosts(layout(DOC_EXAMPLE)).head == "algo-1"
    homogeneous = {"current_host": "algo-2", "hosts": ["algo-10", "algo-2"]}
    hosts = read_hosts(layout(homogeneous))
    assert (hosts.head, hosts.group) == ("algo-2", "homogeneousCluster")


def test_every_host_elects_the_same_head_whatever_the_order(layout):
    orders = [DOC_EXAMPLE["hosts"], sorted(DOC_EXAMPLE["hosts"]), DOC_EXAMPLE["hosts"][::-1]]
    heads = {
        read_hosts(layout(DOC_EXAMPLE, hosts=order, current_host=host, current_group_name=None)).head
        for order in orders
        for host in order
    }
    assert heads == {"algo-1"}


def test_an_unknown_group_is_named_with_the_known_ones(layout):
    with pytest.raises(UserError, match=r"POLICYLAB_HEAD_GROUP=lerner: .*did you mean 'learner'.*learner, rollout"):
        read_hosts(layout(DOC_EXAMPLE), head_group="lerner")


@pytest.mark.parametrize(
    ("resources", "words"),
    [
        (None, "missing; `policylab container` runs inside a training job"),
        ({"hosts": ["algo-1"]}, "damaged: KeyError: 'current_host'"),
        ({"current_host": "algo-2", "hosts": ["algo-1"]}, "current_host 'algo-2' is not among the hosts algo-1"),
        ({"current_host": "algo-1", "hosts": 3}, "damaged: TypeError"),
    ],
)
def test_a_damaged_resourceconfig_is_a_clear_error(layout, resources, words):
    with pytest.raises(UserError, match=words):
        read_hosts(layout(resources))


def test_natural_order_counts():
    assert natural_order(["algo-10", "algo-9", "algo-1"]) == ("algo-1", "algo-9", "algo-10")
    assert natural_order(["10.0.0.10", "10.0.0.9", "b", "a2", "a10"]) == ("10.0.0.9", "10.0.0.10", "a2", "a10", "b")


def test_checkpoints_are_where_the_job_keeps_them(layout, tmp_path):
    place = layout(DOC_EXAMPLE)
    assert place.checkpoints == tmp_path / "checkpoints"
    file = tmp_path / "input" / "config" / "checkpointconfig.json"
    file.write_text('{"LocalPath": "/opt/ml/kept"}')
    assert place.checkpoints == tmp_path / "kept"
    file.write_text('{"LocalPath": "/elsewhere"}')
    assert str(place.checkpoints) == "/elsewhere"
    file.write_text("[")
    with pytest.raises(UserError, match=r"checkpointconfig\.json: damaged"):
        _ = place.checkpoints


def test_settings_are_read_from_the_environment(caplog):
    settings = read_settings({"POLICYLAB_GRACE_S": "30", "POLICYLAB_HEAD_GROUP": "a", "HOME": "x"})
    assert (settings.grace_s, settings.head_group, settings.join_timeout_s) == (30.0, "a", 300.0)
    with pytest.raises(UserError, match="POLICYLAB_GRACE_S=soon: Input should be a valid number"):
        read_settings({"POLICYLAB_GRACE_S": "soon"})
    read_settings({"POLICYLAB_JOIN_TIMEOUT": "3", "POLICYLAB_ML_ROOT": "/x"})
    assert caplog.messages == ["POLICYLAB_JOIN_TIMEOUT is no setting of the container; did you mean 'JOIN_TIMEOUT_S'?"]


def test_the_page_names_every_setting_and_exit_code():
    page = (Path(__file__).parents[4] / "docs" / "container.md").read_text()
    names = {f"POLICYLAB_{name.upper()}" for name in ContainerSettings.model_fields}
    assert {name for name in names if name not in page} == set()
    assert [int(code) for code in re.findall(r"^\| (\d) \|", page, flags=re.MULTILINE)] == list(ExitCode)
