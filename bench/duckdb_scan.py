"""DuckDB on the files of `tongban-lake bench`: the same aggregate, on as many threads, for the ratio in docs/benchmarks.md.

pip install duckdb deltalake; python3 bench/duckdb_scan.py lake-bench/data/bench.events
"""
import sys, time, resource
import duckdb
from deltalake import DeltaTable

uris = DeltaTable(sys.argv[1]).file_uris()
db = duckdb.connect()
db.execute("set threads = 2")
sql = "select district, kind, count(*), sum(amount) from read_parquet(?) group by district, kind"
db.execute(sql, [uris]).fetchall()
cpu = resource.getrusage(resource.RUSAGE_SELF)
begun = time.time()
db.execute(sql, [uris]).fetchall()
took = time.time() - begun
after = resource.getrusage(resource.RUSAGE_SELF)
spent = after.ru_utime + after.ru_stime - cpu.ru_utime - cpu.ru_stime
rows = db.execute("select count(*) from read_parquet(?)", [uris]).fetchone()[0]
print({"rows": rows, "seconds": round(took, 3), "rows_per_second": round(rows / took), "rows_per_cpu_second": round(rows / spent)})
