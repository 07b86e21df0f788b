"""All SQL of the service. Functions take a connection and never begin or commit a transaction.

Times are the database's (`now()`), so that replicas whose clocks differ agree.
"""
