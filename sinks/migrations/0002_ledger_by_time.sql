-- Publishers of a cluster ask many times a second for the newest rows; the table is ordered by block.

ALTER TABLE $database.ledger$on_cluster
    ADD INDEX IF NOT EXISTS inserted_at_range inserted_at TYPE minmax GRANULARITY 1;

ALTER TABLE $database.ledger$on_cluster MATERIALIZE INDEX inserted_at_range;
