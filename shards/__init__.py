"""The store: its layout, columns, receipts, codecs, reader and writer. It knows neither click nor torch."""
