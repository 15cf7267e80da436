"""The arguments of ``policylab monitor`` and ``policylab ope``."""

from __future__ import annotations

import argparse
from collections.abc import Callable


def add_monitoring(command: Callable[..., argparse.ArgumentParser]) -> None:
    """Add the commands; ``command`` makes a parser of a name, ``call`` and ``text``."""
    _monitor_commands(command("monitor", call="monitor:", text="watch data and policies for drift"))
    _ope_arguments(command("ope", call="ope:ope", text="value a policy by a log of what another policy did"))


def _monitor_commands(monitor: argparse.ArgumentParser) -> None:
    """Add the commands below ``policylab monitor``."""
    commands = monitor.add_subparsers(metavar="COMMAND", required=True)

    def command(name: str, *, text: str, module: str = "monitor") -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=text, description=text)
        added.add_argument(
            "--json", action="store_true", default=argparse.SUPPRESS, help="print one JSON document and nothing else"
        )
        added.set_defaults(call=f"policylab.cli.{module}:{name.replace('-', '_')}")
        return added

    def rate(added: argparse.ArgumentParser, *, default: float | None = 0.003) -> None:
        text = "of the whole command on data that has not drifted (default: 0.003)"
        added.add_argument("--false-alarm-rate", type=float, default=default, metavar="P", help=text)

    data = "Parquet, CSV or JSON lines, or folders of them"
    profiles = f"{data}; or profile.npz files, which are merged"
    baseline = command("baseline", text="profile data that is as it should be, and suggest constraints")
    check = command("check", text="check data against a baseline; exit code 1 on violations")
    for added in (baseline, check):
        added.add_argument("data", nargs="+", metavar="DATA", help=profiles)
        added.add_argument("--columns", metavar="A,B", help="look at these columns alone")
    baseline.add_argument("--out", required=True, metavar="DIR", help="folder that receives the baseline")
    _check_arguments(check)
    rate(check, default=None)
    bias = command("bias", text="measure bias between two facets of a data set")
    bias.add_argument("data", metavar="DATA", help=data)
    _bias_arguments(bias)
    attribution = command("attribution", text="say whether a policy decides by the same features; exit code 1 if not")
    _attribution_arguments(attribution)
    _explain_arguments(
        command("explain", text="say which features a policy decides by, overall and in single decisions")
    )
    causes = command("causes", text="say which part has drifted: policy, environment, rewards; exit code 1 if any has")
    for added in (attribution, causes):
        recording = "Parquet file of `policylab record`, or a folder of captured traffic"
        added.add_argument("baseline", metavar="BASELINE", help=recording)
        added.add_argument("window", metavar="WINDOW", help="the same, of another time")
    causes.add_argument("--policy", metavar="BUNDLE", help="a policy of the task, to read captured traffic")
    rate(causes)
    earned = "measure what policies earn; exit code 1 if it is worse than a baseline"
    _quality_arguments(command("quality", text=earned, module="monitor_quality"))
    _schedule_commands(command)
    text = "watch columns value by value; exit code 1 on an alarm"
    _stream_arguments(command("stream", text=text), data=data)
    text = "say whether a proxy of the reward still goes with the true one; exit code 1 if not"
    divergence = command("divergence", text=text)
    _divergence_arguments(divergence, data=data)
    rate(divergence)


def _check_arguments(check: argparse.ArgumentParser) -> None:
    check.add_argument("--baseline", required=True, metavar="DIR", help="folder of `policylab monitor baseline`")
    check.add_argument("--out", default="monitor", metavar="DIR", help="folder for the results (default: monitor)")
    check.add_argument(
        "--false-discovery-rate", type=float, metavar="Q",
        help="instead of a false-alarm rate: the most of what is called drifted or less complete that is so by chance",
    )  # fmt: skip


def _stream_arguments(stream: argparse.ArgumentParser, *, data: str) -> None:
    stream.add_argument("baseline", metavar="BASELINE", help=f"values in the order of time: {data}")
    stream.add_argument("window", metavar="STREAM", help="what came afterwards")
    stream.add_argument("--columns", required=True, metavar="A,B", help="the columns to watch")
    stream.add_argument(
        "--run-length", type=float, default=1e6, metavar="N", help="expected values before a false alarm (default: 1e6)"
    )


