"""``policylab emulate``: execute training requests on this machine, and look after the emulator's jobs."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from policylab.cli.job_news import JobNews, screen
from policylab.cli.output import columns, emit

if TYPE_CHECKING:
    from policylab.launchers.sagemaker.emulator import EmulatedSageMaker, EmulatorSettings
    from policylab.launchers.sagemaker.object_store import ObjectStore

_POLL_S = 0.2


def emulate(arguments: argparse.Namespace) -> int:
    """Execute requests, or tell a running job something, or clear leftovers away."""
    from policylab.errors import UserError

    root = Path(arguments.root)
    if arguments.clean:
        return _clean(arguments, root)
    if arguments.interrupt or arguments.stop:
        return _tell(arguments, root)
    if not arguments.requests:
        raise UserError("which request? name a file with a CreateTrainingJob request (see: policylab emulate --help)")
    return _execute(arguments, root)


def _clean(arguments: argparse.Namespace, root: Path) -> int:
    from policylab.launchers.sagemaker.emulator.leftovers import clear_leftovers

    cleared = clear_leftovers(root.resolve())
    text = "\n".join(f"cleared: {name}" for name in cleared) or f"nothing is left over in {root}"
    emit(arguments, {"cleared": cleared}, text=lambda: text)
    return 0


def _tell(arguments: argparse.Namespace, root: Path) -> int:
    from policylab.errors import UserError
    from policylab.launchers.sagemaker.emulator.leftovers import job_folders
    from policylab.launchers.sagemaker.emulator.orders import give_order
    from policylab.launchers.sagemaker.emulator.record import ENDED, read_record

    name = arguments.interrupt or arguments.stop
    folders = {folder.name: folder for folder in job_folders(root)}
    running = [one for one, folder in folders.items() if read_record(folder)["TrainingJobStatus"] not in ENDED]
    if name not in running:
        raise UserError(f"no job {name!r} runs in {root} (running: {', '.join(running) or 'none'})")
    if arguments.interrupt and not read_record(folders[name]).get("EnableManagedSpotTraining"):
        raise UserError(f"{name} does not run on spot instances; only those are interrupted")
    give_order(folders[name], "interrupt" if arguments.interrupt else "stop")
    told = "interrupting" if arguments.interrupt else "stopping"
    emit(arguments, {"job": name, "told": told}, text=lambda: f"{told} {name}")
    return 0


def _execute(arguments: argparse.Namespace, root: Path) -> int:
    from policylab.launchers.sagemaker.emulator import EmulatedSageMaker
    from policylab.launchers.sagemaker.emulator.leftovers import forget

    requests = [_request(name) for name in arguments.requests]
    names = [str(request.get("TrainingJobName")) for request in requests]
    settings = _settings(arguments)
    with EmulatedSageMaker(root, _store(arguments.store, root), settings=settings) as service:
        for request in requests:
            service.check(request)
        for name in names:
            if arguments.replace and (service.root / "jobs" / name / "record.json").exists():
                forget(service.root, name)
        how = "isolated by namespaces" if service.isolated else "plain processes"
        sys.stderr.write(f"hosts: {how} ({service.isolation_reason})\n")
        _refuse_taken(service, names)
        for request in requests:
            service.create_training_job(**request)
        interrupted = _follow(service, names, quiet=arguments.json or arguments.quiet)
        documents = [_document(service, name) for name in names]
    emit(arguments, documents if len(documents) > 1 else documents[0], text=lambda: _summary(documents))
    if interrupted:
        return 130
    return 0 if all(one["TrainingJobStatus"] == "Completed" for one in documents) else 1


def _refuse_taken(service: EmulatedSageMaker, names: Sequence[str]) -> None:
    from policylab.errors import UserError

    taken = [name for name in names if (service.root / "jobs" / name).exists()]
    taken += sorted({name for name in names if names.count(name) > 1})
    if taken:
        raise UserError(
            f"{', '.join(taken)}: job names are used once, as on the service; rename it in the request, or forget the "
            "earlier job with --replace"
        )


def _request(name: str) -> dict[str, Any]:
    """Read a request; ``-`` is standard input."""
    from policylab.errors import ConfigError

    try:
        request = json.loads(sys.stdin.read() if name == "-" else Path(name).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{name}: cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise ConfigError(f"{name}: not a JSON document: {error}") from None
    if not isinstance(request, dict):
        raise ConfigError(f"{name}: a CreateTrainingJob request is one JSON object, got {type(request).__name__}")
    return request


def _store(store: str | None, root: Path) -> ObjectStore:
    """Return the folder or the S3-compatible server that stands for S3."""
    from policylab.extras import require
    from policylab.launchers.sagemaker.object_store import FolderStore, S3Store

    if store is not None and store.startswith(("http://", "https://")):
        return S3Store(require("boto3", extra="sagemaker").client("s3", endpoint_url=store))
    return FolderStore(Path(store) if store else root / "s3")


def _settings(arguments: argparse.Namespace) -> EmulatorSettings:
    from policylab.errors import ConfigError
    from policylab.launchers.sagemaker.emulator import EmulatorSettings, parse_injection

    folders = {}
    for text in arguments.channel:
        name, given, folder = text.partition("=")
        if not given or not Path(folder).is_dir():
            raise ConfigError(f"--channel {text}: must be NAME=FOLDER, and the folder must exist")
        folders[name] = Path(folder)
    return EmulatorSettings(
        isolation=arguments.isolation,
        parallel=arguments.parallel,
        grace_s=arguments.grace,
        linger_s=arguments.grace if arguments.linger is None else arguments.linger,
        disk_mb=arguments.disk_mb,
        folders=folders,
        injections=tuple(map(parse_injection, arguments.inject)),
        keep=arguments.keep,
    )


def _follow(service: EmulatedSageMaker, names: Sequence[str], *, quiet: bool) -> bool:
    """Show states and logs until every job has ended; return whether the user interrupted.

    The first interrupt asks the jobs to stop, the second one kills their hosts.
    """
    news = [JobNews(service, name, prefix=f"{name} " if len(names) > 1 else "") for name in names]
    orders = ["stop", "hurry"]
    while True:
        try:
            with screen(quiet=quiet) as show:
                while not all(one.ended for one in news):
                    time.sleep(_POLL_S)
                    show([line for one in news for line in one.lines()], "; ".join(one.state() for one in news))
            return len(orders) < 2
        except KeyboardInterrupt:
            if not orders:
                raise
            grace = f"SIGTERM to every host; they have {service.settings.grace_s:g} s, or until you press Ctrl-C again"
            sys.stderr.write(f"stopping: {grace}\n" if len(orders) > 1 else "killing every host\n")
            order = orders.pop(0)
            for one in news:
                one.tell(order)


def _document(service: EmulatedSageMaker, name: str) -> dict[str, Any]:
    from policylab.launchers.sagemaker.emulator.record import read_record

    folder = service.root / "jobs" / name
    logs = {host: str(path) for host, path in service.log_files(name).items()}
    return {**read_record(folder), "Emulation": {**service.emulation(name), "Logs": logs, "Folder": str(folder)}}


def _summary(documents: Sequence[dict[str, Any]]) -> str:
    """Return what came of each job, and what that does not prove."""
    parts = []
    for one in documents:
        facts = one["Emulation"]
        rows = [["status", f"{one['TrainingJobStatus']} ({one['SecondaryStatus']})"]]
        if "FailureReason" in one:
            rows.append(["failure", one["FailureReason"].replace("\n", " ")])
        rows += [["metric", f"{metric['MetricName']} = {metric['Value']:g}"] for metric in one["FinalMetricDataList"]]
        if one["ModelArtifacts"]["S3ModelArtifacts"]:
            rows.append(["model", one["ModelArtifacts"]["S3ModelArtifacts"]])
        for number, attempt in enumerate(facts.get("Attempts", []), start=1):
            codes = ", ".join(f"{host} {_code(found)}" for host, found in attempt.get("Hosts", {}).items())
            rows.append(
                [f"start {number}", f"{attempt['Ended']} after {attempt['Seconds']:.1f} s; exit codes: {codes}"]
            )
        rows += [["note", text] for text in facts.get("Notes", [])]
        rows += [["not checked", text] for text in facts.get("NotChecked", [])]
        rows.append(["folder", facts["Folder"]])
        parts.append(f"{one['TrainingJobName']}\n{columns(rows)}")
    return "\n\n".join(parts)


def _code(host: dict[str, Any]) -> str:
    code = "never began" if host["ExitCode"] is None else str(host["ExitCode"])
    return f"{code} (killed)" if host["Killed"] else code
