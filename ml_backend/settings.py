"""Settings of nextmask. No other module reads the environment.

Precedence, highest first: the project's `extra_params` in Label Studio, the environment, a `.env` file in the working
directory, files in `SECRETS`, the default. The descriptions of the fields are those of `docs/configuration.md`.
"""

from __future__ import annotations

import difflib
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from dotenv import dotenv_values
from pydantic import AliasChoices, Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from ml_backend.errors import ConfigurationError, first_few, shown
from ml_backend.images.hosts import ImageHosts
from strategies import catalogue

BUCKETS: Final = ("s3", "gs", "az")
"""How addresses of buckets begin: Amazon's and those like it, Google's, Azure's."""
AUTO: Final = "auto"
"""Leaves a value to what is best on the device."""
ALL_DEVICES: Final = "cuda:all"
"""Stands for all CUDA devices of a machine."""
_PREFIX = "NEXTMASK_"
_ENSEMBLED = " and ".join(entry.name for entry in catalogue.ENTRIES if entry.ensemble)
SECRETS = Path("/run/secrets")
"""Where containers find files with secrets, each named as its variable."""
_LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
RENAMED: Final[Mapping[str, str]] = {"held_out_share": "audit_share", "held_out_group": "audit_group"}
"""Settings of earlier releases that have another name now: both names of the field."""
RETIRED: Final[Mapping[str, str]] = {
    "held_out_minimum": "Remove it: a version is kept back where its interval says that it is worse.",
    "publish_tolerance": "Remove it: a version is kept back where its interval says that it is worse.",
    "training_minutes": "A training ends by itself: NEXTMASK_TRAINING_BUDGET says after how many minutes.",
    "picture_cache_bytes": "Remove it: the dashboard's pictures take 1 GB at most.",
    "queue_refill": "Remove it: the queue is filled up when half of NEXTMASK_QUEUE_WINDOW is left.",
    "stream_window": "Remove it: a new arrival is compared with the latest 256.",
    "patience": "Remove it: a training ends with NEXTMASK_TRAINING_BUDGET, and held-out labels choose no weights.",
}
"""Settings of earlier releases that are gone: name of the field -> what to do, a sentence."""


def _unprefixed(name: str) -> AliasChoices:
    """Let a field be set by a name without the prefix, as users of label-studio-ml know it."""
    return AliasChoices(name.lower(), name)


