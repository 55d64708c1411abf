"""From what a broker says back to a ledger: rows walked backwards, put down, and walked forwards again."""
