"""How a run is watched: its metrics in Prometheus, its dashboards in Grafana, its alerts."""
