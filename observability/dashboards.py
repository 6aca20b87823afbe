#!/usr/bin/env python3
"""Makes the Grafana dashboards in dashboards/ from the list below: dashboards.py [--check]

A panel is a title, a unit of Grafana's, and what it shows by its legend. `--check` fails when a committed file is not what this makes.
"""

import json
import pathlib
import sys

REQUESTS = 'http_server_requests_seconds_{}{{uri!~"/actuator/.*"}}'


def quantile(of: str, bucket: str, by: str) -> str:
    return f"histogram_quantile({of}, sum by ({by}, le) (rate({bucket}[$__rate_interval])))"


def hop(metric: str, by: str) -> dict[str, str]:
    return {f"{{{{{by}}}}} p{part}": quantile(f"0.{part}", metric + "_bucket", by) for part in ("50", "99")}


def rate(metric: str, by: str) -> str:
    return f"sum by ({by}) (rate({metric}[$__rate_interval]))"


BUCKETS, COUNT = REQUESTS.format("bucket"), REQUESTS.format("count")
ERRORS = 'http_server_requests_seconds_count{uri!~"/actuator/.*", outcome="SERVER_ERROR"}'
OPERATIONS = "graphql_operations_seconds_count"
OPERATION_ERRORS = OPERATIONS + '{outcome="ERROR"}'

DASHBOARDS = {
    "overview": ("Tandem: overview", [
        ("What runs", "short", {"{{job}} {{instance}}": 'up{job=~"accounts|orders|gateway"}'}),
        ("Requests a second", "reqps", {"{{application}} {{uri}}": rate(COUNT, "application, uri")}),
        ("Requests that fail, a second", "reqps", {"{{application}} {{uri}}": rate(ERRORS, "application, uri")}),
        ("Operations that are answered with errors, share", "percentunit", {
            "{{type}} {{operation}}": f'{rate(OPERATION_ERRORS, "type, operation")} / {rate(OPERATIONS, "type, operation")}',
        }),
        ("How long requests take, p50", "s", {"{{application}}": quantile("0.5", BUCKETS, "application")}),
        ("How long requests take, p99", "s", {"{{application}}": quantile("0.99", BUCKETS, "application")}),
        ("From the change to replica and subscriber, p99", "s", {
            "{{projection}}": quantile("0.99", "change_visible_seconds_bucket", "projection"),
            "{{subscription}}": quantile("0.99", "change_delivered_seconds_bucket", "subscription"),
        }),
        ("Changes that are not published yet", "short", {"{{topic}}": "max by (topic) (outbox_pending_events)"}),
        ("Messages that readers are behind", "short", {"{{projection}}": "sum by (projection) (projection_lag_messages)"}),
        ("Processor time", "percentunit", {"{{application}} {{instance}}": "rate(process_cpu_seconds[$__rate_interval])"}),
        ("Memory", "bytes", {"{{application}} {{instance}}": "process_resident_memory_bytes"}),
    ]),
    "change": ("Tandem: the way of a change", [
        ("From the change to the log, p50 and p99", "s", hop("change_published_seconds", "topic")),
        ("From the change to the replica, p50 and p99", "s", hop("change_visible_seconds", "projection")),
        ("From the change to the subscriber, p50 and p99", "s", hop("change_delivered_seconds", "subscription")),
        ("Stored and not published: age of the oldest", "s", {"{{topic}}": "max by (topic) (outbox_oldest_pending_seconds)"}),
        ("Stored and not published: how many", "short", {"{{topic}}": "max by (topic) (outbox_pending_events)"}),
        ("Published, a second", "short", {"{{topic}}": rate("outbox_published_total", "topic")}),
        ("Applied, a second", "short", {"{{projection}}": rate("projection_applied_total", "projection")}),
        ("Published and not applied", "short", {"{{projection}}": "sum by (projection) (projection_lag_messages)"}),
        ("Keys that Kafka refuses an event of", "short", {"{{topic}}": "max by (topic) (outbox_refused_events)"}),
    ]),
    "held-back": ("Tandem: what is held back", [
        ("Dead letters, and the keys that they hold back", "short", {
            "{{projection}}": "max by (projection) (dead_letters)",
            "{{projection}}, keys": "max by (projection) (dead_letter_keys)",
        }),
        ("Messages set aside, a second", "short", {"{{projection}}": rate("dead_letters_total", "projection")}),
        ("Customers whose events wait for a data key", "short", {"{{reader}}": "max by (reader) (data_keys_waiting)"}),
        ("Partitions that are not what they were", "short", {"{{topic}}": "max by (topic) (log_alarms)"}),
        ("Records without a signature, a second", "short", {"{{topic}}": rate("events_refused_total", "topic")}),
        ("Commands decided anew, a second", "short", {"{{aggregate}}": rate("commands_retried_total", "aggregate")}),
    ]),
    "live": ("Tandem: live", [
        ("Open subscriptions", "short", {"{{subscription}} {{instance}}": "live_subscribers"}),
        ("Subscriptions at the front doors", "short", {"{{job}}": "sum by (job) (front_door_subscriptions)"}),
        ("Ended because too slow, a second", "short", {
            "{{job}}": rate("live_subscribers_lagged_total", "job"),
            "{{job}} at the door": rate("front_door_lagged_subscriptions_total", "job"),
        }),
        ("Connections", "short", {"{{job}}": "sum by (job) (front_door_connections)"}),
    ]),
    "gateway": ("Tandem: gateway", [
        ("Operations a second", "reqps", {"{{type}} {{operation}}": rate(OPERATIONS, "type, operation")}),
        ("Operations with errors, a second", "reqps", {"{{type}} {{operation}}": rate(OPERATION_ERRORS, "type, operation")}),
        ("How long operations take, p99", "s", {"{{type}} {{operation}}": quantile("0.99", "graphql_operations_seconds_bucket", "type, operation")}),
        ("Calls of services a second", "reqps", {"{{subgraph_name}}": rate("http_client_request_duration_seconds_count", "subgraph_name")}),
        ("How long services take, p99", "s", {"{{subgraph_name}}": quantile("0.99", "http_client_request_duration_seconds_bucket", "subgraph_name")}),
        ("Calls that failed, a second", "reqps", {"{{service}} {{code}}": rate("gateway_service_failures_total", "service, code")}),
        ("Queries sent once more, a second", "reqps", {"{{service}}": rate("gateway_service_retries_total", "service")}),
        ("Refused at the front doors, a second", "reqps", {"{{job}} {{reason}}": rate("front_door_refusals_total", "job, reason")}),
        ("Tokens refused, a second", "reqps", {"{{job}} {{reason}}": rate("auth_rejections_total", "job, reason")}),
    ]),
}

