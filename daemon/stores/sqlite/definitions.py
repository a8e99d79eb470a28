"""Definitions in the SQLite store: a row a text, and one each time that a name is given to one."""

from __future__ import annotations

import sqlite3

from daemon.stores.rows import Definition, DefinitionEntry, DefinitionWrite

_TEXT = "INSERT INTO definitions (tenant, hash, text) VALUES (?, ?, ?) ON CONFLICT (tenant, hash) DO NOTHING"
_REGISTRATION = "INSERT INTO registrations (tenant, name, version, hash, registered_at) VALUES (?, ?, ?, ?, ?)"


def write_definitions(connection: sqlite3.Connection, definitions: list[DefinitionWrite]) -> None:
    for d in definitions:
        connection.execute(_TEXT, (d.tenant, d.hash, d.text))
        if d.name is not None:
            connection.execute(_REGISTRATION, (d.tenant, d.name, d.version, d.hash, d.registered_at))


def read_definition(connection: sqlite3.Connection, tenant: str, name: str, version: int | None) -> Definition | None:
    row = connection.execute(
        "SELECT r.name, r.version, r.hash, d.text, r.registered_at FROM registrations r "
        "JOIN definitions d ON d.tenant = r.tenant AND d.hash = r.hash "
        "WHERE r.tenant = ? AND r.name = ? AND (? IS NULL OR r.version = ?) ORDER BY r.version DESC LIMIT 1",
        (tenant, name, version, version),
    ).fetchone()
    if row is None:
        return None
    return Definition(name=row[0], version=row[1], hash=row[2], text=row[3], registered_at=row[4])


def read_text(connection: sqlite3.Connection, tenant: str, hash: str) -> str | None:
    row = connection.execute("SELECT text FROM definitions WHERE tenant = ? AND hash = ?", (tenant, hash)).fetchone()
    return str(row[0]) if row is not None else None


def list_definitions(
    connection: sqlite3.Connection, tenant: str, limit: int, after_name: str | None
) -> list[DefinitionEntry]:
    rows = connection.execute(
        "SELECT r.name, r.version, r.registered_at FROM registrations r WHERE r.tenant = ? AND r.name > ? "
        "AND r.version = (SELECT max(version) FROM registrations WHERE tenant = r.tenant AND name = r.name) "
        "ORDER BY r.name LIMIT ?",
        (tenant, after_name if after_name is not None else "", limit),
    )
    return [DefinitionEntry(name=name, version=version, registered_at=at) for name, version, at in rows]