def _divergence_arguments(divergence: argparse.ArgumentParser, *, data: str) -> None:
    divergence.add_argument("baseline", metavar="BASELINE", help=f"pairs in the order of time: {data}")
    divergence.add_argument("window", metavar="WINDOW", help="the same, of another time")
    divergence.add_argument("--proxy", required=True, metavar="COLUMN", help="what the policy was trained for")
    divergence.add_argument("--true", required=True, metavar="COLUMN", help="what it is meant to earn")


def _schedule_commands(command: Callable[..., argparse.ArgumentParser]) -> None:
    """Add the commands on monitor files."""
    schedule = command("schedule", text="check every window of a monitor once, as it ends", module="monitor_schedule")
    schedule.add_argument("--once", action="store_true", help="only what is due; exit code 1 on an alarm")
    watch = command("watch", text="watch a live endpoint as its traffic is captured", module="monitor_schedule")
    watch.add_argument(
        "--run-length", type=float, default=1e5, metavar="N", help="values before a false alarm (default: 1e5)"
    )
    watch.add_argument("--seconds", type=float, metavar="S", help="end after so long (default: on Ctrl-C)")
    text = "the requests of a monitor file to SageMaker, and what they cannot express"
    hosted = command("to-sagemaker", text=text, module="monitor_schedule")
    for added in (schedule, watch):
        added.add_argument(
            "--metrics-port", type=int, metavar="N",
            help="serve the latest results to Prometheus at http://127.0.0.1:N/metrics (0: a free port)",
        )  # fmt: skip
        added.add_argument(
            "--metrics-host", default="127.0.0.1", metavar="HOST",
            help="address to bind (default: 127.0.0.1); another needs a secret in POLICYLAB_TOKEN",
        )  # fmt: skip
    for added in (schedule, watch, hosted):
        added.add_argument("file", metavar="FILE", help="monitor file")
        added.add_argument(
            "--set", action="append", default=[], dest="overrides", metavar="PATH=VALUE", help="override one setting"
        )
    refresh = command("refresh", text="make a new baseline of approved data, keep the old", module="monitor_schedule")
    refresh.add_argument("baseline", metavar="BASE", help="folder of `policylab monitor baseline`")
    refresh.add_argument("data", nargs="+", metavar="DATA", help="Parquet, CSV, JSON lines, folders, profile.npz")
    refresh.add_argument("--columns", metavar="A,B", help="look at these columns alone")
    report = command("report", text="write one page over all windows of a monitor", module="monitor_schedule")
    report.add_argument("monitor", metavar="MONITOR", help="monitor file, or the folder of its results")


def _quality_arguments(quality: argparse.ArgumentParser) -> None:
    """Add the arguments of ``policylab monitor quality``."""
    recording = "folder of captured traffic, or a Parquet file of `policylab record`"
    quality.add_argument("data", metavar="DATA", help=recording)
    quality.add_argument("--baseline", metavar="DIR", help="folder of an earlier --out, whose constraints must hold")
    quality.add_argument("--out", default="quality", metavar="DIR", help="folder for the results (default: quality)")
    quality.add_argument("--policy", metavar="BUNDLE", help="the policy that served, for regret and action values")
    quality.add_argument("--success-above", type=float, metavar="G", help="an episode succeeded if it returns more")
    quality.add_argument(
        "--discount", type=float, metavar="GAMMA", help="of the policy's action values, which are checked then"
    )
    quality.add_argument("--level", type=float, default=0.95, help="confidence of the intervals (default: 0.95)")
    quality.add_argument("--endpoint", metavar="NAME", help="of captured traffic, if the folder holds several")
    quality.add_argument("--variant", metavar="NAME", help="of captured traffic; default: all variants")
    quality.add_argument(
        "--missing-reward", type=float, metavar="R", help="what a decision without a reported reward earned"
    )
    quality.add_argument("--at", metavar="TIME", help="moment that offsets count from, ISO 8601 (default: now)")
    quality.add_argument("--start-offset", metavar="D", help="decisions since then, such as --start-offset=-P8D")
    quality.add_argument("--end-offset", metavar="D", help="decisions before then, so that rewards can have arrived")


