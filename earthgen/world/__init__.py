"""Worlds in storage: the Zarr store and its layout, the view for users, locks and digests.

`earthgen.open_world` is the public entrance. The other modules may change.
"""
