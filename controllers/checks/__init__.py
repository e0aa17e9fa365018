"""Checks that repair nothing: asked at intervals, told as a status. One scope for each."""
