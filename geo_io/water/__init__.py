"""Water: the sea beside coastlines, level lakes, and rivers that fall."""
