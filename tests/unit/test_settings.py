"""Settings: where a value comes from, what is refused and in which words, and that secrets stay secret."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import ml_backend.settings as settings_module
from ml_backend.errors import ConfigurationError
from ml_backend.settings import PROJECT_FIELDS, Settings, load_settings, params_text

TOKEN = "5ecret" * 6 + "5ec7"
SetEnvironment = Callable[..., None]


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory without a .env file."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> SetEnvironment:
    def set_all(**values: str) -> None:
        for name, value in values.items():
            monkeypatch.setenv(name, value)

    return set_all


def dotenv(*lines: str) -> None:
    Path(".env").write_text("\n".join(lines), encoding="utf-8")


def test_the_order_is_project_then_environment_then_file_then_default(environment: SetEnvironment) -> None:
    dotenv("NEXTMASK_TRAIN_AFTER=21", "NEXTMASK_SEED=22", "NEXTMASK_ITERATIONS=23")
    environment(NEXTMASK_TRAIN_AFTER="31", NEXTMASK_SEED="32")
    settings = load_settings().for_project({"train_after": 41})
    assert (settings.train_after, settings.seed, settings.iterations, settings.queue_window) == (41, 32, 23, 200)


@pytest.fixture
def secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder in which Docker and Kubernetes put files with secrets."""
    folder = tmp_path / "run" / "secrets"
    folder.mkdir(parents=True)
    monkeypatch.setattr(settings_module, "SECRETS", folder)
    return folder


def test_secrets_are_read_from_files_named_as_the_variables(secrets: Path, environment: SetEnvironment) -> None:
    (secrets / "LABEL_STUDIO_API_KEY").write_text(TOKEN + "\n")
    (secrets / "BASIC_AUTH_PASS").write_text("of the file")
    (secrets / "NEXTMASK_WEBHOOK_SECRET").write_text("hook")
    (secrets / "of-another-program").write_bytes(b"\xff")
    environment(BASIC_AUTH_PASS="of the environment", BASIC_AUTH_USER="me")
    settings = load_settings()
    assert settings.label_studio_api_key.get_secret_value() == TOKEN
    assert settings.webhook_secret.get_secret_value() == "hook"
    assert settings.basic_auth_pass.get_secret_value() == "of the environment"


def test_a_secret_that_cannot_be_used_is_named_and_not_shown(secrets: Path) -> None:
    file = secrets / "LABEL_STUDIO_API_KEY"
    file.write_bytes(b"5ecret\xff")
    with pytest.raises(ConfigurationError, match=f"{file} is not UTF-8 text") as raised:
        load_settings()
    assert "5ecret" not in str(raised.value)

    file.unlink()
    file.mkdir()  # what Docker makes of a file that is not there
    with pytest.raises(ConfigurationError, match=f"{file} cannot be read"):
        load_settings()

    file.rmdir()
    (secrets / "NEXTMASK_WEBHOOK_SECRETS").touch()
    with pytest.raises(ConfigurationError, match="Did you mean NEXTMASK_WEBHOOK_SECRET"):
        load_settings()


def test_arguments_win_over_the_environment_unless_none(environment: SetEnvironment) -> None:
    environment(NEXTMASK_HOST="127.0.0.2", NEXTMASK_PORT="1234")
    settings = load_settings(host="127.0.0.3", port=None)
    assert (settings.host, settings.port) == ("127.0.0.3", 1234)


@pytest.mark.parametrize("name", ["NEXTMASK_STRATEGY", "nextmask_strategy"])
def test_names_are_read_in_any_case(environment: SetEnvironment, name: str) -> None:
    environment(**{name: "margin"})
    assert load_settings().strategy == "margin"


def test_names_of_label_studio_ml_have_no_prefix(environment: SetEnvironment) -> None:
    environment(LABEL_STUDIO_URL="http://studio.example:8080/", LABEL_STUDIO_API_KEY=TOKEN, LOG_LEVEL="DEBUG")
    environment(BASIC_AUTH_USER="me", BASIC_AUTH_PASS="word", MODEL_DIR="state")
    settings = load_settings()
    assert settings.label_studio_url == "http://studio.example:8080"  # without the slash
    assert settings.label_studio_api_key.get_secret_value() == TOKEN
    assert (settings.basic_auth_user, settings.basic_auth_pass.get_secret_value()) == ("me", "word")
    assert (settings.log_level, settings.model_dir) == ("DEBUG", Path.cwd() / "state")


