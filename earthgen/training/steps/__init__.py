"""What a step of training needs: its samples, what makes it faster, and how it is stopped."""
