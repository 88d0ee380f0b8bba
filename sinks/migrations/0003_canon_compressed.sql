-- Neighbouring rows name nearly the same loads. Where these are thousands a row is longer than what
-- LZ4 looks back over, or a block of compression holds, and each was stored anew.

ALTER TABLE $database.canon$on_cluster
    MODIFY COLUMN loads Array(UInt64) CODEC(ZSTD(1))
    SETTINGS (min_compress_block_size = 8388608, max_compress_block_size = 8388608);