def test_an_empty_variable_counts_as_not_set(environment: SetEnvironment) -> None:
    dotenv("NEXTMASK_SEED=7")
    environment(NEXTMASK_SEED="", NEXTMASK_ITERATIONS="")
    assert (load_settings().seed, load_settings().iterations) == (7, 0)


def test_settings_are_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        load_settings().seed = 3  # type: ignore[misc]


# -- what is refused -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("name", "value", "range_"),
    [
        ("NEXTMASK_INPUT_SIZE", "8", "greater than or equal to 32"),
        ("NEXTMASK_INPUT_SIZE", "big", "valid integer"),
        ("NEXTMASK_PORT", "70000", "less than or equal to 65535"),
        ("NEXTMASK_DROPOUT", "1", "less than 1"),
        ("NEXTMASK_RETIRE_HOURS", "1", "greater than or equal to 24"),
        ("NEXTMASK_UNPAINTED", "void", "'background' or 'ignore'"),
        ("NEXTMASK_TRAIN_FROM", "first", "'last' or 'scratch'"),
        ("NEXTMASK_BACKEND_URL", "nextmask.local:9090", "must start with http:// or https://"),
        ("NEXTMASK_STRATEGY_OPTIONS", "fast", "JSON"),
        ("NEXTMASK_STRATEGY_OPTIONS", "[1]", "dictionary"),
        ("LABEL_STUDIO_URL", "localhost", "must start with http:// or https://"),
        ("LOG_LEVEL", "LOUD", "'DEBUG', 'INFO', 'WARNING' or 'ERROR'"),
    ],
)
def test_an_invalid_value_is_named_with_its_key_and_the_range(
    environment: SetEnvironment, name: str, value: str, range_: str
) -> None:
    environment(**{name: value})
    with pytest.raises(ConfigurationError) as raised:
        load_settings()
    message = str(raised.value)
    assert name in message
    assert value in message
    assert range_ in message


def test_all_invalid_values_are_named_at_once(environment: SetEnvironment) -> None:
    environment(NEXTMASK_SEED="-1", NEXTMASK_TRAIN_AFTER="0")
    with pytest.raises(ConfigurationError, match=r"NEXTMASK_TRAIN_AFTER = '0'.*NEXTMASK_SEED = '-1'|SEED.*TRAIN_AFTER"):
        load_settings()


def test_an_unknown_name_is_refused_with_a_hint(environment: SetEnvironment) -> None:
    environment(NEXTMASK_TRAIN_AFTR="3")
    with pytest.raises(ConfigurationError, match=r"NEXTMASK_TRAIN_AFTR.*Did you mean NEXTMASK_TRAIN_AFTER\?"):
        load_settings()


def test_an_unknown_name_in_the_file_is_refused() -> None:
    dotenv("NEXTMASK_HOW_MUCH_WOOD_WOULD_A_WOODCHUCK=green")
    with pytest.raises(ConfigurationError, match=r"NEXTMASK_HOW_MUCH_WOOD_WOULD_A_WOODCHUCK.*docs/configuration.md"):
        load_settings()


def test_a_name_of_an_earlier_release_is_refused_with_the_one_of_now(environment: SetEnvironment) -> None:
    environment(NEXTMASK_HELD_OUT_SHARE="0.1")
    with pytest.raises(ConfigurationError, match=r"HELD_OUT_SHARE.*It is called NEXTMASK_AUDIT_SHARE now\."):
        load_settings()


def test_other_programs_variables_are_left_alone(environment: SetEnvironment) -> None:
    environment(LABEL_STUDIO_HOST="http://elsewhere", PORT="80", HOST="10.0.0.1", STRATEGY="x", SEED="9")
    settings = load_settings()
    assert (settings.port, settings.host, settings.strategy, settings.seed) == (9090, "127.0.0.1", "auto", 0)


# -- a project's own settings ----------------------------------------------------------------------------------------
@pytest.mark.parametrize("nothing", [None, "", {}, "{}"])
def test_no_extra_params_change_nothing(nothing: Any) -> None:
    settings = load_settings()
    assert settings.for_project(nothing) == settings


