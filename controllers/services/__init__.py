"""systemd units that run, or not, as declared, and whose checks succeed. Read `state`, `diff`, `health`, `controller`.

See DESIGN.md.
"""
