"""The routes of streams, over a real port: what there is, what was told, what it looks like, and what is refused."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from millpond.stream.jpeg import decode_jpeg

from .serve_server import ENDED, STEADY, Served, served, until

pytest.importorskip("fastapi")


@pytest.fixture(scope="module")
def server() -> Iterator[Served]:
    streams = [{"id": "yard", "source": ENDED}, {"id": "front door", "source": STEADY, "as_live": True}]
    model = {"reuse": {"name": "delta", "falls_back": False}}
    with served({"streams": streams, "model": model, "limits": {"num_streams": 4}}) as running:
        running.wait_for("yard")
        running.wait_for_frame("front door")
        yield running


def test_streams_are_listed_as_they_are(server: Served) -> None:
    def listed() -> dict[str, Any]:
        return server.client.get("/v1/streams").json()

    # Pictures are kept by a thread of their own, which may end after the stream.
    until(lambda: listed()["data"][0]["bytes_by_tier"]["T2"] > 0, "a keyframe is kept")
    told = listed()
    assert told["object"] == "list"
    assert [(one["id"], one["state"]) for one in told["data"]] == [("yard", "ended"), ("front door", "live")]
    yard = told["data"][0]
    assert (yard["num_frames"], yard["num_dropped"], yard["seen_until_s"], yard["problem"]) == (12, 0, 11.0, None)
    assert yard["lag_s"] >= 0 and set(yard["bytes_by_tier"]) == {"T0", "T1", "T2", "T3"}
    assert yard["budget_by_tier"]["T2"] >= yard["bytes_by_tier"]["T2"]
    assert server.client.get("/v1/streams/front%20door").json()["id"] == "front door"


def test_streams_come_and_go(server: Served) -> None:
    added = server.client.post("/v1/streams", json={"id": "new", "source": ENDED, "narrate": False})
    assert (added.status_code, added.json()["id"]) == (201, "new")
    again = server.client.post("/v1/streams", json={"id": "new", "source": ENDED})
    assert (again.status_code, again.json()["error"]["code"]) == (409, "stream_exists")
    server.wait_for("new")
    assert not [row for row in server.streams.events("new") if row.kind == "narration"]
    assert server.client.delete("/v1/streams/new").status_code == 204
    gone = server.client.delete("/v1/streams/new")
    assert (gone.status_code, gone.json()["error"]["code"]) == (404, "stream_not_found")
    assert server.client.post("/v1/streams", json={"id": "new", "source": ENDED}).status_code == 201
    server.client.delete("/v1/streams/new")


def test_no_more_streams_than_the_limit(server: Served) -> None:
    for name in ("c", "d"):
        assert server.client.post("/v1/streams", json={"id": name, "source": STEADY}).status_code == 201
    told = server.client.post("/v1/streams", json={"id": "e", "source": STEADY})
    assert (told.status_code, told.json()["error"]["code"]) == (429, "too_many")
    for name in ("c", "d"):
        server.client.delete(f"/v1/streams/{name}")


@pytest.mark.parametrize(
    "body",
    [
        {"id": "x"},
        {"id": "x", "source": "ftp://host/a.mp4"},
        {"id": "x", "source": "/etc/passwd"},
        {"id": "x", "source": "synthetic://squares"},
        {"id": "a/b", "source": ENDED},
        {"id": "x", "source": ENDED, "narrates": True},
        {"id": "x", "source": ENDED, "narrate": "yes"},
        {"id": "x", "source": ENDED, "memory": "/tmp/elsewhere"},
        {"id": "x", "source": ENDED, "options": {"max_pixels": 1}},
        ["x"],
    ],
    ids=str,
)
def test_what_makes_no_stream_is_refused_with_a_sentence(server: Served, body: object) -> None:
    before = server.client.get("/v1/streams").json()["data"]
    told = server.client.post("/v1/streams", json=body)
    assert told.status_code == 400
    assert set(told.json()["error"]) == {"message", "type", "param", "code"} and told.json()["error"]["message"]
    assert len(server.client.get("/v1/streams").json()["data"]) == len(before)


def test_the_log_is_paged_by_number(server: Served) -> None:
    whole = server.client.get("/v1/streams/yard/events").json()
    assert [row["number"] for row in whole["data"]] == sorted({row["number"] for row in whole["data"]})
    assert {row["kind"] for row in whole["data"]} >= {"narration", "event"} and not whole["has_more"]
    first = server.client.get("/v1/streams/yard/events", params={"most": 1}).json()
    assert first["data"] == whole["data"][:1] and first["has_more"]
    rest = server.client.get("/v1/streams/yard/events", params={"after": first["data"][0]["number"]}).json()
    assert rest["data"] == whole["data"][1:]
    assert server.client.get(whole["data"][0]["keyframe"]).status_code == 200


def test_search_goes_over_the_logs_of_all_streams(server: Served) -> None:
    until(lambda: server.streams.events("front door"), "a narration")
    words = {one: server.streams.events(one)[0].text.split()[0].strip(",") for one in ("yard", "front door")}
    found = server.client.get("/v1/search", params={"q": " ".join(words.values())}).json()["data"]
    assert {one["stream"] for one in found} == {"yard", "front door"}
    assert [one["score"] for one in found] == sorted((one["score"] for one in found), reverse=True)
    assert server.client.get("/v1/search", params={"q": "zebra"}).json()["data"] == []
    assert server.client.get("/v1/search", params={"q": 'NEAR("* OR 1=1) --'}).status_code == 200
    assert server.client.get("/v1/search").status_code == 400


def test_pictures_are_of_the_moments_asked_for(server: Served) -> None:
    shot = server.client.get("/v1/streams/yard/snapshot.jpg")
    assert shot.headers["content-type"] == "image/jpeg" and float(shot.headers["millpond-time"]) == 11.0
    assert decode_jpeg(shot.content).shape == (240, 320, 3)
    first, last = (server.client.get(f"/v1/streams/yard/frames/{time_s}.jpg") for time_s in ("0", "11"))
    assert float(first.headers["millpond-time"]) == 0.0 and float(last.headers["millpond-time"]) == 11.0
    assert first.content != last.content and decode_jpeg(first.content).shape == (240, 320, 3)
    for path in ("frames/nan.jpg", "frames/-1.jpg", "frames/1e5.jpg", "frames/..%2f..%2fetc%2fpasswd.jpg"):
        assert server.client.get(f"/v1/streams/yard/{path}").status_code in (400, 404), path
    assert server.client.get(f"/v1/streams/yard/frames/{'9' * 400}.jpg").status_code == 400


def test_the_overlay_is_of_the_grids_that_the_model_has(server: Served) -> None:
    overlay = server.client.get("/v1/streams/yard/overlay").json()
    patches, places = overlay["rows"] * overlay["columns"], overlay["kept_rows"] * overlay["kept_columns"]
    assert overlay["pts_s"] == 11.0 and patches > 0 and overlay["kept"] == list(range(places))
    assert len(set(overlay["recomputed"])) == len(overlay["recomputed"]) < patches
    assert all(0 <= patch < patches for patch in overlay["recomputed"]) and 0 <= overlay["change_share"] <= 1


@pytest.mark.parametrize("path", ["", "/events", "/snapshot.jpg", "/frames/1.jpg", "/overlay"])
def test_a_stream_that_is_not_there_is_told_so(server: Served, path: str) -> None:
    told = server.client.get(f"/v1/streams/nobody{path}")
    assert (told.status_code, told.json()["error"]["code"]) == (404, "stream_not_found")
    assert "front door" in told.json()["error"]["message"]


def test_what_no_route_knows_is_an_error_of_the_same_form(server: Served) -> None:
    for told in (server.client.get("/v2"), server.client.put("/v1/streams"), server.client.post("/v1/streams")):
        assert told.status_code in (400, 404, 405)
        assert set(told.json()["error"]) == {"message", "type", "param", "code"}


def test_a_broken_stream_of_the_config_keeps_no_other_from_beginning(tmp_path: Path) -> None:
    streams = [{"id": "none", "source": str(tmp_path / "none.mp4")}, {"id": "yard", "source": ENDED}]
    with served({"streams": streams}) as running:
        running.wait_for("yard")
        told = running.client.get("/v1/streams/none").json()
        assert told["state"] == "failed" and "none.mp4" in told["problem"]
        assert running.client.delete("/v1/streams/none").status_code == 204


def test_a_camera_that_is_away_is_retried_and_its_password_is_not_told() -> None:
    streams = [{"id": "gate", "source": "rtsp://admin:S3CRET-word@127.0.0.1:9/main?token=S3CRET2"}]
    with served({"streams": streams}) as running:
        running.wait_for("gate", "retrying")
        told = running.client.get("/v1/streams").text + running.client.get("/metrics").text
        assert '"retrying"' in told and "S3CRET" not in told and "127.0.0.1:9" in told
        assert running.client.get("/v1/streams/gate/snapshot.jpg").json()["error"]["code"] == "no_picture"
        assert running.client.get("/v1/streams/gate/overlay").status_code == 204
        assert running.client.delete("/v1/streams/gate").status_code == 204


def test_the_description_says_every_route_and_its_errors(server: Served) -> None:
    described = server.client.get("/openapi.json").json()
    assert {path for path in described["paths"] if path.startswith("/v1/streams")} == {
        "/v1/streams",
        "/v1/streams/{stream_id}",
        "/v1/streams/{stream_id}/events",
        "/v1/streams/{stream_id}/snapshot.jpg",
        "/v1/streams/{stream_id}/frames/{time_s}.jpg",
        "/v1/streams/{stream_id}/overlay",
    }
    for path, operations in described["paths"].items():
        for operation in operations.values():
            assert "422" not in operation["responses"], path


def test_a_camera_that_a_client_names_goes_by_the_gateway() -> None:
    with served({"urls": {"networks": ["127.0.0.1/32"]}}) as running:
        added = running.client.post("/v1/streams", json={"id": "cam", "source": "rtsp://u:S3CRET-word@127.0.0.1:9/x"})
        assert added.status_code == 201 and added.json()["state"] in ("connecting", "retrying")
        running.wait_for("cam", "retrying")
        assert (
            running.streams._watched["cam"].way is not None and "S3CRET" not in running.client.get("/v1/streams").text
        )
        inside = running.client.post("/v1/streams", json={"id": "meta", "source": "http://169.254.169.254/latest"})
        assert (inside.status_code, inside.json()["error"]["code"]) == (400, "bad_source")
