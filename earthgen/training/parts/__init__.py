"""The learned parts: a module each, with its loss, held-out figures and picture."""