def _attribution_arguments(attribution: argparse.ArgumentParser) -> None:
    """Add arguments of ``policylab monitor attribution``."""
    attribution.add_argument("policy", metavar="POLICY", help="folder or model.tar.gz of a policy bundle")
    attribution.add_argument("--then", metavar="POLICY", help="the policy of the baseline, if it was another one")
    attribution.add_argument("--out", metavar="DIR", help="folder for constraint_violations.json and report.json")


def _explain_arguments(explain: argparse.ArgumentParser) -> None:
    """Add the arguments of ``policylab monitor explain``."""
    explain.add_argument("policy", metavar="POLICY", help="folder or model.tar.gz of a policy bundle")
    explain.add_argument(
        "data", metavar="DATA", help="Parquet file of `policylab record`, or a folder of captured traffic"
    )
    explain.add_argument("--out", required=True, metavar="DIR", help="folder for explanation.json and the figures")
    explain.add_argument(
        "--decision", type=int, action="append", default=[], metavar="ROW", help="explain this step of DATA; repeatable"
    )
    explain.add_argument(
        "--method", choices=["shapley", "gradients"], default="shapley",
        help="Shapley values (default), or integrated gradients of a network",
    )  # fmt: skip
    explain.add_argument("--seed", type=int, default=0, help="root of what is drawn (default: 0)")
    explain.set_defaults(call="policylab.cli.explain:explain")


def _bias_arguments(bias: argparse.ArgumentParser) -> None:
    """Add the arguments of ``policylab monitor bias``."""
    selection = "COLUMN=VALUE,... or COLUMN>NUMBER"
    bias.add_argument("--facet", required=True, metavar="F", help=f"the disfavoured facet: {selection}")
    bias.add_argument("--label", required=True, metavar="L", help=f"the positive outcome: {selection}")
    bias.add_argument("--prediction", metavar="P", help=f"the positive prediction: {selection}")
    bias.add_argument("--group", metavar="COLUMN", help="groups for conditional disparity")
    bias.add_argument(
        "--per-episode", action="store_true",
        help="one row per episode of a recording or of captured traffic: obs of its first step, action, return, length",
    )  # fmt: skip
    bias.add_argument("--policy", metavar="BUNDLE", help="a policy of the task, to read captured traffic")
    bias.add_argument("--baseline", metavar="FILE", help="analysis.json to compare with; exit code 1 on drift")
    bias.add_argument("--out", metavar="DIR", help="folder for analysis.json and constraint_violations.json")
    bias.add_argument("--level", type=float, default=0.95, help="confidence of the intervals (default: 0.95)")


def _ope_arguments(ope: argparse.ArgumentParser) -> None:
    """Add the arguments of ``policylab ope``."""
    ope.add_argument("policy", metavar="POLICY", help="folder or model.tar.gz of a policy bundle")
    ope.add_argument("log", metavar="LOG", help="Parquet file of `policylab record`, or a folder of captured traffic")
    ope.add_argument("--discount", type=float, metavar="GAMMA", help="of the return that is estimated (default: 1)")
    ope.add_argument("--horizon", type=int, metavar="N", help="most steps of an episode (default: the time limit)")
    ope.add_argument("--deterministic", action="store_true", help="value the policy's deterministic actions")
    ope.add_argument("--level", type=float, help="confidence of intervals and bounds (default: 0.95)")
    ope.add_argument("--least-return", type=float, metavar="G", help="no return of the task is below, for bounds")
    ope.add_argument("--seed", type=int, help="root of the resampling (default: 0)")
    ope.add_argument("--endpoint", metavar="NAME", help="of captured traffic, if the folder holds several")
    ope.add_argument("--variant", metavar="NAME", help="of captured traffic; default: all variants")
    ope.add_argument(
        "--missing-reward", type=float, metavar="R", help="what a captured decision without a reported reward earned"
    )