class Settings(BaseSettings):
    """All settings of a nextmask process, frozen. `load_settings` makes them."""

    model_config = SettingsConfigDict(
        env_prefix=_PREFIX, env_file=".env", extra="ignore", frozen=True, populate_by_name=True, env_ignore_empty=True
    )

    # -- names shared with label-studio-ml ---------------------------------------------------------------------------
    label_studio_url: str = Field(
        "http://localhost:8080",
        validation_alias=_unprefixed("LABEL_STUDIO_URL"),
        description="Address of Label Studio as nextmask reaches it.",
    )
    label_studio_api_key: SecretStr = Field(
        SecretStr(""),
        validation_alias=_unprefixed("LABEL_STUDIO_API_KEY"),
        description="Personal access token or legacy token of a Label Studio user who may edit the projects.",
    )
    basic_auth_user: str = Field(
        "",
        validation_alias=_unprefixed("BASIC_AUTH_USER"),
        description="User name that callers of nextmask must send. Empty: no authentication (loopback only).",
    )
    basic_auth_pass: SecretStr = Field(
        SecretStr(""), validation_alias=_unprefixed("BASIC_AUTH_PASS"), description="Password that belongs to it."
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        "INFO", validation_alias=_unprefixed("LOG_LEVEL"), description="Least severe messages that are logged."
    )
    log_format: Literal["text", "json"] = Field(
        "text", description="Form of the log's lines; json is for programs that collect logs."
    )
    model_dir: Path | str = Field(
        Path(".nextmask"),
        validation_alias=_unprefixed("MODEL_DIR"),
        description="Folder of all state: database, model versions, masks, cached images. Or a bucket for versions and "
        "masks: s3://, gs:// or az://, with name and prefix.",
    )

    # -- the server ---------------------------------------------------------------------------------------------------
    host: str = Field("127.0.0.1", description="Address that `nextmask serve` listens on.")
    port: int = Field(9090, ge=0, le=65535, description="Port that `nextmask serve` listens on.")
    backend_url: str = Field(
        "", description="Address of nextmask as Label Studio reaches it. Empty: http://HOST:PORT (a dotted host)."
    )
    label_studio_public_url: str = Field(
        "", description="Address of Label Studio in browsers, which links and tasks use. Empty: LABEL_STUDIO_URL."
    )
    webhook_secret: SecretStr = Field(
        SecretStr(""),
        description="Secret that Label Studio's webhooks carry. Empty: one is made and kept in MODEL_DIR.",
    )
    database_url: str = Field("", description="SQLAlchemy address of the state database. Empty: SQLite in MODEL_DIR.")
    ray_address: str = Field(
        "", description="Ray cluster for scoring and training: auto, HOST:PORT or ray://HOST:PORT. Empty: this machine."
    )
    max_request_bytes: int = Field(
        250_000_000, ge=100_000, description="Largest request that is read, in bytes (the host's own limit is 250 MB)."
    )
    predict_seconds: float = Field(
        80.0, gt=0, description="Time after which a /predict request answers what is left without masks (host: 100 s)."
    )

    # -- what is learned, and from what -------------------------------------------------------------------------------
    strategy: str = Field("auto", description="Acquisition strategy that orders the unlabelled tasks.")
    # Not decoded by pydantic-settings, which would merge the objects of several sources.
    strategy_options: Annotated[dict[str, Any], NoDecode] = Field(
        {}, description="Options of the strategy, as a JSON object."
    )
    prepare_minutes: float = Field(
        15.0, gt=0, description="Longest time that a strategy may train networks of its own before each ranking."
    )
    query_images: int = Field(
        0,
        ge=0,
        description="Images whose regions are planned together, and the area of all regions of a ranking, in images. "
        "0: NEXTMASK_TRAIN_AFTER.",
    )
    committee: Literal["auto", "mc_dropout", "ensemble"] = Field(
        "auto",
        description=f"Members that a method compares. auto: an ensemble for {_ENSEMBLED}, else mc_dropout.",
    )
    members: int = Field(
        0, ge=0, le=200, description="Members of the committee, at least 2. 0: 20 with mc_dropout, 4 in an ensemble."
    )
    scoring_memory: int = Field(
        1_000_000_000, ge=1_000_000, description="Bytes that scoring may take: batches are cut to fit."
    )
    architecture: str = Field(
        "auto",
        description="Architecture: one of segmentation_models_pytorch, or dcan, drn, fcn8s, segnet. auto: by device.",
    )
    encoder: str = Field("tu-tf_efficientnet_lite0", description="Encoder of the network.")
    encoder_weights: str = Field(
        "bundled", description="Initial encoder weights: bundled (offline), none, or a name that smp knows."
    )
    network_options: Annotated[dict[str, Any], NoDecode] = Field(
        {}, description="Options of the architecture, as a JSON object."
    )
    dropout: float = Field(0.1, ge=0, lt=1, description="Dropout before the segmentation head.")
    input_size: int = Field(384, ge=32, le=4096, description="Longest image side seen by the network, in pixels.")
    device: str = Field("auto", description="auto, cpu, cuda, cuda:N, or cuda:all: each of them trains a project.")
    train_after: int = Field(10, ge=1, description="New or changed labels that start a training.")
    train_from: Literal["last", "scratch"] = Field("last", description="Weights that a training starts from.")
    training_budget: float = Field(
        0.0, ge=0, le=10_000, description="Minutes that one training takes, at most. 0: 2 on a CPU, 5 on a GPU."
    )
    iterations: int = Field(
        0, ge=0, description="Optimiser steps of one training. 0: as many as fit into NEXTMASK_TRAINING_BUDGET."
    )
    batch_size: int = Field(
        0, ge=0, le=1024, description="Images per optimiser step and per forward pass. 0: by the device, 8 per pass."
    )
    learning_rate: float = Field(0.0, ge=0, le=1, description="Peak learning rate of the decoder. 0: by the device.")
    train_encoder: bool | Literal["auto"] = Field(
        "auto",
        description="Whether the encoder learns. auto: on a GPU, where its weights are none, and where a trial found "
        "it better. Otherwise its maps of an image are computed once.",
    )
    seed: int = Field(0, ge=0, description="Seed of training and of random choices.")
    unpainted: Literal["background", "ignore"] = Field(
        "background", description="What a pixel without a region means: the class background, or not labelled."
    )
    cost_measure: Literal["clicks", "seconds"] = Field(
        "clicks", description="What effort is counted in, for methods that look at cost: clicks, or the lead time."
    )
    several_annotations: Literal["newest", "ground_truth", "majority"] = Field(
        "ground_truth", description="Which of several annotations count; majority: the newest of each annotator vote."
    )
    audit_share: float = Field(
        0.125,
        ge=0,
        le=0.9,
        description="Share of images that measure: drawn at random, never ranked, labelled without a mask. 0: none.",
    )
    audit_points: int = Field(
        30,
        ge=0,
        le=1000,
        description="Points of an audit image, drawn at random, where a project asks for points. 0: its whole mask.",
    )
    audit_group: str = Field(
        "", description="Key in the task's data (video, patient) whose tasks measure together. Empty: the image."
    )

    unchanged_share: float = Field(
        0.5,
        ge=0,
        le=1,
        description="Share of labels submitted as the predicted mask above which to warn. 1: never.",
    )

    sam: str = Field(
        "",
        description="SAM 2 that answers the smart tools: a checkpoint, or a folder (docs/smart-tools.md). Empty: the "
        "project's own network does.",
    )

    # -- the queue ----------------------------------------------------------------------------------------------------
    queue_window: int = Field(200, ge=1, le=5000, description="Best-ranked tasks kept in Label Studio with masks.")
    pool_sample: int = Field(
        0, ge=0, description="Most tasks scored per ranking. 0: as many as fit into the time that training took."
    )
    stream_rate: float = Field(
        0, ge=0, le=1, description="Share of the arriving tasks to keep; the others are passed over. 0: all are kept."
    )
    retire_hours: float = Field(
        26.0,
        ge=24,
        description="Hours before an old version's predictions are deleted; above the host's task lock (24 h).",
    )
    keep_versions: int = Field(
        20,
        ge=0,
        description="Newest model versions kept on disk; those that serve, or were best, stay as well. 0: all.",
    )
    minimum_area: int = Field(16, ge=0, description="Predicted specks smaller than this many pixels are dropped.")
    polygon_tolerance: float = Field(1.0, ge=0, le=50, description="Simplification of predicted polygons, in pixels.")
    query_control: str = Field("query", description="RectangleLabels control that holds query regions.")
    point_guesses: bool = Field(
        True, description="Whether points open as the class that the network guesses. false: as rings, without it."
    )

    # -- the worker ---------------------------------------------------------------------------------------------------
    reconcile_seconds: float = Field(60.0, gt=0, description="Interval of the timer that heals lost webhooks.")
    lease_seconds: float = Field(30.0, ge=2, description="Time after which a dead worker's project is taken over.")

    # -- operations ---------------------------------------------------------------------------------------------------
    minimum_free_bytes: int = Field(
        1_000_000_000,
        ge=0,
        description="Free bytes in MODEL_DIR under which /ready answers that nextmask is not ready.",
    )

    # -- images -------------------------------------------------------------------------------------------------------
    image_cache_bytes: int = Field(
        10_000_000_000,
        ge=1_000_000,
        description="Bytes of images kept on disk, a quarter of them for what encoders made of images, and beside a "
        "bucket a quarter for its files.",
    )
    max_image_bytes: int = Field(500_000_000, ge=1_000, description="Largest image file accepted, in bytes.")
    max_pixels: int = Field(200_000_000, ge=1_000, description="Largest image accepted, in pixels.")
    image_hosts: str = Field(
        "public", description="Hosts besides Label Studio that images may be fetched from, with commas between."
    )
    image_seconds: float = Field(120.0, gt=0, description="Time after which an image that has not come is given up.")
    request_timeout: float = Field(30.0, gt=0, description="Seconds to wait for an answer of Label Studio.")

    @field_validator("label_studio_url", "label_studio_public_url", "backend_url")
    @classmethod
    def _is_http(cls, value: str) -> str:
        if value and not value.startswith(("http://", "https://")):
            raise ValueError("must start with http:// or https://")
        return value.rstrip("/")

    @field_validator("image_hosts")
    @classmethod
    def _is_list_of_hosts(cls, value: str) -> str:
        return ImageHosts.parse(value).text

    @field_validator("strategy_options", "network_options", mode="before")
    @classmethod
    def _decoded(cls, value: object) -> object:
        try:
            return json.loads(value) if isinstance(value, str) else value
        except (ValueError, RecursionError):
            raise ValueError('must be a JSON object, such as {"name": 3}') from None

    @field_validator("members")
    @classmethod
    def _is_committee(cls, value: int) -> int:
        if value == 1:
            raise ValueError("must be at least 2: a single member has nobody to disagree with; 0 for the default")
        return value

    @field_validator("model_dir", mode="before")
    @classmethod
    def _is_place(cls, value: object) -> Path | str:
        text = str(value)
        if "://" not in text:
            return Path(text).expanduser().absolute()
        scheme, _, rest = text.partition("://")
        if scheme not in BUCKETS:
            known = ", ".join(f"{name}://" for name in BUCKETS)
            raise ValueError(f"must be a folder, or a bucket whose address begins with one of {known}")
        if not rest.strip("/"):
            raise ValueError(f"must name a bucket, such as {scheme}://bucket/nextmask")
        return f"{scheme}://{rest.strip('/')}"

    @field_validator("sam")
    @classmethod
    def _is_absolute(cls, value: str) -> str:
        return str(Path(value).expanduser().absolute()) if value else ""

    @property
    def effective_backend_url(self) -> str:
        """Address of nextmask that is registered in Label Studio."""
        host = "127.0.0.1" if self.host in {"0.0.0.0", "localhost", "::"} else self.host  # noqa: S104 (compared, not bound)
        return self.backend_url or f"http://{host}:{self.port}"

    @property
    def effective_label_studio_public_url(self) -> str:
        """Address of Label Studio in links."""
        return self.label_studio_public_url or self.label_studio_url

    @property
    def local_folder(self) -> Path:
        """Folder of what stays on this machine: MODEL_DIR, or beside a bucket the folder that is its default."""
        return self.model_dir if isinstance(self.model_dir, Path) else Path(".nextmask").absolute()

    @property
    def effective_database_url(self) -> str:
        """SQLAlchemy address of the state database."""
        return self.database_url or f"sqlite:///{self.local_folder / 'nextmask.sqlite3'}"

    @property
    def effective_batch_size(self) -> int:
        """Images per forward pass, with 0 resolved."""
        return self.batch_size or 8

    @property
    def maps_folder(self) -> Path:
        """Folder of what encoders that are not trained made of images."""
        return self.local_folder / "encoder_maps"

    @property
    def maps_bytes(self) -> int:
        """Most bytes in that folder."""
        return self.image_cache_bytes // 4

    @property
    def files_bytes(self) -> int:
        """Most bytes that are kept here of a bucket's files; 0 without one."""
        return 0 if isinstance(self.model_dir, Path) else self.image_cache_bytes // 4

    @property
    def effective_committee(self) -> Literal["mc_dropout", "ensemble"]:
        """Kind of the committee, with `auto` resolved for the strategy."""
        if self.committee != "auto":
            return self.committee
        return "ensemble" if catalogue.described(self.strategy).ensemble else "mc_dropout"

    @property
    def effective_members(self) -> int:
        """Number of members of the committee, with 0 resolved for its kind."""
        return self.members or (4 if self.effective_committee == "ensemble" else 20)

    def check_serving(self) -> None:
        """Check that only callers with a password, or of this machine, can use the server.

        Raises:
            ConfigurationError: the server would be open to the network, or only half of user and password is set.
        """
        if self.host not in _LOOPBACK and not self.basic_auth_user:
            raise ConfigurationError(
                f"NEXTMASK_HOST = {self.host!r} is open to the network: set BASIC_AUTH_USER and BASIC_AUTH_PASS."
            )
        if bool(self.basic_auth_user) != bool(self.basic_auth_pass.get_secret_value()):
            raise ConfigurationError(
                "BASIC_AUTH_USER and BASIC_AUTH_PASS belong together:"
                " set both, or neither to let every local caller in."
            )

    def for_project(self, extra_params: Mapping[str, Any] | str | None) -> Settings:
        """Return these settings with those of a project's `extra_params` in their place.

        Args:
            extra_params: the object (or its JSON text) entered in Label Studio's model settings. Keys are field
                names, with or without the `NEXTMASK_` prefix, in any case.

        Raises:
            ConfigurationError: a key is unknown or may not differ between projects, or a value is invalid.
        """
        overrides = {_project_field(key): value for key, value in _as_object(extra_params).items()}
        if not overrides:
            return self
        merged = {name: getattr(self, name) for name in type(self).model_fields} | overrides
        return _build(merged, origin="extra_params of the project", env=False)

    def for_project_of_earlier_release(self, extra_params: str) -> Settings:
        """Return what `for_project` does of settings that an earlier release found good; what is gone is left out."""
        given = {key.lower().removeprefix(_PREFIX.lower()): value for key, value in _as_object(extra_params).items()}
        return self.for_project({RENAMED.get(key, key): given[key] for key in given if key not in RETIRED})

    def environment(self) -> dict[str, str]:
        """Return environment variables that rebuild these settings in a child process, secrets included."""
        return {environment_name(name): _as_text(getattr(self, name)) for name in type(self).model_fields}


