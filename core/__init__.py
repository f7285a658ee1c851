"""What every room uses: errors, progress, signals, tables, devices, processes, files. It knows no store and no model."""
