"""Shared by all other rooms: errors, progress, signals, tables, devices, processes and files.

It knows no store and no model.
"""