_INSTALLATION_FIELDS = frozenset(
    {"label_studio_url", "label_studio_api_key", "basic_auth_user", "basic_auth_pass", "log_level", "model_dir"}
    | {"host", "port", "backend_url", "webhook_secret", "database_url", "predict_seconds", "reconcile_seconds"}
    | {"lease_seconds", "image_cache_bytes", "max_image_bytes", "max_pixels", "request_timeout", "device"}
    | {"scoring_memory", "max_request_bytes", "sam", "label_studio_public_url"}
    | {"image_hosts", "image_seconds"}
    | {"minimum_free_bytes", "log_format", "ray_address"}
)
PROJECT_FIELDS = frozenset(Settings.model_fields) - _INSTALLATION_FIELDS
"""Settings that a project may override; the others belong to the installation."""


def load_settings(**overrides: Any) -> Settings:
    """Read the environment and `.env`.

    Args:
        overrides: field -> value, which takes precedence; None: not given.

    Raises:
        ConfigurationError: a `NEXTMASK_` name is unknown, or a value is invalid.
    """
    _refuse_unknown([*_names_in_files(), *os.environ])
    return _build({key: value for key, value in overrides.items() if value is not None}, origin="environment", env=True)


def inspect_environment(**overrides: Any) -> tuple[Settings, list[str]]:
    """Read the environment as `load_settings` does, and collect the problems that it would raise.

    Args:
        overrides: see `load_settings`.

    Returns:
        The settings, with defaults in place of invalid values, and the problems.
    """
    complaints = _unknown([*_names_in_files(), *os.environ])
    given = {key: value for key, value in overrides.items() if value is not None}
    refused: dict[str, Any] = {}
    while True:
        try:
            return Settings(**{**given, **refused, **_sources()}), complaints
        except ValidationError as error:
            # The default is given as an argument, which wins over the environment.
            names = {_field_name(str(item["loc"][0])) for item in error.errors(include_url=False)} - refused.keys()
            if not names:
                raise ConfigurationError(_explain(error, "environment")) from None
            complaints.append(_explain(error, "environment"))
            refused |= {name: Settings.model_fields[name].get_default(call_default_factory=True) for name in names}


