"""The kinds that live in OVSDB: bridge, port, bond and held_port, observed in one scope.

They are one controller because they are one transaction: a bridge and its ports, or the two ends of a patch pair,
appear together or not at all. Read `wanted` (what the rows should say), `state` (actions and observation), `diff`,
`controller`. See DESIGN.md.
"""
