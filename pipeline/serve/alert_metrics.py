"""What alerts tell Prometheus: of each rule how often it was asked and fired, and how telling the webhooks goes."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from ..alerts.service import Alerts
from ..alerts.watcher import RuleNow

_EACH: dict[str, tuple[str, Callable[[RuleNow], int]]] = {
    "fired": ("Alerts that it fired.", lambda now: now.num_fired),
    "questions": ("Cheap questions asked for it.", lambda now: now.num_asked),
    "verifications": ("Questions that were to confirm it.", lambda now: now.num_verified),
    "refusals": ("Of those, the ones that did not.", lambda now: now.num_refused),
    "unclear": ("Answers that were neither yes nor no.", lambda now: now.num_unclear),
    "failures": ("Questions that failed.", lambda now: now.num_failed),
}


class AlertsCollector(Collector):
    """The rules as they are now. Their ids are the only labels: the config's, so there are no more than it has."""

    def __init__(self, alerts: Alerts) -> None:
        self._alerts = alerts

    def collect(self) -> Iterator[Metric]:
        rules = self._alerts.rules()
        for name, (about, read) in _EACH.items():
            family = CounterMetricFamily(f"millpond_alert_{name}_total", about, labels=["alert"])
            for now in rules:
                family.add_metric([now.rule.id], read(now))
            yield family
        watched = GaugeMetricFamily("millpond_alert_watched", "Whether the rule can be watched.", labels=["alert"])
        for now in rules:
            watched.add_metric([now.rule.id], float(now.problem is None))
        yield watched
        told = self._alerts.deliveries
        yield CounterMetricFamily("millpond_webhook_tries_total", "Messages sent to webhooks.", told.num_tried)
        yield CounterMetricFamily("millpond_webhook_deliveries_total", "Alerts that arrived.", told.num_told)
        yield CounterMetricFamily("millpond_webhook_dead_letters_total", "Alerts given up.", told.num_given_up)
        yield GaugeMetricFamily("millpond_webhook_waiting", "Alerts on their way.", told.num_waiting)