def _names_in_files() -> list[str]:
    try:
        names = list(dotenv_values(".env"))
    except ValueError as error:
        raise ConfigurationError(f"The .env file in {Path.cwd()} is not UTF-8 text: {error}.") from None
    return [*names, *_names_of_secrets()]


def _names_of_secrets() -> list[str]:
    """Return the names of the files in `SECRETS` that are settings; refuse those that are no text."""
    known = {environment_name(name) for name in Settings.model_fields}
    found = SECRETS.iterdir() if _sources() else ()
    names = [file.name for file in found if file.name.upper() in known or file.name.upper().startswith(_PREFIX)]
    for name in names:
        try:
            (SECRETS / name).read_text(encoding="utf-8")
        except OSError as error:
            raise ConfigurationError(
                f"The secret {SECRETS / name} cannot be read: {error.strerror}. The user that nextmask runs as "
                f"({os.getuid()}) has to be allowed to read it."
            ) from None
        except ValueError:
            raise ConfigurationError(f"The secret {SECRETS / name} is not UTF-8 text.") from None
    return names


def _sources() -> dict[str, Any]:
    """Return what pydantic-settings is told about files with secrets; it complains about a folder that is not there."""
    return {"_secrets_dir": SECRETS} if os.access(SECRETS, os.R_OK | os.X_OK) else {}


