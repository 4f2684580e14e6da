"""Where things are: frames, legends, readers of GIS data onto a frame, and writers back.

The lowest floor of earthgen; it imports none of the others. Import from its modules: this one is
empty, so that naming geo_io costs nothing.
"""
