"""The views that readers open: pointed at new tables all at once, or not at all."""

import json
import logging
import os
import random
import re
import time
from itertools import count

from psycopg import errors, sql

from ml.publish import SCHEMAS
from ml.serving.connection import Connection, NotPublished
from ml.serving.tables import HELD_IN, MANIFEST, Stored, Table
from ml.settings import PROJECT_ROOT

log = logging.getLogger(__name__)

# How long an attempt to keep readers out may wait for them, while others wait for it;
# and which attempts wait long.
SHORT_WAIT_MS, LONG_WAIT_MS, LONG_EVERY = 10, 500, 20

# Column (or nothing), privilege, role and whether it may be passed on.
Grant = tuple[str, str, str, bool]


def make_schemas(connection: Connection) -> None:
    """Make those that are not there; what is there needs no right to make any."""
    found = connection.execute("select nspname from pg_namespace").fetchall()
    for schema in (*SCHEMAS, HELD_IN):
        if (schema,) not in found:
            name = sql.Identifier(schema)
            connection.execute(sql.SQL("create schema {}").format(name))


def held_tables(connection: Connection) -> list[str]:
    """Tables that publications made, whether readers see them or not."""
    return [
        name
        for (name,) in connection.execute(
            "select tablename from pg_tables where schemaname = %s"
            " and tablename ~ '^[0-9]+_[0-9]+_'",
            [HELD_IN],
        )
    ]


def shown_tables(connection: Connection) -> dict[str, Stored]:
    """The views that publications made, by name, and where they read from."""
    rows = connection.execute(
        """
        select
            schemas.nspname, views.relname, held.relname,
            array_agg(columns.attname order by columns.attnum)::text[],
            array_agg(
                format_type(columns.atttypid, columns.atttypmod)
                order by columns.attnum
            )
        from pg_class as views
        inner join pg_namespace as schemas on views.relnamespace = schemas.oid
        inner join pg_rewrite as rules on views.oid = rules.ev_class
        inner join lateral (
            select distinct refobjid from pg_depend
            where classid = 'pg_rewrite'::regclass and objid = rules.oid
                and refclassid = 'pg_class'::regclass
        ) as sources on true
        inner join pg_class as held on sources.refobjid = held.oid
        inner join pg_attribute as columns on views.oid = columns.attrelid
        where views.relkind = 'v' and schemas.nspname = any(%s)
            and held.relnamespace = to_regnamespace(%s) and columns.attnum > 0
        group by schemas.nspname, views.relname, held.relname
        """,
        [list(SCHEMAS), HELD_IN],
    ).fetchall()
    found = {}
    for schema, name, held_in, names, types in rows:
        # A view that somebody else made upon our tables is not ours to replace.
        if f"{schema}_{name}".startswith(held_in.split("_", 2)[-1]):
            table = Table(schema, name, dict(zip(names, types, strict=True)))
            found[table.full_name] = Stored(table, held_in)
    return found


def refuse_what_is_in_the_way(connection: Connection, tables: list[Table]) -> None:
    """Nothing that somebody else made is replaced."""
    ours = shown_tables(connection)
    there = connection.execute(
        "select nspname || '.' || relname from pg_class"
        " inner join pg_namespace on relnamespace = pg_namespace.oid"
        " where nspname = any(%s)",
        [list(SCHEMAS)],
    ).fetchall()
    names = {table.full_name for table in (*tables, MANIFEST)}
    taken = sorted(names & {name for (name,) in there} - set(ours))
    if taken:
        raise NotPublished(
            f"{', '.join(taken)}: in the way there, and not made by publishing. Rename "
            "or move it, or publish to a database of its own (PUBLISH_POSTGRES_URL)."
        )


# ---------------------------------------------------------------- showing


def show(
    connection: Connection, new: list[Stored], kept: set[str], patience: float
) -> None:
    """Point the views at the new tables; drop every old one but `kept`."""
    shown = shown_tables(connection)
    fresh = {stored.held_in for stored in new}
    outdated = sorted(set(held_tables(connection)) - fresh - kept)
    held = [sql.Identifier(HELD_IN, name) for name in outdated]
    names = {stored.table.full_name for stored in new}
    gone = [
        old.table
        for name, old in shown.items()
        if name not in names and old.held_in not in kept
    ]
    changed = [
        stored.table
        for stored in new
        if (old := shown.get(stored.table.full_name)) and _lost(old.table, stored.table)
    ]
    grants = {table.full_name: _grants(connection, table) for table in changed}
    steps = [
        *_drop("view", [table.view for table in (*gone, *changed)]),
        *(_view(stored, shown.get(stored.table.full_name)) for stored in new),
        *_comments(connection, [stored.table for stored in new], changed),
        *_drop("table", held),
    ]
    _keep_readers_out(
        connection, [old.table.view for old in shown.values()] + held, patience
    )
    try:
        # In one message: readers wait for no round trip.
        connection.execute(sql.SQL("; ").join(steps))
    except errors.DependentObjectsStillExist as error:
        raise NotPublished(_describe_dependents(error, shown, new, gone)) from None
    for table in changed:
        _give_back(connection, table, grants[table.full_name])


