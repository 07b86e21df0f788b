"""What an operator may ask every shard: one SELECT that changes nothing, by PostgreSQL's own grammar.

The session that runs it can do no more (fleet_query); this tells an operator before a thousand shards are asked.
"""

import json
from collections.abc import Iterator
from typing import Any

_WRITES = {
    "InsertStmt": "INSERT writes.",
    "UpdateStmt": "UPDATE writes.",
    "DeleteStmt": "DELETE writes.",
    "MergeStmt": "MERGE writes.",
    "intoClause": "SELECT … INTO makes a table.",
    "lockingClause": "FOR UPDATE and FOR SHARE lock rows.",
}


class QueryRefusedError(ValueError):
    """It is no single query; the message says why."""


def check(query: str) -> None:
    """Raises QueryRefusedError unless it is one SELECT (or VALUES, or WITH … SELECT) that writes nothing."""
    from pglast.parser import ParseError, parse_sql_json  # noqa: PLC0415 - its grammar takes memory that few need

    try:
        statements = json.loads(parse_sql_json(query))["stmts"]
    except ParseError as fault:
        raise QueryRefusedError(str(fault.args[0] if fault.args else fault)) from fault
    if len(statements) != 1:
        raise QueryRefusedError("It must be one statement.")
    if list(statements[0]["stmt"]) != ["SelectStmt"]:
        raise QueryRefusedError("It must be a SELECT.")
    for name in _names(statements):
        if name in _WRITES:
            raise QueryRefusedError(_WRITES[name])


def _names(tree: Any) -> Iterator[str]:
    """Every node's and member's name in a parsed statement."""
    if isinstance(tree, dict):
        for name, below in tree.items():
            yield name
            yield from _names(below)
    elif isinstance(tree, list):
        for below in tree:
            yield from _names(below)
