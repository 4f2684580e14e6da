"""What is made of a finished world: surface meshes, pictures of Gaussians, ortho images, frames."""