def params_text(extra_params: Any) -> str:
    """Return `extra_params` as text, whether Label Studio sends an object, its JSON text, or nothing.

    Raises:
        ConfigurationError: the object is nested too deep.
    """
    if isinstance(extra_params, str) or not extra_params:
        # JSON may hold halves of surrogate pairs, which no database takes.
        return str(extra_params or "").encode("utf-8", "replace").decode()
    try:
        return json.dumps(extra_params, sort_keys=True)
    except RecursionError:
        raise ConfigurationError(f"extra_params of the project is nested too deep: {shown(extra_params)}.") from None


def _refuse_unknown(keys: Iterable[str]) -> None:
    for complaint in _unknown(keys):
        raise ConfigurationError(complaint)


def _unknown(keys: Iterable[str]) -> list[str]:
    """Return a problem for each name that begins with NEXTMASK_ and is no setting, with a similar valid name."""
    known, problems = {environment_name(name) for name in Settings.model_fields}, []
    for key in dict.fromkeys(keys):
        if key.upper().startswith(_PREFIX) and key.upper() not in known:
            hint = difflib.get_close_matches(key.upper(), known, n=1)
            remedy = f"Did you mean {hint[0]}?" if hint else "docs/configuration.md lists the valid names."
            remedy = _of_earlier_release(key) or remedy
            problems.append(f"Unknown setting {shown(key)[1:-1]} in the environment or .env file. {remedy}")
    return problems


