"""Jobs: what a user asks for, from settings to a world on disk.

`earthgen.generate` is the public entrance. The command line also uses `forecast`, `batch` and
`verify`.
"""
