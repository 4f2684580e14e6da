"""The rasterizer of 2D Gaussians: its model, a plain reference, and compiled code for the CPU."""