def _of_earlier_release(key: str) -> str:
    """Say what takes the place of a setting of an earlier release; empty for other names."""
    name = key.lower().removeprefix(_PREFIX.lower())
    return f"It is called {environment_name(RENAMED[name])} now." if name in RENAMED else RETIRED.get(name, "")


def _build(values: dict[str, Any], *, origin: str, env: bool) -> Settings:
    try:
        return Settings(**values, **_sources()) if env else Settings.model_validate(values)
    except ValidationError as error:
        raise ConfigurationError(_explain(error, origin)) from None


def _explain(error: ValidationError, origin: str) -> str:
    parts = []
    for item in error.errors(include_url=False):
        name = str(item["loc"][0])
        secret = "api_key" in name or "pass" in name or "secret" in name
        value = "(hidden)" if secret else shown(item["input"])
        parts.append(f"{environment_name(name.lower())} = {value}: {item['msg']}")
    return f"Invalid setting in the {origin}: " + "; ".join(first_few(parts))


def environment_name(field: str) -> str:
    """Return the environment variable that a setting is read from."""
    info = Settings.model_fields.get(field)
    if info is not None and isinstance(info.validation_alias, AliasChoices):
        return str(info.validation_alias.choices[1])
    return field.upper() if info is None and not field.startswith(_PREFIX.lower()) else f"{_PREFIX}{field.upper()}"


def _field_name(location: str) -> str:
    """Return the field of a location in a validation error, which may be a name in the environment."""
    lower = location.lower()
    return lower if lower in Settings.model_fields else lower.removeprefix(_PREFIX.lower())


def _as_text(value: object) -> str:
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    return json.dumps(value) if isinstance(value, dict) else str(value)


def _as_object(extra_params: object) -> dict[str, Any]:
    if not extra_params:
        return {}
    if isinstance(extra_params, str):
        text = extra_params
        try:
            extra_params = json.loads(text)
        except (ValueError, RecursionError):
            raise ConfigurationError(
                f"extra_params of the project is not JSON: {shown(text)}. Write an object such as "
                '{"strategy": "entropy"}.'
            ) from None
    if not isinstance(extra_params, dict):
        raise ConfigurationError(f"extra_params of the project must be a JSON object, not {shown(extra_params)}.")
    return extra_params


def _project_field(key: str) -> str:
    name = key.lower().removeprefix(_PREFIX.lower())
    if remedy := _of_earlier_release(name):
        raise ConfigurationError(f"extra_params of the project has {shown(key)}, of an earlier release. {remedy}")
    if name not in PROJECT_FIELDS:
        valid = ", ".join(sorted(PROJECT_FIELDS))
        raise ConfigurationError(f"extra_params of the project has {shown(key)}, which is not one of: {valid}.")
    return name
