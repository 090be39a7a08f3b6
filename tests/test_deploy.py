"""The examples of deployment are what Ray and KubeRay read."""

from __future__ import annotations

import re
import shlex
import tomllib
from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from packaging.specifiers import SpecifierSet
from packaging.version import Version

from graphorch_ray.cli.app import cli
from graphorch_ray.cli.session import Session

ROOT = Path(__file__).parent.parent
DEPLOY = ROOT / "examples" / "deploy"

# The fields that KubeRay documents for ray.io/v1 (its API reference, 1.5 and later).
RAY_JOB = {
    *("activeDeadlineSeconds", "backoffLimit", "clusterSelector", "deletionStrategy", "entrypoint"),
    *("entrypointNumCpus", "entrypointNumGpus", "entrypointResources", "jobId", "managedBy"),
    *("metadata", "rayClusterSpec", "runtimeEnvYAML", "shutdownAfterJobFinishes", "submissionMode"),
    *("submitterConfig", "submitterPodTemplate", "suspend", "ttlSecondsAfterFinished"),
}
RAY_CLUSTER = {
    *("authOptions", "autoscalerOptions", "enableInTreeAutoscaling", "gcsFaultToleranceOptions"),
    *("headGroupSpec", "headServiceAnnotations", "managedBy", "rayVersion", "suspend"),
    "workerGroupSpecs",
}
HEAD_GROUP = {"enableIngress", "headService", "rayStartParams", "serviceType", "template"}
WORKER_GROUP = {
    *("groupName", "idleTimeoutSeconds", "maxReplicas", "minReplicas", "numOfHosts"),
    *("rayStartParams", "replicas", "scaleStrategy", "suspend", "template"),
}
CONTAINER = {"name", "image", "ports", "env", "envFrom", "resources", "volumeMounts"}


def read(name: str) -> Any:
    return yaml.safe_load((DEPLOY / name).read_text("utf-8"))


def oldest_ray() -> SpecifierSet:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    (line,) = (line for line in project["dependencies"] if line.startswith("ray>"))
    return SpecifierSet(line.removeprefix("ray"))


def test_ray_accepts_the_cluster_configuration() -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    config = read("cluster.yaml")
    validate_config(prepare_config(config))
    with pytest.raises(Exception, match="headstart_ray_commands"):  # the schema is strict
        validate_config(prepare_config({**config, "headstart_ray_commands": []}))


def test_ray_knows_the_options_of_the_start_commands() -> None:
    from ray.scripts.scripts import start

    known = {option for parameter in start.params for option in parameter.opts}
    config = read("cluster.yaml")
    commands = [*config["head_start_ray_commands"], *config["worker_start_ray_commands"]]
    options = {
        word.partition("=")[0]
        for command in commands
        for word in shlex.split(command)
        if word.startswith("--")
    }
    assert {"--head", "--address", "--dashboard-host"} <= options <= known
    head = read("rayjob.yaml")["spec"]["rayClusterSpec"]["headGroupSpec"]
    assert {f"--{name}" for name in head["rayStartParams"]} <= known


def test_the_manifest_has_only_fields_that_kuberay_documents() -> None:
    manifest = read("rayjob.yaml")
    assert (manifest["apiVersion"], manifest["kind"]) == ("ray.io/v1", "RayJob")
    assert set(manifest) == {"apiVersion", "kind", "metadata", "spec"}
    spec = manifest["spec"]
    assert set(spec) <= RAY_JOB
    cluster = spec["rayClusterSpec"]
    assert set(cluster) <= RAY_CLUSTER
    assert cluster["authOptions"] == {"mode": "token"}
    assert spec["submissionMode"] in ("K8sJobMode", "HTTPMode", "InteractiveMode", "SidecarMode")
    assert set(cluster["headGroupSpec"]) <= HEAD_GROUP
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    for group in cluster["workerGroupSpecs"]:
        assert set(group) <= WORKER_GROUP
        assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
    for group in groups:
        assert all(isinstance(value, str) for value in group["rayStartParams"].values())
        (container,) = group["template"]["spec"]["containers"]
        assert set(container) <= CONTAINER
        assert container["resources"]["limits"] == container["resources"]["requests"]


def test_the_manifests_entrypoint_is_a_command_line_of_ours() -> None:
    program, name, *arguments = shlex.split(read("rayjob.yaml")["spec"]["entrypoint"])
    assert program == "graphorch-ray"
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    parameters = command.make_context(name, arguments, obj=Session()).params
    assert parameters["goes_on"]
    assert parameters["checkpoint"].startswith("s3://")


def test_one_version_of_ray_everywhere() -> None:
    image = re.search(r"^FROM rayproject/ray:([\d.]+)-py(\d)(\d+)$", dockerfile(), re.M)
    assert image is not None
    version, major, minor = image.groups()
    assert Version(version) in oldest_ray()
    assert (int(major), int(minor)) >= (3, 11)
    assert read("rayjob.yaml")["spec"]["rayClusterSpec"]["rayVersion"] == version
    assert f"ray[default]=={version}" in str(read("cluster.yaml")["setup_commands"])


def dockerfile() -> str:
    return (DEPLOY / "Dockerfile").read_text("utf-8")


def test_the_extras_that_are_installed_exist() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    text = dockerfile() + (DEPLOY / "cluster.yaml").read_text("utf-8")
    extras = {
        extra
        for found in re.findall(r"graphorch-ray\[([\w,]+)\]", text)
        for extra in found.split(",")
    }
    assert extras
    assert extras <= set(project["optional-dependencies"])
