"""``constraints.json``: what data must satisfy, in the schema of Amazon SageMaker Model Monitor.

Source: Developer Guide, "Schema for Constraints (constraints.json file)". Two spellings of a feature's own settings are
read: ``monitoringConfigOverrides`` of the guide, which is written too, and ``monitoring_config_overrides`` within
``string_constraints`` of the SageMaker SDK (sagemaker-python-sdk#2745). ``correlation_threshold`` is an addition, and
so are ``minimum``, ``maximum`` and ``false_discovery_rate``, which are written only where they were set.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from policylab.config import Document, Settings, validate
from policylab.errors import ConfigError
from policylab.monitoring.profiles.column import ColumnProfile, Type
from policylab.monitoring.profiles.profile import Profile

MAX_DOMAIN = 100
"""Different values up to which a text column's values are a domain to stay in."""

Switch = Literal["Enabled", "Disabled"]
Share = Annotated[float, Field(ge=0.0, le=1.0)]
Threshold = Annotated[float, Field(ge=0.0)]
CorrelationChange = Annotated[float, Field(ge=0.0, le=2.0)]
"""From -1 to 1 at most."""


class DistributionConstraints(Settings):
    """When a distribution has drifted; the defaults are SageMaker's."""

    perform_comparison: Switch = "Enabled"
    comparison_threshold: Threshold = Field(0.1, description="largest distance of numbers")
    comparison_method: Literal["Simple", "Robust"] = Field(
        "Robust", description="Robust: after what chance explains is taken off"
    )
    categorical_comparison_threshold: Threshold = Field(
        0.1, description="largest distance of categories; with ChiSquared, the p-value below which they have drifted"
    )
    categorical_drift_method: Literal["LInfinity", "ChiSquared"] = "LInfinity"
    correlation_threshold: CorrelationChange = Field(
        0.1, description="largest change of the correlation with another column of numbers"
    )


class MonitoringConfig(Settings):
    """What is checked; the defaults are SageMaker's."""

    evaluate_constraints: Switch = "Enabled"
    emit_metrics: Switch = "Enabled"
    datatype_check_threshold: Share = Field(0.1, description="largest share of values of another type")
    domain_content_threshold: Share = Field(0.1, description="largest share of values outside the domain")
    distribution_constraints: DistributionConstraints = DistributionConstraints()
    false_discovery_rate: float | None = Field(
        default=None,
        gt=0.0,
        lt=1.0,
        description="largest share of false ones among the drifted and less complete columns, on average; default: the "
        "false-alarm rate of the whole check is kept",
    )


class DistributionOverrides(Settings):
    """One feature's own `DistributionConstraints`; null takes the common one."""

    perform_comparison: Switch | None = None
    comparison_threshold: Threshold | None = None
    comparison_method: Literal["Simple", "Robust"] | None = None
    categorical_comparison_threshold: Threshold | None = None
    categorical_drift_method: Literal["LInfinity", "ChiSquared"] | None = None
    correlation_threshold: CorrelationChange | None = None


class Overrides(Settings):
    """One feature's own `MonitoringConfig`; null takes the common one."""

    evaluate_constraints: Switch | None = None
    emit_metrics: Switch | None = None
    datatype_check_threshold: Share | None = None
    domain_content_threshold: Share | None = None
    distribution_constraints: DistributionOverrides | None = None


class NumberConstraints(Settings):
    """Range of a column of numbers."""

    is_non_negative: bool = False
    minimum: float | None = None
    maximum: float | None = None


class TextConstraints(Settings):
    """Domain of a column of categories; empty allows all."""

    domains: tuple[str, ...] = ()
    monitoring_config_overrides: Overrides | None = None


class FeatureConstraints(Settings):
    """What one column must satisfy."""

    name: str
    inferred_type: Type
    completeness: Share = Field(description="least share of rows that hold a value")
    num_constraints: NumberConstraints | None = None
    string_constraints: TextConstraints | None = None
    monitoringConfigOverrides: Overrides | None = None

    @property
    def overrides(self) -> Overrides | None:
        """The feature's own settings, by whichever spelling."""
        in_text = self.string_constraints.monitoring_config_overrides if self.string_constraints else None
        return self.monitoringConfigOverrides or in_text


class Constraints(Settings):
    """What a table must satisfy."""

    version: int = 0
    features: tuple[FeatureConstraints, ...]
    monitoring_config: MonitoringConfig = MonitoringConfig()

    def config_of(self, feature: FeatureConstraints) -> MonitoringConfig:
        """Return the common settings with the feature's own put in."""
        common = self.monitoring_config.model_dump()
        own = feature.overrides.model_dump(exclude_none=True) if feature.overrides else {}
        distribution = {**common["distribution_constraints"], **own.pop("distribution_constraints", {})}
        return MonitoringConfig.model_validate({**common, **own, "distribution_constraints": distribution})


def suggested(profile: Profile) -> Constraints:
    """Return the constraints that a baseline satisfies."""
    return Constraints(features=tuple(_of_column(name, column) for name, column in profile.columns.items()))


def _of_column(name: str, column: ColumnProfile) -> FeatureConstraints:
    of_numbers = column.type in ("Integral", "Fractional")
    domain = None if of_numbers else column.categories()
    listed = tuple(sorted(domain)) if domain is not None and len(domain) <= MAX_DOMAIN else ()
    return FeatureConstraints(
        name=name,
        inferred_type=column.type,
        completeness=column.completeness,
        num_constraints=NumberConstraints(is_non_negative=column.low >= 0) if of_numbers else None,
        string_constraints=TextConstraints(domains=listed) if column.type == "String" else None,
    )


def with_false_discovery_rate(constraints: Constraints, rate: float) -> Constraints:
    """Return the same constraints, judged together at a false-discovery rate."""
    config = constraints.monitoring_config.model_copy(update={"false_discovery_rate": rate})
    return constraints.model_copy(update={"monitoring_config": config})


def of_columns(constraints: Constraints, names: Collection[str]) -> Constraints:
    """Return the constraints of some columns alone."""
    features = tuple(feature for feature in constraints.features if feature.name in names)
    return constraints.model_copy(update={"features": features})


def document(constraints: Constraints) -> dict[str, Any]:
    """Return the JSON of ``constraints.json``; what is not set is left out."""
    return constraints.model_dump(mode="json", exclude_none=True)


def read_constraints(path: Path) -> Constraints:
    """Return the constraints in a file.

    Raises:
        ConfigError: it is missing or no JSON, or any finding about its content, one per line.
    """
    try:
        data = json.loads(path.read_bytes())
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be read ({error.strerror}); make it with `policylab monitor baseline`"
        ) from None
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: not JSON: {str(error)[:80]}") from None
    if not isinstance(data, dict):
        raise ConfigError(f"{path}: expected an object with 'features', got {type(data).__name__}")
    return validate(Constraints, Document(data=data, places={}, source=str(path)))
