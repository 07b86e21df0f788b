"""What deploy/ and docker-compose.yml hand over is what the services read. No engine and no cluster is needed here."""

import os
import subprocess
from pathlib import Path

import pytest
import yaml

import auth_service.config
import gateway.config
import notifier.config
import patient_service.config
import tenant_service.config

ROOT = Path(__file__).parents[2]
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
COMPOSE_FILES = ROOT / "deploy/compose"
KUBERNETES = ROOT / "deploy/kubernetes"
OVERLAY = KUBERNETES / "overlays/example"

OF_THE_CONTAINER = {"HOST", "SERVICE_FD"}
"""A container listens on all its addresses, and nobody hands it a socket."""
OF_THE_WORKER = {"AUTH_SERVICE_URL", "PUBLIC_URL", "EMAIL_PASS", "WORKER_ALIVE_FILE"}
READERS = {  # what it reads, and of that what makes no sense there
    "gateway": (gateway.config.Settings, OF_THE_CONTAINER | {"METRICS_FD"}),
    "auth-service": (auth_service.config.Settings, OF_THE_CONTAINER),
    "tenant-service": (tenant_service.config.Settings, OF_THE_CONTAINER),
    "patient-service": (patient_service.config.Settings, OF_THE_CONTAINER),
    "notifier": (notifier.config.Settings, OF_THE_CONTAINER | OF_THE_WORKER),
    "notifier-worker": (notifier.config.Settings, OF_THE_CONTAINER | {"PORT"}),
    "prepare": (tenant_service.config.PrepareSettings, set()),
    "prepare-server": (tenant_service.config.PrepareServerSettings, set()),
    "migrate-auth": (auth_service.config.DatabaseSettings, OF_THE_CONTAINER),
    "migrate-tenant": (tenant_service.config.DatabaseSettings, set()),
}


def names_of(settings):
    return {name.upper() for name in settings.model_fields}


def handed_over(name):
    """The settings that Compose gives a container; NAME_FILE gives NAME."""
    service = COMPOSE["services"][name]
    names = set(service["environment"])
    if "mail" in str(service.get("env_file")):
        names |= set(variables_of(COMPOSE_FILES / "mail-account.env"))
    read = names_of(READERS[name][0])
    return {one if one in read else one.removesuffix("_FILE") for one in names}


def variables_of(file):
    return dict(line.split("=", 1) for line in file.read_text().splitlines() if line and not line.startswith("#"))


# Compose


def test_every_container_that_is_built_here_is_looked_at():
    built = {name for name, service in COMPOSE["services"].items() if "build" in service}
    assert built == {*READERS, "mailbox"}


@pytest.mark.parametrize("name", READERS)
def test_compose_hands_over_every_setting_that_the_service_reads(name):
    settings, left_out = READERS[name]
    assert names_of(settings) - handed_over(name) == left_out


@pytest.mark.parametrize("name", READERS)
def test_compose_hands_over_nothing_that_the_service_does_not_read(name):
    assert handed_over(name) - names_of(READERS[name][0]) == set()


@pytest.mark.parametrize("name", READERS)
def test_a_setting_keeps_its_name_and_may_be_empty(name):
    """`NAME: ${NAME:-…}`, so that .env.example is true of Compose too."""
    for setting, value in COMPOSE["services"][name]["environment"].items():
        if "${" in value:
            assert value.startswith(("${" + setting + ":-", "${" + setting + ":+")), setting


def test_both_mail_servers_are_described_by_the_same_settings():
    account, catcher = (set(variables_of(COMPOSE_FILES / file)) for file in ("mail-account.env", "mail.env"))
    assert account == catcher | {"EMAIL_USER"}


def test_compose_starts_as_many_patient_services_as_share_the_servers():
    service = COMPOSE["services"]["patient-service"]
    assert service["deploy"]["replicas"] == "${PATIENT_PROCESSES:-1}"
    assert service["environment"]["PATIENT_PROCESSES"] == "${PATIENT_PROCESSES:-}"


def test_every_secret_that_compose_mounts_is_made(tmp_path):
    mounted = {Path(one["file"]).name for one in COMPOSE["secrets"].values()}
    assert mounted == made_secrets(tmp_path / "secrets")


