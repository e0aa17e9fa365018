"""Benchmarks: ``python -m tests.benchmarks [NAME ...] [--breaks N] [--json FILE]`` prints tables and judges nothing.

Each runs `reconcile run` as shipped (its gates, its settings, SQLite) against a private Open vSwitch, in a process of
its own; what is measured is seen from this process, on connections of its own. The programs ``floor_*.py`` are what the
daemon is compared with: each knows one thing only and puts it back with one message.
"""
