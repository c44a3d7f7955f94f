"""connect and disconnect on a host in memory: idempotent, reported, and put back."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from memory_studio import MemoryStudio
from wiring import PROJECT, XML, make_services

from ml_backend.errors import ConfigurationError, LabelConfigError, LabelStudioError, LabelStudioNotFound
from ml_backend.projects import registration
from ml_backend.projects.connection import Connection
from ml_backend.projects.registration import SECRET_HEADER, WEBHOOK_ACTIONS
from ml_backend.projects.services import Services
from ml_backend.projects.tabs import queue_tab

URL = "http://127.0.0.1:9090"
COLOURED = XML.replace("<Label ", '<Label background="#123456" ')


@pytest.fixture
def studio() -> MemoryStudio:
    return MemoryStudio(xml=COLOURED, fields={"sampling": "Sequential sampling", "model_version": "mine"})


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registration, "SETTLE_SECONDS", 0.01)


MakeConnection = Callable[..., Connection]


@pytest.fixture
def make_connection(tmp_path: Path, studio: MemoryStudio) -> Iterator[MakeConnection]:
    opened: list[Services] = []

    def make(project: int = PROJECT, **settings: Any) -> Connection:
        services = make_services(tmp_path, studio, **{"webhook_secret": "s3cret", **settings})
        opened.append(services)
        return Connection(services.settings, services.store, services.client, project)

    yield make
    for services in opened:
        services.store.close()


def state(studio: MemoryStudio) -> tuple[Any, ...]:
    return studio.xml, studio.fields, studio.backends, studio.hooks, studio.tabs


# -- connect ---------------------------------------------------------------------------------------------------------
def test_connect_makes_everything_and_says_so(studio: MemoryStudio, make_connection: MakeConnection) -> None:
    changes = make_connection().connect({"train_after": 5})
    (backend,), (hook,), (tab, usual) = studio.backends, studio.hooks, studio.tabs
    assert (backend["url"], backend["title"], backend["extra_params"]) == (URL, "nextmask", {"train_after": 5})
    assert backend["auth_method"] == "NONE"
    assert (hook["url"], hook["headers"]) == (f"{URL}/webhook", {SECRET_HEADER: "s3cret"})
    assert (sorted(hook["actions"]), hook["send_for_all_actions"]) == (sorted(WEBHOOK_ACTIONS), False)
    assert studio.fields["sampling"] == "Uncertainty sampling"
    assert studio.fields["show_collab_predictions"] is True
    assert tab["data"] == queue_tab()
    assert usual["data"]["title"] == "Default"  # Label Studio makes it only for projects without any
    assert len(changes) == 5
    assert "s3cret" not in str(changes)


def test_connecting_again_changes_nothing(studio: MemoryStudio, make_connection: MakeConnection) -> None:
    make_connection().connect({"train_after": 5})
    before = json.dumps(state(studio))
    assert make_connection().connect({"train_after": 5}) == []
    assert make_connection().connect() == []  # without settings: those there stay
    assert json.dumps(state(studio)) == before


def test_what_was_changed_is_told_and_no_password(
    studio: MemoryStudio, make_connection: MakeConnection, tmp_path: Path
) -> None:
    address = {"backend_url": "http://me:hush@127.0.0.1:9090"}
    for _ in range(2):
        make_connection(**address).connect()
    make_connection(**address).disconnect()
    services = make_services(tmp_path, studio)
    told = [(event.kind, event.text) for event in reversed(services.store.events(PROJECT))]
    assert [kind for kind, _ in told] == ["connected", "disconnected"]
    assert told[0][1].startswith("Connected: registered the backend http://127.0.0.1:9090; ")
    assert "hush" not in str(told)
    services.store.close()


def test_credentials_are_registered_with_the_backend(studio: MemoryStudio, make_connection: MakeConnection) -> None:
    make_connection(basic_auth_user="me", basic_auth_pass="word").connect()
    (backend,) = studio.backends
    assert (backend["auth_method"], backend["basic_auth_user"], backend["basic_auth_pass"]) == (
        *("BASIC_AUTH", "me", "word"),
    )


def test_a_project_is_known_and_woken(make_connection: MakeConnection, tmp_path: Path, studio: MemoryStudio) -> None:
    make_connection().connect()
    services = make_services(tmp_path, studio)
    (project,) = services.store.projects()
    assert project.wakes > project.wakes_handled
    services.store.close()


def test_other_settings_and_another_address_are_taken_over(
    studio: MemoryStudio, make_connection: MakeConnection
) -> None:
    make_connection().connect({"train_after": 5})
    changes = make_connection(port=7777).connect({"train_after": 6})
    (backend,), (hook,) = studio.backends, studio.hooks
    assert backend["url"] == "http://127.0.0.1:7777"
    assert backend["extra_params"] == {"train_after": 6}
    assert hook["url"] == "http://127.0.0.1:7777/webhook"
    assert len(changes) == 2


def test_settings_are_laid_over_those_that_are_there(studio: MemoryStudio, make_connection: MakeConnection) -> None:
    make_connection().connect({"train_after": 5})
    make_connection().connect({"seed": 2, "train_after": 6})
    assert studio.backends[0]["extra_params"] == {"train_after": 6, "seed": 2}
    make_connection().connect({"train_after": None})  # taken back
    assert studio.backends[0]["extra_params"] == {"seed": 2}


def test_a_backend_that_the_host_could_not_reach_is_registered_anew(
    studio: MemoryStudio, make_connection: MakeConnection
) -> None:
    make_connection().connect()
    studio.backends[0] |= {"state": "ER", "basic_auth_pass": "of yesterday"}
    (change,) = make_connection(basic_auth_user="me", basic_auth_pass="word").connect()
    assert "registered the backend anew" in change
    assert studio.backends[0]["basic_auth_pass"] == "word"


def test_doubled_registrations_are_removed(studio: MemoryStudio, make_connection: MakeConnection) -> None:
    make_connection().connect()
    studio.add_ml_backend(project=PROJECT, url="http://10.0.0.1:9090", title="nextmask")
    studio.add_webhook(project=PROJECT, url=f"{URL}/webhook")
    changes = make_connection().connect()
    assert [row["url"] for row in studio.backends] == [URL]
    assert changes.count("removed a second registration of nextmask") == 1
    assert changes.count("removed a doubled webhook") == 1


def test_a_registration_that_the_host_carried_out_twice_is_one(
    studio: MemoryStudio, make_connection: MakeConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    once = studio.add_ml_backend

    def twice(**fields: Any) -> dict[str, Any]:
        once(**fields)
        return once(**fields)

    monkeypatch.setattr(studio, "add_ml_backend", twice)
    make_connection().connect()
    assert [row["url"] for row in studio.backends] == [URL]
    assert len(studio.hooks) == 1
    assert make_connection().connect() == []


def test_what_a_listing_of_the_host_undoes_is_done_again(
    studio: MemoryStudio, make_connection: MakeConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_connection().connect({"train_after": 5})
    before = dict(studio.backends[0])
    update, delete, undone = studio.update_ml_backend, studio.delete_ml_backend, [3, 2]

    def update_in_vain(backend_id: int, **fields: Any) -> dict[str, Any]:
        undone[0] -= 1
        return before if undone[0] > 0 else update(backend_id, **fields)

    def delete_in_vain(backend_id: int) -> None:
        undone[1] -= 1
        if undone[1] < 0:
            delete(backend_id)

    monkeypatch.setattr(studio, "update_ml_backend", update_in_vain)
    monkeypatch.setattr(studio, "delete_ml_backend", delete_in_vain)
    assert len(make_connection().connect({"train_after": 6})) == 1
    assert (studio.backends[0]["extra_params"], undone[0]) == ({"train_after": 6}, 0)
    changes = make_connection().disconnect()
    assert (studio.backends, studio.hooks, undone[1]) == ([], [], -1)
    assert sum("removed the backend" in change for change in changes) == 1


def test_a_registration_that_always_comes_back_is_told(
    studio: MemoryStudio, make_connection: MakeConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_connection().connect()
    with monkeypatch.context() as patch:
        patch.setattr(studio, "delete_ml_backend", lambda _: None)
        with pytest.raises(LabelStudioError, match=r"undoes each change .* project 65:.*Close it"):
            make_connection().disconnect()
    assert make_connection().disconnect()
    assert (studio.backends, studio.hooks, studio.fields["model_version"]) == ([], [], "mine")


def test_an_order_that_was_overwritten_meanwhile_is_set_again(
    studio: MemoryStudio, make_connection: MakeConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_view = studio.add_view

    def meanwhile(*arguments: Any) -> dict[str, Any]:
        studio.fields["sampling"] = "Sequential sampling"
        return add_view(*arguments)

    monkeypatch.setattr(studio, "add_view", meanwhile)
    changes = make_connection().connect()
    assert studio.fields["sampling"] == "Uncertainty sampling"
    assert changes.count("task order set to uncertainty sampling") == 1


def test_other_peoples_things_are_left_alone(studio: MemoryStudio, make_connection: MakeConnection) -> None:
    studio.add_ml_backend(project=PROJECT, url="http://10.0.0.9:1", title="theirs")
    studio.add_view(PROJECT, {"title": "Mine"})
    theirs = json.dumps(state(studio)[2:])
    make_connection().connect()
    make_connection().disconnect()
    assert json.dumps(state(studio)[2:]) == theirs


@pytest.mark.parametrize("stored", ["", "{}", '{"train_after": 5}', "3", "[1]", "no JSON", None, [1]])
def test_settings_of_any_kind_found_at_the_backend_are_replaced(
    studio: MemoryStudio, make_connection: MakeConnection, stored: Any
) -> None:
    make_connection().connect()
    studio.backends[0]["extra_params"] = stored
    make_connection().connect({"train_after": 7})
    assert studio.backends[0]["extra_params"] == {"train_after": 7}


def test_labels_without_colours_get_some(studio: MemoryStudio, make_connection: MakeConnection) -> None:
    studio.xml = XML
    changes = make_connection().connect()
    assert studio.xml.count("background=") == 2
    assert any("colours" in change for change in changes)
    assert make_connection().connect() == []


def test_labels_that_label_studio_does_not_let_go_stay_and_the_rest_is_connected(
    studio: MemoryStudio, make_connection: MakeConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It refuses any change of the configuration while an annotation names a control that this does not have."""
    studio.xml, update = XML, studio.update_project

    def refuse(project_id: int, **fields: Any) -> Any:
        if "label_config" in fields:
            raise LabelStudioError("Created annotations are incompatible with provided labeling schema", status=400)
        return update(project_id, **fields)

    monkeypatch.setattr(studio, "update_project", refuse)
    changes = make_connection().connect()
    assert any("Label Studio refuses to change it (Created annotations" in change for change in changes)
    assert studio.xml == XML
    assert "Priority queue" in [tab["data"]["title"] for tab in studio.tabs]
    make_connection().disconnect()
    assert studio.xml == XML


