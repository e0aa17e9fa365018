"""The kinds that a switch is told over OpenFlow: flows, groups and meters; one scope per bridge.

Read `table` (declared text, compiled by ovs-ofctl and indexed), `diff`, `controller`. See DESIGN.md.
"""
