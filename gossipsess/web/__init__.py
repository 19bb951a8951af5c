"""Adapters: one module for each web framework, imported by the application that uses it."""