def test_a_project_with_tabs_of_its_own_gets_just_one_more(
    studio: MemoryStudio, make_connection: MakeConnection
) -> None:
    studio.add_view(PROJECT, {"title": "Mine"})
    make_connection().connect()
    assert [tab["data"]["title"] for tab in studio.tabs] == ["Mine", "Priority queue"]


def test_a_tab_that_somebody_changed_stays(studio: MemoryStudio, make_connection: MakeConnection) -> None:
    make_connection().connect()
    studio.tabs[1]["data"]["ordering"] = ["tasks:id"]
    make_connection().disconnect()
    assert [tab["data"]["title"] for tab in studio.tabs] == ["Default"]


def test_a_changed_tab_is_put_in_order(studio: MemoryStudio, make_connection: MakeConnection) -> None:
    make_connection().connect()
    studio.tabs[0]["data"] |= {"ordering": ["-tasks:id"], "columnsWidth": {"id": 90}}
    assert make_connection().connect() == ["put the tab 'Priority queue' in order again"]
    assert studio.tabs[0]["data"]["ordering"] == ["tasks:predictions_score"]
    assert studio.tabs[0]["data"]["columnsWidth"] == {"id": 90}  # of the person who looks at it


def test_the_tab_shows_the_queue_as_it_is_served() -> None:
    data = queue_tab()
    assert data["ordering"] == ["tasks:predictions_score"]  # the lowest score is served first
    filters = {one["filter"]: (one["operator"], one["value"]) for one in data["filters"]["items"]}
    assert filters == {
        "filter:tasks:total_annotations": ("equal", 0),
        "filter:tasks:cancelled_annotations": ("equal", 0),
    }


