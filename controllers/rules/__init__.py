"""NAT and filter rules, readable or raw: one scope per network namespace, with all its tables and both families.

Read `wanted` (declared rules, compiled by iptables itself), `diff`, `script` (a change as iptables-restore reads it),
`controller`. See DESIGN.md.
"""
