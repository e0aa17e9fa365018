"""The engine: how drift becomes repair. It knows no kind of resource and no IO library.

Read in this order: `contract` (the words), `pipeline` (the one path), `queue`, `gates`, `engine`, `daemon`.
"""

__version__ = "0.1.0"