# -- what is refused, before anything is changed ---------------------------------------------------------------------
@pytest.mark.parametrize("url", ["http://ml-backend:9090", "http://localhost:9090", "http://user:pw@backend/x.y"])
def test_an_address_without_a_dot_gets_no_webhook_and_is_refused(
    studio: MemoryStudio, make_connection: MakeConnection, url: str
) -> None:
    with pytest.raises(ConfigurationError, match=r"NEXTMASK_BACKEND_URL.*dotted alias such as nextmask\.local"):
        make_connection(backend_url=url).connect()
    assert studio.backends == []


@pytest.mark.parametrize("url", ["http://nextmask.local:9090", "https://10.0.0.7", "http://[::1]:9090", URL])
def test_dotted_and_numeric_addresses_are_taken(
    studio: MemoryStudio, make_connection: MakeConnection, url: str
) -> None:
    make_connection(backend_url=url).connect()
    assert studio.backends[0]["url"] == url


def test_bad_settings_configs_and_projects_change_nothing(
    studio: MemoryStudio, make_connection: MakeConnection
) -> None:
    before = json.dumps(state(studio))
    with pytest.raises(ConfigurationError, match="'trainafter', which is not one of"):
        make_connection().connect({"trainafter": 1})
    with pytest.raises(ConfigurationError, match="clairvoyance"):
        make_connection().connect({"strategy": "clairvoyance"})
    with pytest.raises(ConfigurationError, match="no-such-encoder"):
        make_connection().connect({"encoder": "no-such-encoder"})
    with pytest.raises(ConfigurationError, match=r"NEXTMASK_NETWORK_OPTIONS = \{'depth': 3\}: 'depth' is no option"):
        make_connection().connect({"network_options": {"depth": 3}})
    with pytest.raises(LabelStudioNotFound):
        make_connection(project=4).connect()
    studio.xml = '<View><Text name="t" value="$t"/></View>'
    with pytest.raises(LabelConfigError):
        make_connection().connect()
    studio.xml = COLOURED
    assert json.dumps(state(studio)) == before


