"""Where a packet would go on this node, and what is missing on its way. Pure: it asks questions and reads the answers.

Read `questions` (what may be asked and what an answer is), `course` (the way from hop to hop), then its parts:
`sender` (what the sender does with the packet), `switching` with `aim` and `losing` (Open vSwitch), `routing` (a
router's namespace), `netfilter` (rules as iptables-save prints them), `told` (hops and evidence in words).
The questions are put to the node by `controllers.drivers.tracing`; the verb is `reconciler.doors.trace`.
"""
