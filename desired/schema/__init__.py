"""From YAML to resources, with every mistake of the tree found at once and placed to the column.

In reading order: `text` (bytes to nodes), `walk` (mappings, lists, values), `section` (the shapes a section may
have), `check` and `words` (an entry against its spec, in the operator's words), `reading` (one file), `tree` (a
directory for one node); `editor` and `render` go the other way. No kind is known here: the table of sections is
`desired.kinds.sections`.
"""

from desired.schema.editor import json_schema
from desired.schema.problem import Problem
from desired.schema.reading import ApplyTo, read_file
from desired.schema.render import dump_resources
from desired.schema.section import Claim, Grouped, Listed, Named, Numbered, Pairs, Section
from desired.schema.tree import Cache, Loaded, find_files, load_tree

__all__ = [
    "ApplyTo",
    "Cache",
    "Claim",
    "Grouped",
    "Listed",
    "Loaded",
    "Named",
    "Numbered",
    "Pairs",
    "Problem",
    "Section",
    "dump_resources",
    "find_files",
    "json_schema",
    "load_tree",
    "read_file",
]
