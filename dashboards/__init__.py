"""The Grafana dashboards of a fleet of reconcilers, made in Python with the grafana-foundation-sdk.

``python -m dashboards`` writes `ALL` into the JSON files beside this, which are committed and are what an operator
imports (README.md). One module for each dashboard; `panels` has what they share. Nothing of the daemon imports this.
The queries use the daemon's own metrics (``reconciler/metrics.py``) and work without the rules in ``rules/``; only
the table of alerts needs those.
"""
