"""The engine: the task graph of a world, what a task computes, and the workers that run tasks."""
