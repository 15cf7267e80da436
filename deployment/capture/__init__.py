"""What endpoints record: decisions and rewards, as JSON lines and as Parquet."""
