"""A table or tree as portable C99: one header without allocation, and a program that tests it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from policylab.agents.action_distributions import Gaussian, MultiCategorical
from policylab.agents.bundle import Bundle
from policylab.agents.tree_policy import LEAF, TreePolicy
from policylab.agents.value_policies import TabularPolicy
from policylab.errors import UserError

MAX_STATES = 1_000_000
PER_LINE = 16
_HEADER = """/* Policy {digest}. C99, no allocation, no state.

   int policy_act(const double *observation) returns the deterministic action for POLICY_N_OBSERVATION numbers{range}.
   */
#ifndef POLICY_H
#define POLICY_H

#define POLICY_N_OBSERVATION {n}
{body}
#endif
"""
_TABLE = """
static const long policy_sizes[POLICY_N_OBSERVATION] = {sizes};
static const long policy_starts[POLICY_N_OBSERVATION] = {starts};
static const {kind} policy_actions[{n_states}] = {actions};

static int policy_act(const double *observation) {{
  long index = 0;
  int i;
  for (i = 0; i < POLICY_N_OBSERVATION; i++) {{
    double place = observation[i] - (double)policy_starts[i];
    if (!(place >= 0.0 && place < (double)policy_sizes[i] && place == (double)(long)place)) return POLICY_NO_ACTION;
    index = index * policy_sizes[i] + (long)place;
  }}
  return (int)policy_actions[index];
}}
"""
_TREE = """
static const long policy_feature[{n_nodes}] = {feature};
static const double policy_threshold[{n_nodes}] = {threshold};
static const long policy_left[{n_nodes}] = {left};
static const long policy_right[{n_nodes}] = {right};
static const {kind} policy_actions[{n_nodes}] = {actions};

static int policy_act(const double *observation) {{
  long node = 0;
  while (policy_feature[node] >= 0)
    node = observation[policy_feature[node]] <= policy_threshold[node] ? policy_left[node] : policy_right[node];
  return (int)policy_actions[node];
}}
"""
_TEST = """/* cc -std=c99 -o test_policy test_policy.c && ./test_policy
   With an argument: reads observations from the standard input, one number after the other, and prints actions. */
#include <stdio.h>
#include "policy.h"

#define N_GOLDEN {n_golden}
static const double golden[N_GOLDEN][POLICY_N_OBSERVATION] = {{{observations}}};
static const int expected[N_GOLDEN] = {actions};

int main(int argc, char **argv) {{
  double observation[POLICY_N_OBSERVATION];
  int i, wrong = 0;
  (void)argv;
  if (argc > 1) {{
    for (;;) {{
      for (i = 0; i < POLICY_N_OBSERVATION; i++)
        if (scanf("%lf", &observation[i]) != 1) return 0;
      printf("%d\\n", policy_act(observation));
    }}
  }}
  for (i = 0; i < N_GOLDEN; i++) wrong += policy_act(golden[i]) != expected[i];
  printf("%d of %d recorded answers reproduced\\n", N_GOLDEN - wrong, N_GOLDEN);
  return wrong != 0;
}}
"""


def c_files(bundle: Bundle) -> dict[str, bytes | str]:
    """Return ``policy.h`` and ``test_policy.c`` of a table or tree.

    Raises:
        UserError: the actions cannot be listed, or the table is of tiles or bins, or too large.
    """
    policy: Any = bundle.policy
    body, n, where = _table(policy) if isinstance(policy, TabularPolicy) else _tree(policy)
    observations = [np.asarray(golden.observation, dtype=np.float64).ravel() for golden in bundle.manifest.golden]
    header = _HEADER.format(digest=bundle.digest, n=n, body=body, range=where)
    test = _TEST.format(
        n_golden=len(observations),
        observations=", ".join(_doubles(row.tolist()) for row in observations),
        actions=_whole([int(str(golden.action)) for golden in bundle.manifest.golden]),
    )
    return {"policy.h": header, "test_policy.c": test}


def _table(policy: TabularPolicy) -> tuple[str, int, str]:
    features = policy.encoder.settings()
    if features["kind"] != "index" or policy.encoder.n_features > MAX_STATES:
        raise UserError(
            f"a C table is of at most {MAX_STATES:,} counted states, this one has the features '{features['kind']}'; "
            "make a tree of it first: policylab policy optimize --how distill-tree"
        )
    actions = (policy.weights.argmax(axis=1) + policy.first_action).tolist()
    body = "#define POLICY_NO_ACTION (-2147483647 - 1)\n" + _TABLE.format(
        sizes=_whole(features["sizes"]), starts=_whole(features["starts"]), kind=_kind(actions),
        n_states=len(actions), actions=_whole(actions),
    )  # fmt: skip
    return body, len(features["sizes"]), ",\n   or POLICY_NO_ACTION where the table has no such observation"


def _tree(policy: TreePolicy) -> tuple[str, int, str]:
    distribution = policy.settings.distribution
    if isinstance(distribution, Gaussian | MultiCategorical):
        raise UserError(f"a C tree returns one number, a '{distribution.kind}' policy has several; serve it instead")
    arrays = policy.arrays()
    actions = np.where(arrays["feature"] == LEAF, distribution.mode(arrays["outputs"]), 0).tolist()
    body = _TREE.format(
        n_nodes=len(actions), feature=_whole(arrays["feature"].tolist()),
        threshold=_doubles(arrays["threshold"].tolist()), left=_whole(arrays["left"].tolist()),
        right=_whole(arrays["right"].tolist()), kind=_kind(actions), actions=_whole(actions),
    )  # fmt: skip
    return body, policy.settings.n_features, ""


def _kind(actions: Sequence[int]) -> str:
    """Return the smallest portable type that holds the actions."""
    return "signed char" if min(actions) >= -127 and max(actions) <= 127 else "long"


def _whole(numbers: Sequence[int]) -> str:
    lines = [", ".join(map(str, numbers[i : i + PER_LINE])) for i in range(0, len(numbers), PER_LINE)]
    return "{" + ",\n  ".join(lines) + "}"


def _doubles(numbers: Sequence[float]) -> str:
    """Return numbers in decimal, exactly: 17 digits bring every double back."""
    return "{" + ", ".join(f"{number:.17g}" for number in numbers) + "}"
