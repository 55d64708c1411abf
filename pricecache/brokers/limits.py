"""How much of everything a broker may say in one payload."""

MOST_ACCOUNTS = 1_000
MOST_SECURITIES = 20_000
MOST_HOLDINGS = 50_000
MOST_TRANSACTIONS = 200_000
MOST_BALANCES = 200_000
MOST_CURRENCIES = 200
OLDEST_DAYS = 18_262
"""How old a row may be: fifty years, a working life. Each day since the first row is a row of history, and markets'
calendars begin in 1990; an older date is most likely a mistyped one, or stands for none."""