def _lost(old: Table, new: Table) -> list[str]:
    """Columns that are gone or have another type: a view cannot be changed so."""
    return [
        f"{name} ({kind}, now {new.columns.get(name, 'gone')})"
        for name, kind in old.columns.items()
        if new.columns.get(name) != kind
    ]


def _drop(kind: str, names: list[sql.Identifier]) -> list[sql.Composed]:
    """All at once, so that an error names everything that depends on any of them."""
    if not names:
        return []
    return [sql.SQL(f"drop {kind} {{}}").format(sql.SQL(", ").join(names))]


def _view(new: Stored, old: Stored | None) -> sql.Composed:
    """Old columns first: a view can only be replaced by one that begins the same."""
    columns, verb = list(new.table.columns), "create view"
    if old is not None and not _lost(old.table, new.table):
        before, verb = list(old.table.columns), "create or replace view"
        columns = before + [name for name in columns if name not in before]
    names = sql.SQL(", ").join(map(sql.Identifier, columns))
    return sql.SQL(f"{verb} {{}} as select {{}} from {{}}").format(
        new.table.view, names, new.rows_at
    )


def _keep_readers_out(
    connection: Connection, relations: list[sql.Identifier], patience: float
) -> None:
    """Lock all of them, or wait with none.

    While it waits for one with others in hand, readers of those wait too, and one that
    waits longer than `deadlock_timeout` may have its query ended by PostgreSQL. So an
    attempt is shorter than that and lets go of everything: most are so short that
    nobody notices, and find a moment between transactions; now and then a longer one
    has queries end while new ones wait. The next begins with what could not be had:
    readers in transactions open their tables in an order, and who locks the first of
    these keeps new transactions from beginning.
    """
    if not relations:
        return
    names = [relation.as_string(connection) for relation in relations]
    found = connection.execute(
        "select setting::int from pg_settings where name = 'deadlock_timeout'"
    ).fetchone()
    longest = min(LONG_WAIT_MS, found[0] // 2) if found else LONG_WAIT_MS
    deadline = time.monotonic() + patience
    for attempt in count(1):
        is_long = attempt % LONG_EVERY == 0
        wait = longest if is_long else SHORT_WAIT_MS
        busy = _try_lock(connection, names, wait)
        if not busy:
            return
        if time.monotonic() >= deadline:
            raise NotPublished(
                f"Readers have kept the views in use for {patience:.0f} seconds: "
                f"{_holders(connection, names)}. What readers see is as it was. End "
                "these transactions (`select pg_terminate_backend(PID)`) or wait for "
                "them, and run this again."
            )
        if is_long:
            log.info("Waiting for readers: %s", _holders(connection, names))
        names.sort(key=lambda name: name != busy)
        # Not in step with readers that come again and again.
        time.sleep(wait / 1000 * random.uniform(1, 3))


def _try_lock(connection: Connection, names: list[str], wait: int) -> str:
    """Lock them in this order; returns which could not be had in time, if any."""
    # One statement, so that the limit is for all of them, and one round trip.
    lock = sql.SQL(
        "do $$ declare name text; begin foreach name in array {}::text[] loop"
        " execute 'lock table ' || name || ' in access exclusive mode';"
        " end loop; end $$"
    ).format(sql.Literal(names))
    limit = sql.SQL("set local statement_timeout = {}").format(sql.Literal(wait))
    try:
        with connection.transaction():
            connection.execute(limit)
            connection.execute(lock)
    except errors.QueryCanceled as error:
        busy = re.search(r"lock table (.+) in access", error.diag.context or "")
        return busy[1] if busy else names[0]
    connection.execute("set local statement_timeout = 0")
    return ""


def _holders(connection: Connection, names: list[str]) -> str:
    """Who reads them, and since when; never what is read."""
    rows = connection.execute(
        "select distinct pid, usename, application_name,"
        " extract(epoch from now() - xact_start)::int"
        " from pg_locks inner join pg_stat_activity using (pid)"
        " where granted and pid <> pg_backend_pid() and relation::oid = any("
        "select to_regclass(name)::oid from unnest(%s::text[]) as names (name))",
        [names],
    ).fetchall()
    return (
        ", ".join(
            f"PID {pid} ({user}, {application or 'no name'}, for {seconds} s)"
            for pid, user, application, seconds in rows
        )
        or "nobody any more"
    )


def _describe_dependents(
    error: errors.DependentObjectsStillExist,
    shown: dict[str, Stored],
    new: list[Stored],
    gone: list[Table],
) -> str:
    why = [f"  {table.full_name} is not published any more" for table in gone]
    for stored in new:
        old = shown.get(stored.table.full_name)
        lost = _lost(old.table, stored.table) if old else []
        if lost:
            why.append(f"  {stored.table.full_name}: {', '.join(lost)}")
    found = (error.diag.message_detail or "").splitlines()
    return "\n".join(
        [
            "Somebody's views depend on what has changed, and are never dropped here:",
            *(f"  {line}" for line in found),
            "The changes:",
            *why,
            "What readers see is as it was. Drop these views, publish, and make them "
            "again (`select pg_get_viewdef('NAME')` has their query).",
        ]
    )


# ---------------------------------------------------------------- grants


def _grants(connection: Connection, table: Table) -> set[Grant]:
    """Column (or nothing), privilege, role and whether it may be passed on."""
    return set(
        connection.execute(
            """
            with given as (
                select '' as name, relowner, relacl as acl from pg_class
                where oid = %(view)s::regclass
                union all
                select attname, relowner, attacl from pg_attribute
                inner join pg_class on attrelid = pg_class.oid
                where attrelid = %(view)s::regclass
            )
            select
                name, privilege_type,
                case grantee when 0 then 'public' else grantee::regrole::text end,
                is_grantable
            from given, aclexplode(acl)
            where grantee <> relowner
            """,
            {"view": table.view.as_string(connection)},
        ).fetchall()
    )


def _give_back(connection: Connection, table: Table, before: set[Grant]) -> None:
    """A view that had to be made anew gets the grants that it had, and no others."""
    now = _grants(connection, table)
    for column, privilege, role, _ in sorted(now - before):
        connection.execute(
            sql.SQL(f"revoke {privilege} {{}} on {{}} from {role}").format(
                _of_column(column), table.view
            )
        )
    for column, privilege, role, may_pass_on in sorted(before - now):
        if column and column not in table.columns:
            continue
        option = " with grant option" if may_pass_on else ""
        connection.execute(
            sql.SQL(f"grant {privilege} {{}} on {{}} to {role}{option}").format(
                _of_column(column), table.view
            )
        )


def _of_column(name: str) -> sql.Composable:
    return sql.SQL("({})").format(sql.Identifier(name)) if name else sql.SQL("")


# ---------------------------------------------------------------- comments


def _comments(
    connection: Connection, tables: list[Table], changed: list[Table]
) -> list[sql.Composed]:
    """Statements for the descriptions of dbt that views do not have yet."""
    rows = connection.execute(
        "select nspname, relname, coalesce(attname, ''), description"
        " from pg_description inner join pg_class on objoid = pg_class.oid"
        " inner join pg_namespace on relnamespace = pg_namespace.oid"
        " left join pg_attribute on attrelid = objoid and attnum = objsubid"
        " and attnum > 0 where classoid = 'pg_class'::regclass"
        " and nspname = any(%s)",
        [list(SCHEMAS)],
    ).fetchall()
    there = {(schema, name, column): text for schema, name, column, text in rows}
    described = _descriptions()
    statements = []
    for table in tables:
        for column in ("", *table.columns):
            key = (table.schema, table.name, column)
            text = described.get(key)
            if text and (table in changed or there.get(key) != text):
                kind = sql.SQL("column {}.{}" if column else "view {}")
                parts = [table.view, *([sql.Identifier(column)] if column else [])]
                statements.append(
                    sql.SQL("comment on {} is {}").format(
                        kind.format(*parts), sql.Literal(text)
                    )
                )
    return statements


def _descriptions() -> dict[tuple[str, str, str], str]:
    """By schema, table and column (or nothing), as the newest dbt command left them."""
    folder = PROJECT_ROOT / os.environ.get("DBT_TARGET_PATH", "target")
    try:
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    found = {(MANIFEST.schema, MANIFEST.name, ""): "One row per published table."}
    for node in [*manifest["nodes"].values(), *manifest["sources"].values()]:
        name = node.get("alias") or node.get("identifier") or node["name"]
        schema = node.get("schema") or ""
        found[schema, name, ""] = node.get("description", "").strip()
        for column in node.get("columns", {}).values():
            text = column.get("description", "").strip()
            found[schema, name, column["name"]] = text
    return found
