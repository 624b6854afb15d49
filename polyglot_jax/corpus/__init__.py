"""Raw text to clean documents: readers, rules, and the pipeline that writes Parquet."""
