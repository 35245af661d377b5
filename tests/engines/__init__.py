"""Engines that others wrote, installed from the package registries into a cache outside of the clone, and started."""
