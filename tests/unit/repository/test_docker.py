"""What can be said of the files in docker/ without an engine; tests/live/test_docker.py runs their commands."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from configparser import ConfigParser
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml
from installations import constraint
from pydantic import SecretStr

from ml_backend import __version__
from ml_backend.cli.serve import GRACE_SECONDS
from ml_backend.demo.label_studio import LabelStudioHost
from ml_backend.label_studio.client import TESTED_RELEASE
from ml_backend.server import worker_process
from ml_backend.settings import Settings, environment_name

DOCKER = Path(__file__).resolve().parents[3] / "docker"
PAGE = (DOCKER.parent / "docs" / "docker.md").read_text()
SCALE_PAGE = (DOCKER.parent / "docs" / "scale.md").read_text()
DOCKERFILE = (DOCKER / "Dockerfile").read_text()
TEXT = (DOCKER / "compose.yaml").read_text()
SERVICES = yaml.safe_load(TEXT)["services"]
DRIVERS = {"12": 525, "13": 580}
"""The oldest driver for each CUDA."""


def laid_over(below: Any, above: Any, key: str = "") -> Any:
    """Merge as compose does: mappings by key; lists, but for commands, one after the other; else what is above."""
    if isinstance(below, dict) and isinstance(above, dict):
        return {**below, **{key: laid_over(below.get(key), value, key) for key, value in above.items()}}
    if isinstance(below, list) and isinstance(above, list) and key not in {"command", "test"}:
        return [*below, *(item for item in above if item not in below)]
    return below if above is None else above


def over(below: Any, *names: str) -> Any:
    """Lay compose files over each other."""
    for name in names:
        below = laid_over(below, yaml.safe_load((DOCKER / name).read_text()))
    return below


ON_GPU = over(yaml.safe_load(TEXT), "compose.gpu.yaml")
SCALE = over(yaml.safe_load(TEXT), "compose.scale.yaml")
SCALE_ON_GPU = over(SCALE, "compose.scale.gpu.yaml")
OURS = {name for name, service in SCALE["services"].items() if service["image"].startswith("nextmask:")}


def test_label_studio_runs_as_in_the_tests() -> None:
    host = LabelStudioHost(Path("label-studio"), Path(), 1, Path(), username="", password="", token="")
    tested, here = host.environment(), SERVICES["label-studio"]["environment"]
    filled_in = {name for name, value in here.items() if value.startswith("${")}
    assert filled_in == {f"LABEL_STUDIO_{name}" for name in ("USERNAME", "PASSWORD", "USER_TOKEN")} <= tested.keys()
    fixed = here.keys() - filled_in
    assert {name: here[name] for name in fixed} == {name: tested.get(name) for name in fixed}
    assert SERVICES["label-studio"]["image"].endswith(f":{TESTED_RELEASE}")


def test_on_a_gpu_only_the_gpu_differs() -> None:
    on_cpu, on_gpu = dict(SERVICES["nextmask"]), dict(ON_GPU["services"]["nextmask"])
    assert "args" not in on_cpu["build"]
    arguments = on_gpu["build"].pop("args")
    assert arguments.keys() == {"PYTORCH_INDEX"} < set(re.findall(r"^ARG (\w+)=", DOCKERFILE, flags=re.MULTILINE))
    assert on_gpu["environment"].pop("NEXTMASK_DEVICE") == "cuda"
    devices = on_gpu["deploy"]["resources"].pop("reservations")["devices"]
    assert devices[0]["capabilities"] == ["gpu"]
    assert {on_cpu.pop("image"), on_gpu.pop("image")} == {f"nextmask:{__version__}", f"nextmask:{__version__}-gpu"}
    assert on_cpu == on_gpu


def test_the_files_laid_over_each_other_are_valid(tmp_path: Path) -> None:
    in_docs = re.findall(r"^```yaml\n(.*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL)
    assert len(in_docs) == 1
    merged = tmp_path / "compose.yaml"
    merged.write_text(yaml.safe_dump(laid_over(ON_GPU, yaml.safe_load(in_docs[0]))))
    check = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(merged)]
    subprocess.run(check, check=True, capture_output=True, timeout=120)


def test_more_than_one_worker_is_valid_with_and_without_a_gpu(tmp_path: Path) -> None:
    files = []
    for number, merged in enumerate((SCALE, SCALE_ON_GPU)):
        files.append(tmp_path / f"{number}.yaml")
        files[-1].write_text(yaml.safe_dump(merged))
    check = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", *map(str, files)]
    subprocess.run(check, check=True, capture_output=True, timeout=120)


def test_all_that_runs_nextmask_or_ray_runs_one_image() -> None:
    services = SCALE["services"]
    assert {"nextmask", "worker", "bucket", "ray-head", "ray-node"} == OURS
    assert {services[name]["image"] for name in OURS} == {f"nextmask:{__version__}-scale"}
    assert [name for name, service in services.items() if "build" in service] == ["nextmask"]
    assert all(services[name]["pull_policy"] == "never" for name in OURS - {"nextmask"})
    arguments = services["nextmask"]["build"]["args"]
    assert arguments.keys() == set(re.findall(r"^ARG (\w+)=", DOCKERFILE, flags=re.MULTILINE))
    (default,) = re.findall(r"^ARG EXTRAS=(\S+)$", DOCKERFILE, flags=re.MULTILINE)
    assert arguments["EXTRAS"] == f"{default},ray"
    extras = ConfigParser(interpolation=None)
    extras.read(DOCKER.parent / "setup.cfg")
    assert set(arguments["EXTRAS"].split(",")) <= extras["options.extras_require"].keys()


@pytest.mark.parametrize("name", sorted(SCALE["services"].keys() - {"label-studio"}))
def test_services_of_many_have_no_rights_and_write_to_volumes_and_memory(name: str) -> None:
    service = SCALE["services"][name]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["read_only"]
    assert "/tmp" in service["tmpfs"]
    assert "ports" not in service or name == "nextmask"
    if name not in OURS or name == "bucket":
        return
    homes = [
        f"/home/{user}" for user in re.findall(r"useradd --create-home .* (\S+) \\$", DOCKERFILE, flags=re.MULTILINE)
    ]
    assert service["tmpfs"] == ["/tmp", *homes]
    assert [volume.rpartition(":")[2] for volume in service["volumes"]] == ["/data"]
    spilled = [word for word in service["command"] if word.startswith("--object-spilling-directory=")]
    assert spilled == (["--object-spilling-directory=/data"] if name.startswith("ray-") else [])


def test_workers_of_many_have_the_settings_of_the_server() -> None:
    """But for the port and the links of its pages."""
    server, worker = SCALE["services"]["nextmask"], SCALE["services"]["worker"]
    pages = {"NEXTMASK_HOST", "NEXTMASK_PORT", "NEXTMASK_LABEL_STUDIO_PUBLIC_URL"}
    assert {name: value for name, value in server["environment"].items() if name not in pages} == worker["environment"]
    assert set(server["secrets"]) == set(worker["secrets"])
    assert server["env_file"] == worker["env_file"]
    assert worker["deploy"] == {**server["deploy"], "replicas": 2}


def test_networks_of_many_keep_label_studio_from_ray_and_from_the_state() -> None:
    networks = {name: set(service.get("networks", ["default"])) for name, service in SCALE["services"].items()}
    assert {one: {name for name, found in networks.items() if one in found} for one in ("default", "state", "ray")} == {
        "default": {"label-studio", "nextmask", "worker", "ray-node"},
        "state": {"nextmask", "worker", "postgres", "minio", "bucket"},
        "ray": {"worker", "ray-head", "ray-node"},
    }


def test_each_service_of_many_is_told_where_the_others_are() -> None:
    services = SCALE["services"]
    for name in ("nextmask", "worker"):
        environment = services[name]["environment"]
        ray, state = urlsplit(environment["NEXTMASK_RAY_ADDRESS"]), urlsplit(environment["MODEL_DIR"])
        head = services[ray.hostname]["command"]
        assert f"--ray-client-server-port={ray.port}" in head
        assert state.netloc in services["bucket"]["command"][-1]
        assert urlsplit(environment["AWS_ENDPOINT_URL"]).hostname in services
        assert environment["NEXTMASK_BACKEND_URL"] == SERVICES["nextmask"]["environment"]["NEXTMASK_BACKEND_URL"]
        ours = {one for one in environment if not one.startswith(("AWS_", "RAY_"))}
        assert ours <= Settings.model_construct().environment().keys()
    (address,) = (word for word in services["ray-node"]["command"] if word.startswith("--address="))
    name, _, port = address.removeprefix("--address=").partition(":")
    assert f"--port={port}" in services[name]["command"]
    assert "--num-cpus=0" in services[name]["command"]


def test_secrets_of_many_are_files_and_each_is_given_to_somebody() -> None:
    given = {secret for service in SCALE["services"].values() for secret in service.get("secrets", ())}
    assert given == SCALE["secrets"].keys()
    assert {secret["file"] for secret in SCALE["secrets"].values()} == {f"secrets/{name}" for name in given}
    named = {
        value
        for service in SCALE["services"].values()
        for value in service.get("environment", {}).values()
        if value.startswith("/run/secrets/")
    }
    assert {Path(value).name for value in named} <= given


def test_variables_of_many_have_a_default() -> None:
    text = (DOCKER / "compose.scale.yaml").read_text() + (DOCKER / "compose.scale.gpu.yaml").read_text()
    assert all(":-" in variable for variable in re.findall(r"\$\{([^}]+)\}", text))


@pytest.mark.parametrize("name", sorted(OURS - {"bucket"}))
def test_it_stops_before_docker_kills_it(name: str) -> None:
    ours = worker_process.STOP_SECONDS + GRACE_SECONDS
    grace = SCALE["services"][name]["stop_grace_period"]
    assert grace.endswith("s")
    assert float(grace[:-1]) >= 2 * ours


def test_it_writes_to_its_volume_and_to_memory_only() -> None:
    service = SERVICES["nextmask"]
    homes = [
        f"/home/{user}" for user in re.findall(r"useradd --create-home .* (\S+) \\$", DOCKERFILE, flags=re.MULTILINE)
    ]
    folders = re.findall(r"^VOLUME (\S+)$", DOCKERFILE, flags=re.MULTILINE)
    assert service["read_only"]
    assert service["tmpfs"] == ["/tmp", *homes]
    assert [volume.partition(":")[2] for volume in service["volumes"]] == folders
    assert re.findall(r"MODEL_DIR=(\S+)", DOCKERFILE) == folders


def test_secrets_are_files_that_nextmask_reads_and_in_no_environment() -> None:
    secrets = yaml.safe_load(TEXT)["secrets"]
    fields = {environment_name(name): field for name, field in Settings.model_fields.items()}
    assert SERVICES["nextmask"]["secrets"] == list(secrets)
    assert all(fields[name].annotation is SecretStr for name in secrets)
    assert {secret["file"] for secret in secrets.values()} == {f"secrets/{name}" for name in secrets}
    assert not secrets.keys() & SERVICES["nextmask"]["environment"].keys()


def test_the_page_names_the_driver_for_the_cuda_that_is_installed() -> None:
    """NVIDIA: a program made with CUDA 13 runs with drivers of the series 580 and newer."""
    cuda = constraint("cuda-toolkit").partition(".")[0]
    assert f"CUDA {cuda}: {DRIVERS[cuda]} or newer" in PAGE


def test_the_base_image_is_pinned_by_its_digest() -> None:
    (base,) = re.findall(r"^FROM (\S+)$", DOCKERFILE, flags=re.MULTILINE)
    image = re.fullmatch(r"(python:3\.(?:11|12|13|14)\.\d+-slim-bookworm)@sha256:[0-9a-f]{64}", base)
    assert image
    assert f"docker buildx imagetools inspect {image[1]}\n" in PAGE


def test_the_steps_of_the_page_make_what_the_files_ask_for(tmp_path: Path) -> None:
    """The first block of the page, run in a copy of the folder, without its first line, which clones."""
    folder = Path(shutil.copytree(DOCKER, tmp_path / "docker", ignore=shutil.ignore_patterns("secrets", ".env")))
    steps = re.findall(r"^```bash\n(.*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL)[0]
    clone, _, rest = steps.partition("\n")
    assert clone.startswith("git clone")
    subprocess.run(["bash", "-ceu", rest], cwd=folder, check=True, timeout=60)
    many = re.findall(r"^```bash\n(for name in .*?)^```", SCALE_PAGE, flags=re.MULTILINE | re.DOTALL)[0]
    subprocess.run(["bash", "-ceu", many], cwd=folder, check=True, timeout=60)
    assert "\nCOMPOSE_FILE=compose.yaml:compose.scale.yaml\n" in (folder / ".env").read_text()
    for secret in SCALE["secrets"].values():
        assert (folder / secret["file"]).stat().st_mode & 0o004
    read = {name: (folder / "secrets" / name).read_text() for name in SCALE["secrets"]}
    assert urlsplit(read["NEXTMASK_DATABASE_URL"]).password == read["POSTGRES_PASSWORD"]
    credentials = ConfigParser(interpolation=None)
    credentials.read_string(read["AWS_CREDENTIALS"])
    assert credentials["default"]["aws_secret_access_key"] == read["MINIO_ROOT_PASSWORD"]
    assert re.fullmatch(r"[0-9a-f]{64}", read["RAY_TOKEN"])

    token = (folder / "secrets" / "LABEL_STUDIO_API_KEY").read_text().strip()
    assert re.fullmatch(r"[0-9a-f]{40}", token)
    assert f"\nLABEL_STUDIO_TOKEN={token}\n" in (folder / ".env").read_text()
    assert (folder / ".env").stat().st_mode & 0o077 == 0
    assert (folder / "secrets").stat().st_mode & 0o077 == 0
    for secret in yaml.safe_load(TEXT)["secrets"].values():
        assert (folder / secret["file"]).stat().st_mode & 0o004


def test_label_studio_can_reach_nextmask_by_a_dotted_name() -> None:
    (alias,) = SERVICES["nextmask"]["networks"]["default"]["aliases"]
    environment = SERVICES["nextmask"]["environment"]
    assert environment["NEXTMASK_BACKEND_URL"] == f"http://{alias}:{environment['NEXTMASK_PORT']}"
    assert "." in alias


def test_settings_of_nextmask_exist() -> None:
    known = Settings.model_construct().environment().keys()
    assert ON_GPU["services"]["nextmask"]["environment"].keys() <= known
    assert set(re.findall(r"\b(?:NEXTMASK_\w+|MODEL_DIR)(?==)", DOCKERFILE)) <= known


def test_the_example_of_the_environment_holds_all_that_must_be_set_and_no_secret() -> None:
    example = dict(re.findall(r"^([A-Z_]+)=(.*)$", (DOCKER / ".env.example").read_text(), flags=re.MULTILINE))
    assert set(re.findall(r"\$\{([A-Z_]+):[?-]", TEXT)) | {"COMPOSE_FILE"} == example.keys()
    assert all((DOCKER / name).exists() for name in example["COMPOSE_FILE"].split(":"))
    assert not any(value for name, value in example.items() if "PASS" in name or "TOKEN" in name)


# -- Kubernetes --------------------------------------------------------------------------------------------------------
MANIFESTS = list(yaml.safe_load_all((DOCKER.parent / "examples" / "kubernetes.yaml").read_text()))


def of_kind(kind: str) -> dict[str, Any]:
    return {one["metadata"]["name"]: one for one in MANIFESTS if one["kind"] == kind}


def containers() -> dict[str, dict[str, Any]]:
    specs = {name: one["spec"]["template"]["spec"] for name, one in of_kind("Deployment").items()}
    return {name: one for name, spec in specs.items() for one in spec["containers"]}


def test_kubernetes_runs_what_compose_runs() -> None:
    found = containers()
    assert found.keys() == {"nextmask", "worker", "ray-head", "ray-node"}
    for name, container in found.items():
        assert container["command"] == SCALE["services"][name]["command"]
        tag = SCALE["services"][name]["image"].partition("/")[2] or SCALE["services"][name]["image"]
        assert container["image"].endswith(f"/{tag}")


def test_what_kubernetes_sets_are_settings_and_secrets_that_compose_has() -> None:
    known = Settings.model_construct().environment().keys()
    configured = of_kind("ConfigMap")["nextmask"]["data"]
    secrets = of_kind("Secret")
    assert {name for name in configured if not name.startswith(("AWS_", "RAY_"))} <= known
    given = {name for one in secrets.values() for name in one["stringData"]}
    assert given == SCALE["secrets"].keys() - {"POSTGRES_PASSWORD", "MINIO_ROOT_PASSWORD"}
    for deployment in of_kind("Deployment").values():
        spec = deployment["spec"]["template"]["spec"]
        folders = {volume["name"]: volume["secret"]["secretName"] for volume in spec["volumes"] if "secret" in volume}
        for mount in spec["containers"][0]["volumeMounts"]:
            if mount["name"] in folders:
                assert folders[mount["name"]] in secrets
                assert mount["mountPath"].startswith("/run/")
        named = [one.get("value", "") for one in spec["containers"][0].get("env", [])]
        paths = [value for value in (*named, *configured.values()) if value.startswith("/run/")]
        assert {Path(path).name for path in paths} <= given


def test_ports_of_kubernetes_are_those_that_are_asked_for() -> None:
    configured, services = of_kind("ConfigMap")["nextmask"]["data"], of_kind("Service")
    for name, port in (("nextmask", urlsplit(configured["NEXTMASK_BACKEND_URL"]).port),
                       ("ray-head", urlsplit(configured["NEXTMASK_RAY_ADDRESS"]).port)):  # fmt: skip
        assert port in {one["port"] for one in services[name]["spec"]["ports"]}
        assert port in {one["containerPort"] for one in containers()[name]["ports"]}
    assert "." in str(urlsplit(configured["NEXTMASK_BACKEND_URL"]).hostname)


def test_pods_of_kubernetes_get_no_settings_from_services_and_have_no_rights() -> None:
    """A Service nextmask makes variables NEXTMASK_PORT and NEXTMASK_SERVICE_HOST, which nextmask refuses."""
    known, service = Settings.model_construct().environment().keys(), "NEXTMASK_SERVICE_HOST"
    assert "nextmask" in of_kind("Service")
    assert service not in known
    for name, deployment in of_kind("Deployment").items():
        spec = deployment["spec"]["template"]["spec"]
        assert spec["enableServiceLinks"] is False, name
        assert spec["automountServiceAccountToken"] is False, name
        assert spec["terminationGracePeriodSeconds"] == 30, name
        assert spec["securityContext"]["runAsNonRoot"], name
        assert str(spec["securityContext"]["runAsUser"]) in DOCKERFILE
        rights = spec["containers"][0]["securityContext"]
        assert rights["capabilities"] == {"drop": ["ALL"]}
        assert rights["readOnlyRootFilesystem"]
        mounts = {mount["mountPath"]: mount["name"] for mount in spec["containers"][0]["volumeMounts"]}
        assert {"/data", "/tmp", "/home/nextmask"} <= mounts.keys()
        assert set(mounts.values()) == {volume["name"] for volume in spec["volumes"]}
        assert deployment["spec"]["strategy"] == {"type": "Recreate"}
        assert deployment["spec"]["selector"]["matchLabels"] == deployment["spec"]["template"]["metadata"]["labels"]
