"""One bridge's flow tables over OpenFlow 1.4: a replica, bundles, and the compiler of flow texts.

Read in this order: `flows` (the types), `switch` (what controllers use), `replica`, `reader`, `writer`, `channel`,
`codec`; then `compiler` and `ofctl`. What was found out about Open vSwitch is in DESIGN.md.
"""
