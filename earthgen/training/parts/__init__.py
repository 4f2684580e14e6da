"""What each part learns: one module each, with its loss, its figures of held-out crops, and its
picture."""