# Kubernetes


def made_secrets(folder):
    subprocess.run(
        [COMPOSE_FILES / "make-secrets"],
        env={**os.environ, "SECRETS_DIR": str(folder)},
        check=True,
        capture_output=True,
    )
    return {file.name for file in folder.iterdir()}


def kustomization(folder):
    return yaml.safe_load((folder / "kustomization.yaml").read_text())


def files_of(folder):
    """The paths that a kustomization.yaml names, but for the secrets."""
    described = kustomization(folder)
    yield from described["resources"]
    yield from (patch["path"] for patch in described["patches"])
    for generator in described["configMapGenerator"]:
        yield from generator["envs"]


def objects():
    for folder in (KUBERNETES / "base", OVERLAY):
        for file in kustomization(folder)["resources"]:
            if (folder / file).is_file():
                yield from yaml.safe_load_all((folder / file).read_text())


@pytest.mark.parametrize("folder", [KUBERNETES / "base", OVERLAY], ids=lambda folder: folder.name)
def test_kustomize_finds_every_file_and_no_file_is_forgotten(folder):
    named = set(files_of(folder))
    assert {path for path in named if not (folder / path).exists()} == set()
    assert {file.name for file in folder.iterdir() if file.is_file()} == {
        *(path for path in named if "/" not in path),
        "kustomization.yaml",
    }


def test_the_overlays_secrets_are_those_that_are_made(tmp_path):
    [generator] = kustomization(OVERLAY)["secretGenerator"]
    named = {Path(file).name for file in generator["files"]}
    assert made_secrets(tmp_path / "secrets") - named == {"db_superuser_pass"}, "the operator makes that one"
    assert {Path(file).parent.name for file in generator["files"]} == {"secrets"}


def test_nothing_that_cannot_be_changed_mounts_settings():
    """A Job's template is immutable: with new settings or images, `kubectl apply` would be refused."""
    assert {one["kind"] for one in objects()} & {"Job", "Pod"} == set()


def test_kubernetes_starts_as_many_patient_services_as_share_the_servers():
    [spec] = (
        one["spec"] for one in objects() if (one["kind"], one["metadata"]["name"]) == ("Deployment", "patient-service")
    )
    [container] = spec["template"]["spec"]["containers"]
    assert {"name": "PATIENT_PROCESSES", "value": str(spec["replicas"])} in container["env"]


def test_only_the_preparing_container_mounts_the_superusers_password():
    mounting = [
        (deployment["metadata"]["name"], container["name"])
        for deployment in objects()
        if deployment["kind"] == "Deployment"
        for pod in [deployment["spec"]["template"]["spec"]]
        for volume in pod["volumes"]
        if volume.get("secret", {}).get("secretName") == "gowebbo-postgres-superuser"
        for container in (*pod.get("initContainers", ()), *pod["containers"])
        if volume["name"] in {mount["name"] for mount in container["volumeMounts"]}
    ]
    assert mounting == [("tenant-service", "prepare")]


def test_the_example_keeps_its_backups_on_a_volume():
    """Anything else in a container is gone with it, or can't be written to."""
    patch = yaml.safe_load((OVERLAY / "backups-volume.yaml").read_text())["spec"]["template"]["spec"]
    [mount], [volume] = patch["containers"][0]["volumeMounts"], patch["volumes"]
    assert mount["mountPath"] == variables_of(OVERLAY / "settings.env")["BACKUP_DIR"]
    [claim] = (one for one in objects() if one["kind"] == "PersistentVolumeClaim")
    assert volume["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
    assert mount["name"] == volume["name"]


def test_prometheus_may_reach_every_port_with_metrics():
    policies = {one["metadata"]["name"]: one["spec"] for one in objects() if one["kind"] == "NetworkPolicy"}
    [rule] = policies["prometheus-to-metrics"]["ingress"]
    opened = {port["port"] for port in rule["ports"]}
    shown = {
        port["containerPort"]
        for deployment in objects()
        if deployment["kind"] == "Deployment"
        for container in deployment["spec"]["template"]["spec"]["containers"]
        for port in container.get("ports", ())
    }
    assert shown - opened == {5000}, "the gateway's public port has no metrics"
    assert opened <= shown