# -- the control for regions that are asked for -----------------------------------------------------------------------
CEREALS = {"strategy": "cereals"}


def test_it_is_missing_only_where_parts_may_be_asked_for(studio: MemoryStudio, make_connection: MakeConnection) -> None:
    assert make_connection().lacks_query_control(), "auto has the choice"
    assert not make_connection(strategy="entropy").lacks_query_control()
    assert make_connection().lacks_query_control(CEREALS)
    assert make_connection(strategy="cereals").lacks_query_control()
    make_connection().connect(CEREALS)
    assert studio.xml == COLOURED  # only offered
    assert make_connection().lacks_query_control()  # by the settings that Label Studio keeps
    assert not make_connection().lacks_query_control({"strategy": "entropy"})
    changes = make_connection().connect(CEREALS, add_query_control=True)
    assert changes == ["added the control 'query' for the regions that are asked for"]
    assert not make_connection().lacks_query_control(CEREALS)
    assert make_connection().connect(CEREALS, add_query_control=True) == []


@pytest.mark.parametrize("at_once", [True, False])
@pytest.mark.parametrize(("params", "name", "colours"), [(CEREALS, "query", 3), ({}, "points", 5)])
def test_disconnect_takes_control_and_colours_back(
    studio: MemoryStudio,
    make_connection: MakeConnection,
    params: dict[str, Any],
    name: str,
    colours: int,
    at_once: bool,
) -> None:
    studio.xml = XML
    if not at_once:
        make_connection().connect()
    make_connection().connect(params, add_query_control=True)
    assert f'name="{name}"' in studio.xml
    assert studio.xml.count("background=") == colours
    assert "labels as before" in make_connection().disconnect()
    assert studio.xml == XML


