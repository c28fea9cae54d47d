"""A small committed world with its tutorial."""
