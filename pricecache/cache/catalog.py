"""Moved to core/catalog.py."""

from pricecache.core.catalog import Catalog, Entry, SeriesHead

__all__ = ["Catalog", "Entry", "SeriesHead"]