def test_a_strategy_that_asks_for_points_lacks_its_control_and_is_told(make_connection: MakeConnection) -> None:
    points = {"strategy": "points"}
    assert make_connection().lacks_query_control(points)
    connection = make_connection()
    connection.connect(points)
    assert any(
        "asks for points, but the labelling configuration has no control 'points'" in str(one)
        for one in connection.hints
    )
    connection.connect(points, add_query_control=True)
    assert connection.hints == []
    assert not make_connection().lacks_query_control(points)
    assert make_connection().lacks_query_control(CEREALS)


def test_a_points_control_is_added_once_where_no_regions_are_asked_for(
    studio: MemoryStudio, make_connection: MakeConnection
) -> None:
    changes = make_connection().connect(add_query_control=True)
    assert "added the control 'points', whose points say the class of single pixels" in changes
    with_points = studio.xml
    assert make_connection().connect(add_query_control=True) == []
    assert studio.xml == with_points
    make_connection().connect(CEREALS, add_query_control=True)  # both kinds of questions go together
    assert 'name="query"' in studio.xml
    assert 'name="points"' in studio.xml
    make_connection().disconnect()
    assert studio.xml == COLOURED


def test_a_points_control_with_other_labels_is_told_by_connect(
    studio: MemoryStudio, make_connection: MakeConnection
) -> None:
    studio.xml = COLOURED.replace(
        "</View>", '<KeyPointLabels name="points" toName="image"><Label value="nose"/></KeyPointLabels></View>'
    )
    connection = make_connection()
    connection.connect()
    assert any("'nose' of the points control 'points' is no class" in str(hint) for hint in connection.hints)
    with pytest.raises(LabelConfigError, match="a tag named 'points'"):
        make_connection().connect(add_query_control=True)


def test_smart_tools_are_added_ask_nextmask_and_are_taken_back(
    studio: MemoryStudio, make_connection: MakeConnection
) -> None:
    studio.xml = XML
    make_connection().connect()
    assert not studio.backends[0].get("is_interactive")
    changes = make_connection().connect(add_smart_tools=True, add_query_control=True)
    assert "added smart tools: clicks and boxes that a mask follows" in changes
    assert "smart tools ask nextmask: the backend is interactive" in changes
    assert studio.backends[0]["is_interactive"] is True
    assert all(f'name="{name}"' in studio.xml for name in ("smart-click", "smart-box", "points"))
    assert make_connection().connect(add_smart_tools=True) == []
    studio.backends[0]["is_interactive"] = False  # as somebody switches it off in Label Studio
    assert make_connection().connect() == ["smart tools ask nextmask: the backend is interactive"]
    assert "labels as before" in make_connection().disconnect()
    assert studio.xml == XML
    assert studio.backends == []


@pytest.mark.parametrize("again", [True, False])
def test_killed_before_the_control_is_there_the_first_configuration_still_comes_back(
    studio: MemoryStudio, make_connection: MakeConnection, monkeypatch: pytest.MonkeyPatch, again: bool
) -> None:
    studio.xml = XML
    make_connection().connect()
    ours = studio.xml

    def killed(*_: Any, **__: Any) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(studio, "update_project", killed)
        with pytest.raises(KeyboardInterrupt):
            make_connection().connect(CEREALS, add_query_control=True)
    assert studio.xml == ours
    if again:
        make_connection().connect(CEREALS, add_query_control=True)
    make_connection().disconnect()
    assert studio.xml == XML


