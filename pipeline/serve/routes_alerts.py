"""/v1/alerts: the rules and how they are doing, what fired, and whether the webhooks work. A webhook's address is not
shown: it may be all that it takes to use it."""

from __future__ import annotations

import asyncio
from typing import Annotated, Literal
from urllib.parse import urlsplit

from fastapi import APIRouter, Path
from pydantic import BaseModel, Field
from starlette.concurrency import run_in_threadpool

from ..alerts.alert import Alert
from ..alerts.service import Alerts, NoRule
from ..alerts.watcher import RuleNow
from .errors import ApiError
from .schemas import errors

_MAX_DEAD = 100
_TEST_S = 30.0

RuleId = Annotated[str, Path(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9][A-Za-z0-9_.\-]*$")]


class SpanOut(BaseModel):
    """A stretch of stream time."""

    start_s: float
    end_s: float


class FiringOut(BaseModel):
    """What fired, as its webhook is told. id: the same however often it is told."""

    id: str
    stream_id: str
    rule: str
    says: str
    at_s: float
    wall: Annotated[str, Field(description="RFC 3339")]
    spans: Annotated[list[SpanOut], Field(description="what the verifier looked at")]
    keyframe: Annotated[str, Field(description="path of a picture of it")]
    test: bool

    @classmethod
    def of(cls, alert: Alert) -> FiringOut:
        return cls.model_validate_json(alert.body)


class DeadOut(BaseModel):
    """What could not be told, and why."""

    alert: FiringOut
    problem: str


class RuleOut(BaseModel):
    """A rule and how it is doing."""

    object: Literal["alert"] = "alert"
    id: str
    stream_id: str
    says: str
    every_s: Annotated[float | None, Field(description="null: asked when something changed")]
    cooldown_s: float
    lasts_s: Annotated[float, Field(description="for how long it must be so, as its words say")]
    webhook: Annotated[str | None, Field(description="the host that is told, and no more of its address")]
    phase: Literal["quiet", "holding", "standing"]
    last_fired_s: float | None
    num_fired: int
    num_asked: int
    num_verified: int
    num_refused: int
    num_unclear: int
    num_failed: int
    problem: Annotated[str | None, Field(description="why it cannot be watched now")]

    @classmethod
    def of(cls, now: RuleNow) -> RuleOut:
        rule = now.rule
        return cls(
            id=rule.id,
            stream_id=rule.stream_id,
            says=rule.says,
            every_s=rule.every_s,
            cooldown_s=rule.cooldown_s,
            lasts_s=rule.lasts_s,
            webhook=None if rule.webhook is None else urlsplit(rule.webhook).hostname,
            phase=now.phase.value,
            last_fired_s=now.last_fired_s,
            num_fired=now.num_fired,
            num_asked=now.num_asked,
            num_verified=now.num_verified,
            num_refused=now.num_refused,
            num_unclear=now.num_unclear,
            num_failed=now.num_failed,
            problem=now.problem,
        )


class DeliveriesOut(BaseModel):
    """How telling webhooks goes."""

    num_told: int
    num_tried: int
    num_given_up: int
    num_waiting: int


class AlertList(BaseModel):
    """All rules; the newest that fired, newest first; what could not be told, newest first."""

    object: Literal["list"] = "list"
    data: list[RuleOut]
    recent: list[FiringOut]
    dead: list[DeadOut]
    deliveries: DeliveriesOut


class TestOut(BaseModel):
    """Whether a webhook took a test. problem: why not."""

    delivered: bool
    problem: str | None


class ReplayOut(BaseModel):
    """How many are told again."""

    num_replayed: int


def alert_routes(alerts: Alerts) -> APIRouter:
    """The routes of `/v1/alerts`."""
    router = APIRouter(prefix="/v1/alerts", tags=["alerts"])

    @router.get("", responses=errors())
    def list_alerts() -> AlertList:
        dead = [one for one in reversed(alerts.dead) if one.problem is not None][:_MAX_DEAD]
        stats = alerts.deliveries
        return AlertList(
            data=[RuleOut.of(now) for now in alerts.rules()],
            recent=[FiringOut.of(alert) for alert in alerts.recent],
            dead=[DeadOut(alert=FiringOut.of(one.alert), problem=one.problem or "") for one in dead],
            deliveries=DeliveriesOut(
                num_told=stats.num_told,
                num_tried=stats.num_tried,
                num_given_up=stats.num_given_up,
                num_waiting=stats.num_waiting,
            ),
        )

    @router.post("/{rule_id}/test", responses=errors(404, 503))
    async def test_alert(rule_id: RuleId) -> TestOut:
        """Tells the rule's webhook once that this is a test."""
        try:
            sent = await run_in_threadpool(alerts.test, rule_id)
        except NoRule as error:
            raise _missing(error) from None
        except RuntimeError as error:
            raise ApiError(503, str(error), code="not_ready") from None
        try:
            outcome = await asyncio.wait_for(asyncio.wrap_future(sent), _TEST_S)
        except TimeoutError:
            return TestOut(delivered=False, problem=f"it was not told within {_TEST_S:g} s")
        return TestOut(delivered=outcome.is_told, problem=outcome.problem)

    @router.post("/{rule_id}/replay", responses=errors(404))
    def replay_alert(rule_id: RuleId) -> ReplayOut:
        """Tells again what could not be told of the rule."""
        try:
            return ReplayOut(num_replayed=alerts.replay(rule_id))
        except NoRule as error:
            raise _missing(error) from None

    return router


def _missing(error: NoRule) -> ApiError:
    return ApiError(404, str(error), code="alert_not_found")
