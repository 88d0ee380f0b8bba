-- The control tables of one chain's database. Data tables and views follow the declarations.

CREATE TABLE IF NOT EXISTS $database.chain_facts$on_cluster
(
    chain String COMMENT 'Name of the chain',
    chain_id UInt64 COMMENT 'What eth_chainId answers',
    segment_blocks UInt64 COMMENT 'Blocks of one history segment',
    partition_blocks UInt64 COMMENT 'Blocks of one partition',
    created_at DateTime64(3, 'UTC') DEFAULT now64(3)
)
ENGINE = $merge_tree
ORDER BY chain
SETTINGS $durable
COMMENT 'What this database was made for; one row';

CREATE TABLE IF NOT EXISTS $database.table_layouts$on_cluster
(
    table_name String COMMENT 'A declared table or view',
    layout_hash String COMMENT 'Hash of what it was made from; the newest row counts',
    recorded_at DateTime64(6, 'UTC') DEFAULT now64(6)
)
ENGINE = $merge_tree
ORDER BY (table_name, recorded_at)
COMMENT 'What each table and view was made from';

CREATE TABLE IF NOT EXISTS $database.ledger$on_cluster
(
    stream LowCardinality(String) COMMENT 'blocks, logs or events',
    lane LowCardinality(String) COMMENT 'history or head',
    from_block UInt64 COMMENT 'First block of the segment',
    to_block UInt64 COMMENT 'Last block of the segment, included',
    last_hash FixedString(32) COMMENT 'Hash of the last block',
    content_version String COMMENT 'Source, verification level; for events ABIs and code version',
    generation UInt64 COMMENT 'Generation of the ledger that the load was written for',
    load_id UInt64 COMMENT 'The load that holds the rows',
    tables Array(LowCardinality(String)) COMMENT 'Tables of the stream',
    rows Array(UInt64) COMMENT 'Rows of the segment in each of the tables',
    checksums Array(UInt64) COMMENT 'Sum modulo 2^64 of the mixed identities of those rows',
    inserted_at DateTime64(6, 'UTC') DEFAULT now64(6)
)
ENGINE = $merge_tree
ORDER BY (stream, from_block, to_block, load_id)
SETTINGS index_granularity = 1024, $durable
COMMENT 'Complete loads: a row here means that every row of the segment is stored';

CREATE TABLE IF NOT EXISTS $database.canon$on_cluster
(
    generation UInt64 COMMENT 'Which publisher wrote it; a later one sorts higher',
    seq UInt64 COMMENT 'Counts within the generation',
    at DateTime64(3, 'UTC') COMMENT 'When it was written',
    floor UInt64 COMMENT 'First visible block',
    head UInt64 COMMENT 'Last visible block',
    head_hash FixedString(32) COMMENT 'Its hash',
    safe Nullable(UInt64) COMMENT 'Newest visible safe block',
    safe_hash Nullable(FixedString(32)) COMMENT 'Its hash',
    finalized Nullable(UInt64) COMMENT 'Newest visible finalized block',
    finalized_hash Nullable(FixedString(32)) COMMENT 'Its hash',
    straddling Bool DEFAULT true COMMENT 'False if every visible load lies between floor and head',
    sealed Array(UInt64) COMMENT 'Sealed partitions',
    loads Array(UInt64) COMMENT 'Visible loads of the partitions that are not sealed'
)
ENGINE = $merge_tree
PARTITION BY toStartOfHour(at)
ORDER BY (generation, seq)
SETTINGS index_granularity = 64, $durable
COMMENT 'Which loads count: a whole snapshot a row, the highest (generation, seq) wins';

CREATE TABLE IF NOT EXISTS $database.reorgs$on_cluster
(
    generation UInt64 COMMENT 'Canon row that applied it',
    seq UInt64 COMMENT 'Canon row that applied it',
    at DateTime64(3, 'UTC') COMMENT 'When it became visible',
    depth_blocks UInt32 COMMENT 'How many visible blocks it removed',
    ancestor_number Nullable(UInt64) COMMENT 'Last block that both branches share, if known',
    ancestor_hash Nullable(FixedString(32)) COMMENT 'Its hash',
    old_head_number UInt64 COMMENT 'Visible head before',
    old_head_hash FixedString(32) COMMENT 'Its hash',
    new_head_number UInt64 COMMENT 'Visible head after',
    new_head_hash FixedString(32) COMMENT 'Its hash',
    removed Array(Tuple(number UInt64, hash FixedString(32))) COMMENT 'Blocks removed',
    added Array(Tuple(number UInt64, hash FixedString(32))) COMMENT 'Blocks added'
)
ENGINE = $merge_tree
ORDER BY (at, generation, seq)
SETTINGS $durable
COMMENT 'Reorganisations as the views showed them';

CREATE TABLE IF NOT EXISTS $database.rewinds$on_cluster
(
    generation UInt64 COMMENT 'Canon row that applied it',
    seq UInt64 COMMENT 'Canon row that applied it',
    at DateTime64(3, 'UTC') COMMENT 'When it was applied',
    from_head UInt64 COMMENT 'Visible head before',
    to_block UInt64 COMMENT 'Visible head after',
    reason String COMMENT 'Who asked and why'
)
ENGINE = $merge_tree
ORDER BY (at, generation, seq)
SETTINGS $durable
COMMENT 'Rewinds that an operator asked for';