def test_a_configuration_that_somebody_changed_is_what_comes_back(
    studio: MemoryStudio, make_connection: MakeConnection
) -> None:
    studio.xml = XML
    make_connection().connect()
    theirs = studio.xml = studio.xml.replace("<View>", "<View><Header value='Look!'/>")
    make_connection().connect(CEREALS, add_query_control=True)
    make_connection().disconnect()
    assert studio.xml == theirs
    make_connection().connect(CEREALS, add_query_control=True)
    changed = studio.xml = studio.xml.replace("Look!", "Look again!")
    make_connection().disconnect()
    assert studio.xml == changed


def test_labels_that_annotations_use_stay_and_that_is_said(
    studio: MemoryStudio, make_connection: MakeConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_connection().connect(CEREALS, add_query_control=True)
    with_control, update = studio.xml, studio.update_project

    def refuse(project: int, **fields: Any) -> Any:
        if "label_config" in fields:
            raise LabelStudioError("Created annotations are incompatible", status=400)
        return update(project, **fields)

    monkeypatch.setattr(studio, "update_project", refuse)
    changes = make_connection().disconnect()
    assert any("the labels stay as they are" in change and "incompatible" in change for change in changes)
    assert (studio.xml, studio.fields["sampling"]) == (with_control, "Sequential sampling")


# -- disconnect ------------------------------------------------------------------------------------------------------
def test_disconnect_puts_back_what_was_there(studio: MemoryStudio, make_connection: MakeConnection) -> None:
    studio.xml = XML
    studio.predictions = [{"id": 1, "task": 1, "result": [], "score": 0.5, "model_version": "mine"}]
    before = json.dumps([studio.xml, studio.fields["sampling"], studio.fields["model_version"]])
    make_connection().connect()
    make_connection().connect({"seed": 2})  # a second connect must not take our own values for theirs
    studio.predictions.append({"id": 2, "task": 1, "result": [], "score": 0.5, "model_version": "nextmask-1.1"})
    studio.update_project(PROJECT, model_version="nextmask-1.1")
    changes = make_connection().disconnect()
    assert json.dumps([studio.xml, studio.fields["sampling"], studio.fields["model_version"]]) == before
    assert (studio.backends, studio.hooks, studio.tabs) == ([], [], [])
    assert len(studio.predictions) == 2  # a task with one may be open in an editor
    assert len(changes) >= 6
    assert "labels as before" in changes


def test_a_disconnected_project_is_no_longer_worked_on(
    studio: MemoryStudio, make_connection: MakeConnection, tmp_path: Path
) -> None:
    make_connection().connect()
    make_connection().disconnect()
    services = make_services(tmp_path, studio)
    assert services.store.projects() == []
    services.store.close()
    assert make_connection().disconnect() == []


def test_a_label_config_that_was_edited_meanwhile_stays(studio: MemoryStudio, make_connection: MakeConnection) -> None:
    studio.xml = XML
    make_connection().connect()
    studio.xml = edited = studio.xml.replace('value="nucleus"', 'value="core"')
    make_connection().disconnect()
    assert studio.xml == edited


def test_a_version_that_can_no_longer_be_set_is_emptied(studio: MemoryStudio, make_connection: MakeConnection) -> None:
    make_connection().connect()
    studio.fields["model_version"] = "nextmask-1.1"
    changes = make_connection().disconnect()  # no prediction carries "mine" any more
    assert studio.fields["model_version"] == ""
    assert any("'mine' is refused" in change for change in changes)


def test_other_refusals_of_the_host_are_raised(
    studio: MemoryStudio, make_connection: MakeConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_connection().connect()

    def refuse(*_: Any, **fields: Any) -> Any:
        raise LabelStudioError("not allowed", status=403)

    monkeypatch.setattr(studio, "update_project", refuse)
    with pytest.raises(LabelStudioError, match="not allowed"):
        make_connection().disconnect()
