"""Monitoring of a run: metrics in Prometheus, dashboards in Grafana, alerts."""
