"""Scenes, places and small files that several tests share."""
