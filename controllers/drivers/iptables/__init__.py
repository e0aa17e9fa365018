"""iptables rules of any network namespace: what is there, what a text means, and how a change is made.

Read `rules` (the words), `chains` (a namespace's rules as pure bookkeeping), `nftables` (how they look on the wire),
`reading` (dumps), `events` (the one socket), `scratch` (the canonicaliser), `tools` and `writing` (the two ways to
change something), `netns` (visits), `tables` (what the rules controller uses).
"""