@pytest.mark.parametrize("key", ["queue_window", "QUEUE_WINDOW", "NEXTMASK_QUEUE_WINDOW", "nextmask_queue_window"])
def test_keys_of_extra_params_in_any_spelling(key: str) -> None:
    assert load_settings().for_project({key: 33}).queue_window == 33
    assert load_settings().for_project(json.dumps({key: "33"})).queue_window == 33


def test_a_project_keeps_what_it_does_not_override(environment: SetEnvironment) -> None:
    environment(LABEL_STUDIO_API_KEY=TOKEN, NEXTMASK_ENCODER="resnet18")
    settings = load_settings(host="127.0.0.9", model_dir=Path("elsewhere")).for_project({"seed": 5})
    assert settings.label_studio_api_key.get_secret_value() == TOKEN
    assert (settings.encoder, settings.host, settings.seed) == ("resnet18", "127.0.0.9", 5)
    assert settings.model_dir == Path.cwd() / "elsewhere"


def test_a_projects_network_options_replace_those_of_the_installation(environment: SetEnvironment) -> None:
    environment(NEXTMASK_NETWORK_OPTIONS='{"width": 0.25}')
    assert load_settings().network_options == {"width": 0.25}
    assert load_settings().for_project({"network_options": {"upsampling": 4}}).network_options == {"upsampling": 4}
    assert load_settings().for_project({"network_options": '{"upsampling": 4}'}).network_options == {"upsampling": 4}
    assert load_settings().for_project({"seed": 1}).network_options == {"width": 0.25}
    environment(NEXTMASK_NETWORK_OPTIONS="width=0.25")
    with pytest.raises(ConfigurationError, match=r"NEXTMASK_NETWORK_OPTIONS = 'width=0.25': .*must be a JSON object"):
        load_settings()


def test_a_projects_strategy_options_replace_those_of_the_installation(environment: SetEnvironment) -> None:
    # Options of one strategy mean nothing to another: they must not be mixed.
    environment(NEXTMASK_STRATEGY="one", NEXTMASK_STRATEGY_OPTIONS='{"neighbours": 5}')
    project = load_settings().for_project({"strategy": "other", "strategy_options": {"temperature": 2}})
    assert project.strategy_options == {"temperature": 2}
    assert load_settings().for_project({"strategy": "other", "strategy_options": {}}).strategy_options == {}


@pytest.mark.parametrize(
    ("extra_params", "words"),
    [
        ("{'strategy': 1}", "not JSON"),
        ("[1, 2]", "must be a JSON object"),
        ("7", "must be a JSON object"),
        ({"strategie": "x"}, "'strategie', which is not one of: "),
        ({"port": 80}, "'port', which is not one of: "),
        ({"label_studio_api_key": TOKEN}, "label_studio_api_key"),
        ({"queue_window": 0}, "NEXTMASK_QUEUE_WINDOW = 0: Input should be greater than or equal to 1"),
        ({"input_size": None}, "NEXTMASK_INPUT_SIZE = None"),
    ],
)
def test_bad_extra_params_are_refused(extra_params: Any, words: str) -> None:
    with pytest.raises(ConfigurationError, match="extra_params of the project") as raised:
        load_settings().for_project(extra_params)
    assert words in str(raised.value)
    assert TOKEN not in str(raised.value)


def test_a_key_of_an_earlier_release_is_refused_with_the_one_of_now() -> None:
    with pytest.raises(ConfigurationError, match=r"'Held_Out_Group', .* It is called NEXTMASK_AUDIT_GROUP now\."):
        load_settings().for_project({"Held_Out_Group": "patient"})


def test_settings_that_an_earlier_release_found_good_can_stand_in() -> None:
    settings = load_settings().for_project_of_earlier_release('{"NEXTMASK_HELD_OUT_SHARE": 0.5, "seed": 3}')
    assert (settings.audit_share, settings.seed) == (0.5, 3)


def test_what_belongs_to_the_installation_is_not_the_projects() -> None:
    assert {"strategy", "train_after", "input_size", "unpainted", "queue_window"} <= PROJECT_FIELDS
    assert not {"model_dir", "host", "port", "webhook_secret", "database_url", "device"} & PROJECT_FIELDS


