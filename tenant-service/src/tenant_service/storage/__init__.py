"""All SQL on the central database. Functions take a connection and never begin or commit a transaction.

Knows no HTTP and no other database.
"""
