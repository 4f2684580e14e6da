"""What stands in a world, as things: buildings, plants, areas of a class, contour lines."""