@pytest.mark.parametrize(
    ("sent", "text"),
    [(None, ""), ("", ""), ({}, ""), ({"b": 1, "a": 2}, '{"a": 2, "b": 1}'), ('{"b": 1}', '{"b": 1}')],
)
def test_extra_params_have_one_text_however_they_come(sent: Any, text: str) -> None:
    assert params_text(sent) == text


# -- child processes -------------------------------------------------------------------------------------------------
def test_the_environment_rebuilds_the_settings(environment: SetEnvironment, monkeypatch: pytest.MonkeyPatch) -> None:
    environment(NEXTMASK_SEED="99")
    settings = load_settings(
        label_studio_api_key=TOKEN,
        basic_auth_user="me",
        basic_auth_pass="wörd with spaces, and = signs",
        webhook_secret="hidden",
        strategy_options={"k": [1, 2], "name": "ä"},
        network_options={"width": 0.25},
        model_dir=Path("somewhere/else"),
        learning_rate=3e-4,
        unpainted="ignore",
    )
    monkeypatch.delenv("NEXTMASK_SEED")
    for name, value in settings.environment().items():
        monkeypatch.setenv(name, value)
    assert load_settings() == settings
    assert load_settings().seed == 99


def test_every_setting_travels_under_its_own_name() -> None:
    names = load_settings().environment()
    assert len(names) == len(Settings.model_fields)
    assert {"LABEL_STUDIO_URL", "MODEL_DIR", "NEXTMASK_HOST", "NEXTMASK_STRATEGY"} <= names.keys()
    assert all(value == "" or name.isupper() for name, value in names.items())


# -- secrets ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", ["label_studio_api_key", "basic_auth_pass", "webhook_secret"])
def test_secrets_are_never_shown(name: str) -> None:
    settings = load_settings(**{name: TOKEN}).for_project({"seed": 1})
    assert TOKEN not in repr(settings)
    assert TOKEN not in str(settings)
    assert TOKEN not in f"{settings.model_dump()}"
    with pytest.raises(ConfigurationError) as raised:
        load_settings(**{name: [TOKEN]})
    assert TOKEN not in str(raised.value)
    assert "(hidden)" in str(raised.value)


# -- derived addresses -----------------------------------------------------------------------------------------------
@pytest.mark.parametrize("host", ["0.0.0.0", "localhost", "::", "127.0.0.1"])
def test_the_backends_address_has_a_dotted_host(host: str) -> None:
    assert load_settings(host=host, port=7000).effective_backend_url == "http://127.0.0.1:7000"


def test_a_given_backend_address_stands() -> None:
    settings = load_settings(backend_url="https://nextmask.local/ml/", host="0.0.0.0")
    assert settings.effective_backend_url == "https://nextmask.local/ml"


def test_the_database_is_in_the_state_folder_unless_given(tmp_path: Path) -> None:
    assert load_settings(model_dir=tmp_path).effective_database_url == f"sqlite:///{tmp_path}/nextmask.sqlite3"
    given = "postgresql+psycopg://db.example/nextmask"
    assert load_settings(database_url=given).effective_database_url == given


def test_every_setting_is_described_in_a_sentence() -> None:
    for name, info in Settings.model_fields.items():
        assert (info.description or "").endswith("."), name


@pytest.mark.parametrize(
    ("given", "committee", "members"),
    [
        ({}, "mc_dropout", 20),
        ({"strategy": "bald"}, "mc_dropout", 20),
        ({"strategy": "suggestive_annotation"}, "ensemble", 4),
        ({"strategy": "sa", "members": 7}, "ensemble", 7),
        ({"strategy": "sa", "committee": "mc_dropout"}, "mc_dropout", 20),
        ({"strategy": "bald", "committee": "ensemble"}, "ensemble", 4),
    ],
)
def test_the_committee_follows_the_strategy(given: dict[str, Any], committee: str, members: int) -> None:
    settings = load_settings(**given)
    assert (settings.effective_committee, settings.effective_members) == (committee, members)


def test_a_committee_of_one_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"NEXTMASK_MEMBERS = 1: .*at least 2"):
        load_settings(members=1)
