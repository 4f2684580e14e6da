"""Land cover, buildings and trees from vector layers and class rasters, on any window."""
