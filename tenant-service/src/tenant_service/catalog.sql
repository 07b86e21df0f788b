-- What a database consists of: a line for each thing, those of one table together, in a stable order.
-- The same on every PostgreSQL from 15 on: NOT NULL stands beside its column (18 also lists it as a constraint), and
-- what an owner may do with what is his own leaves out MAINTAIN (17 has it, 15 doesn't). Names are quoted where SQL
-- would quote them. `owner` is the database's owner. Expects an empty search_path.
WITH role (oid, name) AS (
    SELECT oid, CASE WHEN oid = datdba THEN 'owner' WHEN rolname = 'owner' THEN '"owner"' ELSE quote_ident(rolname) END
    FROM pg_roles, (SELECT datdba FROM pg_database WHERE datname = current_database()) AS here
    UNION ALL SELECT 0, 'PUBLIC'
),
space (oid, name, owner, acl) AS (
    SELECT oid, quote_ident(nspname), nspowner, nspacl FROM pg_namespace
    WHERE nspname !~ '^pg_' AND nspname <> 'information_schema'
),
relation AS (
    SELECT c.*, space.name || '.' || quote_ident(relname) AS name,
        CASE relkind WHEN 'r' THEN 'table' WHEN 'p' THEN 'partitioned table' WHEN 'v' THEN 'view' WHEN 'S' THEN 'sequence'
            WHEN 'm' THEN 'materialized view' WHEN 'f' THEN 'foreign table' ELSE 'composite type' END AS kind
    FROM pg_class c JOIN space ON space.oid = relnamespace WHERE relkind NOT IN ('i', 'I', 't')
),
routine AS (
    SELECT p.*, space.name || '.' || quote_ident(proname) || '(' || pg_get_function_identity_arguments(p.oid) || ')' AS name
    FROM pg_proc p JOIN space ON space.oid = pronamespace
),
kind AS (
    SELECT t.*, space.name || '.' || quote_ident(typname) AS name
    FROM pg_type t JOIN space ON space.oid = typnamespace WHERE typtype IN ('e', 'd', 'r')
),
thing (name, owner, acl, acl_kind) AS (
    SELECT 'schema ' || name, owner, acl, 'n'::"char" FROM space
    UNION ALL SELECT kind || ' ' || name, relowner, relacl, CASE relkind WHEN 'S' THEN 's' ELSE 'r' END::"char" FROM relation
    UNION ALL SELECT 'function ' || name, proowner, proacl, 'f' FROM routine
    UNION ALL SELECT 'type ' || name, typowner, typacl, 'T' FROM kind
    UNION ALL SELECT 'language ' || quote_ident(lanname), lanowner, lanacl, 'l' FROM pg_language
        WHERE lanname NOT IN ('internal', 'c', 'sql', 'plpgsql')
    UNION ALL SELECT 'foreign server ' || quote_ident(srvname), srvowner, srvacl, 'S' FROM pg_foreign_server
),
granted (thing, what, owner, acl) AS (
    SELECT name, name, owner, coalesce(acl, acldefault(acl_kind, owner)) FROM thing
    UNION ALL
    SELECT kind || ' ' || name, 'column ' || name || '.' || quote_ident(attname), relowner, attacl
    FROM relation JOIN pg_attribute ON attrelid = relation.oid WHERE attacl IS NOT NULL
),
line (thing, rank, position, line) AS (
    SELECT thing.name, 1, 0, thing.name || ' of ' || role.name FROM thing JOIN role ON role.oid = thing.owner
    UNION ALL
    SELECT kind || ' ' || name, 2, 0, concat_ws(' ', kind, name, CASE relpersistence WHEN 'u' THEN 'unlogged' END,
        'with (' || array_to_string(reloptions, ', ') || ')', 'partition ' || pg_get_expr(relpartbound, oid),
        'partition by ' || CASE relkind WHEN 'p' THEN pg_get_partkeydef(oid) END,
        CASE WHEN relrowsecurity THEN 'row level security' END, CASE WHEN relforcerowsecurity THEN 'forced' END)
    FROM relation
    WHERE relpersistence <> 'p' OR reloptions IS NOT NULL OR relispartition OR relkind = 'p' OR relrowsecurity
        OR relforcerowsecurity
    UNION ALL
    SELECT kind || ' ' || name, 2, 1, format('%s %s inherits %s', kind, name, inhparent::regclass)
    FROM relation JOIN pg_inherits ON inhrelid = relation.oid
    UNION ALL
    SELECT kind || ' ' || name, 3, attnum, concat_ws(' ', 'column', name || '.' || quote_ident(attname),
        format_type(atttypid, atttypmod), CASE WHEN attcollation <> typcollation THEN 'collate ' || attcollation::regcollation END,
        CASE WHEN attnotnull THEN 'not null' END, CASE attidentity WHEN 'a' THEN 'always identity' WHEN 'd' THEN 'identity' END,
        CASE attgenerated WHEN '' THEN 'default ' WHEN 's' THEN 'generated stored ' ELSE 'generated virtual ' END
            || pg_get_expr(adbin, adrelid))
    FROM relation JOIN pg_attribute ON attrelid = relation.oid AND attnum > 0 AND NOT attisdropped
        JOIN pg_type ON pg_type.oid = atttypid LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
    UNION ALL
    SELECT coalesce(relation.kind || ' ' || relation.name, 'type ' || kind.name), 4, 0,
        format('constraint %I on %s %s', conname, coalesce(relation.name, kind.name), pg_get_constraintdef(pg_constraint.oid))
    FROM pg_constraint LEFT JOIN relation ON relation.oid = conrelid LEFT JOIN kind ON kind.oid = contypid
    WHERE contype <> 'n' AND coalesce(relation.name, kind.name) IS NOT NULL
    UNION ALL
    SELECT kind || ' ' || name, 5, 0, concat_ws(' ', 'index', pg_get_indexdef(indexrelid), CASE WHEN NOT indisvalid THEN 'invalid' END)
    FROM relation JOIN pg_index ON indrelid = relation.oid
    UNION ALL
    SELECT kind || ' ' || name, 6, 0,
        concat_ws(' ', 'trigger', pg_get_triggerdef(pg_trigger.oid), CASE WHEN tgenabled <> 'O' THEN 'enabled ' || tgenabled::text END)
    FROM relation JOIN pg_trigger ON tgrelid = relation.oid AND NOT tgisinternal
    UNION ALL
    SELECT kind || ' ' || name, 7, 0,
        concat_ws(' ', 'rule', pg_get_ruledef(pg_rewrite.oid), CASE WHEN ev_enabled <> 'O' THEN 'enabled ' || ev_enabled::text END)
    FROM relation JOIN pg_rewrite ON ev_class = relation.oid
    UNION ALL
    SELECT kind || ' ' || relation.name, 8, 0, concat_ws(' ', 'policy', quote_ident(polname), 'on', relation.name,
        CASE WHEN polpermissive THEN 'permissive' ELSE 'restrictive' END, 'for', polcmd, 'to',
        (SELECT string_agg(role.name, ', ' ORDER BY role.name COLLATE "C") FROM role WHERE role.oid = ANY (polroles)),
        'using ' || pg_get_expr(polqual, polrelid), 'check ' || pg_get_expr(polwithcheck, polrelid))
    FROM relation JOIN pg_policy ON polrelid = relation.oid
    UNION ALL
    SELECT kind || ' ' || name, 3, 0, format('sequence %s as %s start %s by %s from %s to %s%s', name, seqtypid::regtype,
        seqstart, seqincrement, seqmin, seqmax, CASE WHEN seqcycle THEN ' cycling' END)
    FROM relation JOIN pg_sequence ON seqrelid = relation.oid
    UNION ALL
    SELECT 'function ' || name, 3, 0, 'function ' || name || ' '
        || CASE prokind WHEN 'a' THEN 'is an aggregate' ELSE pg_get_functiondef(oid) END
    FROM routine
    UNION ALL
    SELECT 'type ' || name, 3, 0, concat_ws(' ', 'type', name, 'is',
        CASE typtype WHEN 'e' THEN 'enum (' || (SELECT string_agg(quote_literal(enumlabel), ', ' ORDER BY enumsortorder)
            FROM pg_enum WHERE enumtypid = kind.oid) || ')'
            WHEN 'd' THEN format_type(typbasetype, typtypmod) ELSE 'a range' END,
        CASE WHEN typnotnull THEN 'not null' END, 'default ' || typdefault)
    FROM kind
    UNION ALL
    SELECT granted.thing, 9, 0, format('grant %s on %s to %s',
        string_agg(privilege_type || CASE WHEN is_grantable THEN ' with grant option' ELSE '' END, ', '
            ORDER BY privilege_type COLLATE "C"), granted.what, role.name)
    FROM granted, aclexplode(granted.acl) JOIN role ON role.oid = grantee
    WHERE NOT (privilege_type = 'MAINTAIN' AND grantee = granted.owner)
    GROUP BY granted.thing, granted.what, role.name
    UNION ALL
    SELECT 'default', 1, 0, concat_ws(' ', 'default rights', defaclobjtype, 'of', role.name, 'in ' || space.name, defaclacl::text)
    FROM pg_default_acl JOIN role ON role.oid = defaclrole LEFT JOIN space ON space.oid = defaclnamespace
    UNION ALL
    SELECT 'extension', 1, 0, format('extension %I %s', extname, extversion) FROM pg_extension WHERE extname <> 'plpgsql'
    UNION ALL
    SELECT 'event trigger', 1, 0, format('event trigger %I on %s calls %s, enabled %s', evtname, evtevent, evtfoid::regprocedure, evtenabled)
    FROM pg_event_trigger
    UNION ALL
    SELECT 'publication', 1, 0, format('publication %I', pubname) FROM pg_publication
)
SELECT coalesce(array_agg(replace(line, E'\n', '\n') ORDER BY thing COLLATE "C", rank, position, line COLLATE "C"), '{}')
FROM line
