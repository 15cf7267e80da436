"""The numbers of SageMaker automatic model tuning in one table; pass another one where an account differs.

Source: the API reference of CreateHyperParameterTuningJob and the page "Resource limits for automatic model
tuning". Where the two disagree the API's number is the limit and the page's stricter one an advisory one.
"""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True, slots=True)
class ServiceLimits:
    """Limits and quotas; ``advised_*`` is the stricter of two published numbers, or a default quota that can be raised.

    >>> ServiceLimits(jobs=10_000).jobs  # an account whose quota was raised
    10000
    """

    name_characters: int = 32
    definitions: int = 10
    definition_name_characters: int = 64
    ranges: int = 30
    categories: int = 30
    value_characters: int = 256
    hyperparameters: int = 100  # tunable + static + the objective's name, which the service adds
    static_value_characters: int = 2500
    metrics: int = 40
    advised_metrics: int = 20
    regex_characters: int = 500
    metric_name_characters: int = 255
    channels: int = 20
    environment_entries: int = 48  # over all definitions together
    tags: int = 50
    parents: int = 5
    parent_changes: int = 10
    parent_jobs: int = 500  # jobs of parents and child together; another page says 750
    oldest_parent: str = "2018-10-01"
    jobs: int = 750
    random_jobs: int = 10_000
    parallel: int = 100
    advised_parallel: int = 10
    min_runtime_s: int = 120
    max_runtime_s: int = 15_768_000
    advised_runtime_s: int = 30 * 86_400
    training_runtime_s: int = 28 * 86_400
    hyperband_resource: int = 20_000
    min_not_improving: int = 3
    retries: int = 30
    instance_configs: int = 6