SOURCE = {"type": "prometheus", "uid": "${source}"}


def panel(number: int, title: str, unit: str, shown: dict[str, str]) -> dict:
    return {
        "id": number + 1,
        "type": "timeseries",
        "title": title,
        "datasource": SOURCE,
        "gridPos": {"h": 8, "w": 12, "x": 12 * (number % 2), "y": 8 * (number // 2)},
        "fieldConfig": {"defaults": {"unit": unit, "min": 0}, "overrides": []},
        "targets": [
            {"refId": chr(ord("A") + at), "datasource": SOURCE, "expr": expression, "legendFormat": legend}
            for at, (legend, expression) in enumerate(shown.items())
        ],
    }


def dashboard(name: str, title: str, panels: list) -> dict:
    return {
        "uid": f"tandem-{name}",
        "title": title,
        "tags": ["tandem"],
        "schemaVersion": 39,
        "editable": True,
        "refresh": "10s",
        "time": {"from": "now-30m", "to": "now"},
        "templating": {"list": [{"name": "source", "label": "Prometheus", "type": "datasource", "query": "prometheus"}]},
        "panels": [panel(number, *one) for number, one in enumerate(panels)],
    }


def main() -> None:
    folder = pathlib.Path(__file__).parent / "dashboards"
    stale = []
    for name, (title, panels) in DASHBOARDS.items():
        made = json.dumps(dashboard(name, title, panels), indent=2) + "\n"
        file = folder / f"{name}.json"
        if "--check" not in sys.argv:
            file.write_text(made)
        elif not file.exists() or file.read_text() != made:
            stale.append(file.name)
    if stale:
        sys.exit(f"not what dashboards.py makes: {', '.join(stale)}; run it")


if __name__ == "__main__":
    main()
