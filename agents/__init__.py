"""Learners and the policies they leave behind.

| to | use |
|---|---|
| turn observations into features | `make_encoder` with one of the features settings |
| act | a `Policy`: `TabularPolicy`, `BanditPolicy`, `OnnxPolicy`, `TreePolicy` |
| store and load a policy | `write_bundle`, `pack`, `load_bundle` |
| learn | an `Agent`, named in `policylab.agents.registry` |
"""

from policylab.agents.agent import Agent, Report
from policylab.agents.bandits import BanditAgent, run_testbed
from policylab.agents.bundle import Bundle, Lineage, Manifest, load_bundle, pack, write_bundle
from policylab.agents.features import Encoder, FeaturesSettings, encoder_from_json, make_encoder
from policylab.agents.onnx_policy import OnnxPolicy, OnnxSettings
from policylab.agents.policy import POLICIES, DiscretePolicy, Policy, StoredPolicy, policy_from
from policylab.agents.space_json import space_from_json, space_to_json, value_from_json, value_to_json
from policylab.agents.tree_policy import TreePolicy, TreeSettings
from policylab.agents.value_policies import BanditPolicy, TabularPolicy

__all__ = [
    "POLICIES",
    "Agent",
    "BanditAgent",
    "BanditPolicy",
    "Bundle",
    "DiscretePolicy",
    "Encoder",
    "FeaturesSettings",
    "Lineage",
    "Manifest",
    "OnnxPolicy",
    "OnnxSettings",
    "Policy",
    "Report",
    "StoredPolicy",
    "TabularPolicy",
    "TreePolicy",
    "TreeSettings",
    "encoder_from_json",
    "load_bundle",
    "make_encoder",
    "pack",
    "policy_from",
    "run_testbed",
    "space_from_json",
    "space_to_json",
    "value_from_json",
    "value_to_json",
    "write_bundle",
]
