"""The gates between a plan and the world, in their fixed order. Each is one small module; all are pure given the time.

A gate says of a group, or of one change of it, why it must not happen now: a `Withheld`, which is data that `plan`,
`status` and a metric show. `admission` puts them in order and splits divisible groups along their answers.
"""
