"""The kinds that live in a network namespace, observed in one scope for each: namespace, link, address, route, …

Read `wanted` (what is declared, as rows), `state` (actions and observation), `diff` with one module for each kind,
`perform` (actions in a visit), `controller`. See DESIGN.md.
"""
